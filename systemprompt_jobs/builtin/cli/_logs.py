"""`logs`: what a run has logged."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from . import _complete
from ._options import RunNumber, as_json
from ._shapes import attempt_shape, print_json
from ._text import complain, many_lines, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from systemprompt_jobs import Run, Runtime
    from systemprompt_jobs.model import AttemptOverview

    from ._session import Session

_OPEN = ("pending", "claimed", "dispatched", "running")
_LOOK_EVERY_S = 0.5


@click.command("logs")
@click.argument("number", metavar="RUN", type=RunNumber(), shell_complete=_complete.runs)
@click.option("-f", "--follow", is_flag=True, help="Go on until the run has ended.")
@as_json
@click.pass_context
def command(ctx: click.Context, number: int, follow: bool, as_json: bool) -> None:
    """Show what a run has logged, attempt by attempt."""
    session: Session = ctx.obj
    if follow and as_json:
        ctx.fail("--follow prints lines as they come: leave out --json")
    runtime = session.runtime()
    run = runtime.find_run(number)
    if as_json:
        print_json(_answer(runtime, run))
        return
    printer = _Printer()
    printer.show(runtime.attempts(run))
    while follow and run.state in _OPEN:
        time.sleep(_LOOK_EVERY_S)
        run = runtime.find_run(number)
        printer.show(runtime.attempts(run))
    if not printer.lines:
        complain(_why_nothing(run, runtime))


def _answer(runtime: Runtime, run: Run) -> dict[str, Any]:
    return {"attempts": [attempt_shape(attempt) for attempt in runtime.attempts(run)]}


class _Printer:
    """Prints each line once, however often it is shown the attempts."""

    def __init__(self) -> None:
        self.lines = 0
        self._seen: dict[int, int] = {}

    def show(self, attempts: Sequence[AttemptOverview]) -> None:
        for attempt in attempts:
            if attempt.log:
                self._show(attempt, several=len(attempts) > 1)

    def _show(self, attempt: AttemptOverview, *, several: bool) -> None:
        lines = attempt.log.split("\n")
        if attempt.fence not in self._seen and several:
            complain(f"attempt {attempt.number} on {attempt.node}")
        seen = self._seen.get(attempt.fence, 0)
        if attempt.log_cut > seen:
            complain(f"({attempt.log_cut - seen:,} older lines are not kept)")
        new = lines[max(0, seen - attempt.log_cut) :]
        say(*map(many_lines, new))
        self._seen[attempt.fence] = attempt.log_cut + len(lines)
        self.lines += len(new)


def _why_nothing(run: Run, runtime: Runtime) -> str:
    if not runtime.attempts(run):
        return f"run {run.id} is {run.state}: its function was never called"
    return f"run {run.id} of {run.job_id} has logged nothing"
