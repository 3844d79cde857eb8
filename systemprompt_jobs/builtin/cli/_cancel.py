"""`cancel`: end runs early."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from systemprompt_jobs.errors import UsageError

from . import _complete
from ._failures import WRONG_USE
from ._options import RunNumber, as_json
from ._runs import state_cell
from ._shapes import print_json, run_shape
from ._text import complain, one_line, say
from ._who import who

if TYPE_CHECKING:
    from systemprompt_jobs import Run, Runtime

    from ._session import Session


@click.command("cancel")
@click.argument(
    "ids",
    nargs=-1,
    required=True,
    type=RunNumber(),
    metavar="RUN...",
    shell_complete=_complete.runs,
)
@click.option("--note", default="", metavar="TEXT", help="Why, for the history and the audit.")
@as_json
@click.pass_context
def command(ctx: click.Context, ids: tuple[int, ...], note: str, as_json: bool) -> None:
    """End runs early, wherever they are.

    One that waits is cancelled at once. One that runs is told to end, within a second: a thread
    ends when its function looks, an `async def` at its next `await`, a process is killed.
    """
    session: Session = ctx.obj
    runtime = session.runtime()
    session.log("run")
    runs = [run for id_ in dict.fromkeys(ids) if (run := _cancelled(runtime, id_, note))]
    if as_json:
        print_json({"runs": [run_shape(run) for run in runs]})
    else:
        say(*map(_line, runs))
    if len(runs) < len(set(ids)):
        ctx.exit(WRONG_USE)


def _cancelled(runtime: Runtime, run_id: int, note: str) -> Run | None:
    """Cancel one run; what is wrong with one does not save the others."""
    try:
        return runtime.cancel(run_id, note=note, who=who())
    except UsageError as error:
        complain(f"error: {error}")
        return None


def _line(run: Run) -> str:
    told = f"told to end, on {run.node}" if run.state == "running" else ""
    parts = (state_cell(run).text, f"run {run.id} of {run.job_id}", told)
    return "  ".join(filter(None, map(one_line, parts)))
