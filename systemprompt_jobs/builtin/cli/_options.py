"""Options that several commands share."""

from __future__ import annotations

import click


class RunNumber(click.IntRange):
    """The number of a run, as `history` shows it."""

    name = "run: write its number, as `history` shows it"

    def __init__(self) -> None:
        super().__init__(min=1)


as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")

detach = click.option(
    "--detach", is_flag=True, help="Hand the run to a running scheduler and do not wait."
)
