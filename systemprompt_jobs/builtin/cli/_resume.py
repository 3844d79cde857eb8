"""`resume`: paused jobs go on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ._choose import chosen, jobs_by
from ._options import as_json
from ._shapes import print_json
from ._text import complain, say
from ._who import who

if TYPE_CHECKING:
    from ._session import Session


@click.command("resume")
@jobs_by("Every job that is paused.")
@click.option("--note", default="", metavar="TEXT", help="Why, for the audit.")
@as_json
@click.pass_context
def command(
    ctx: click.Context,
    names: tuple[str, ...],
    every: bool,
    tag: str | None,
    note: str,
    as_json: bool,
) -> None:
    """End the pauses of jobs; what was due meanwhile is not made up."""
    session: Session = ctx.obj
    runtime = session.runtime_at_work()
    ids = chosen(ctx, runtime, names, runtime.pauses() if every else None, tag)
    resumed = runtime.resume(*ids, note=note, who=who())
    if as_json:
        print_json({"resumed": resumed})
        return
    for id_ in resumed:
        say(f"{id_} is resumed")
    for id_ in ids:
        if id_ not in resumed:
            complain(f"{id_} is not paused")
    if not ids:
        say("no job is paused")
