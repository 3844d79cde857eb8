"""`retry`: a run once more."""

from __future__ import annotations

import click

from . import _complete
from ._options import RunNumber, as_json, detach
from ._run import answer, at_work, waiting
from ._who import who


@click.command("retry")
@click.argument("number", metavar="RUN", type=RunNumber(), shell_complete=_complete.runs)
@detach
@as_json
@click.pass_context
def command(ctx: click.Context, number: int, detach: bool, as_json: bool) -> None:
    """Run a run that has ended once more, with the same parameters and tick.

    The new run is one by hand. Exit code 1: it did not succeed.
    """
    runtime, bars = at_work(ctx)
    with waiting(ctx, runtime, bars, as_json=as_json):
        run = runtime.retry(number, detach=detach, who=who())
    answer(ctx, runtime, [run], detached=detach, as_json=as_json)
