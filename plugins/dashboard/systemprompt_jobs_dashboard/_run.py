"""The page of one run: its attempts in time, what it said, and what may be done about it."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from operator import itemgetter
from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException

from systemprompt_jobs.errors import UnknownJobError, UsageError
from systemprompt_jobs.model import State
from systemprompt_jobs.secrets import masked

from . import _charts
from ._guard import dashboard_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime, timedelta

    from starlette.requests import Request
    from starlette.responses import Response

    from systemprompt_jobs import Run, Runtime

_OPEN = (State.PENDING, State.CLAIMED, State.RUNNING)
_LARGEST = 2**62


@dataclass(frozen=True, slots=True)
class Step:
    """A time in the life of a run, how long after the one before, and what it means."""

    name: str
    at: datetime
    after: timedelta | None
    meaning: str


def run(request: Request) -> Response:
    """Return the page of one run."""
    dashboard = dashboard_of(request)
    found = find_run(dashboard.runtime, request.path_params["run"])
    attempts = dashboard.runtime.attempts(found)
    return dashboard.render(
        request,
        "run.html",
        run=found,
        attempts=attempts,
        steps=[*_steps(found)],
        parameters=masked(found.parameters),
        line=_charts.line(found, attempts),
        open=found.state in _OPEN,
        installed=_installed(dashboard.runtime, found.job_id),
        why=_why(dashboard.runtime, found),
    )


def find_run(runtime: Runtime, number: int) -> Run:
    """Return a run by its number. Raises HTTPException where there is none."""
    if number < _LARGEST:
        try:
            return runtime.find_run(number)
        except UsageError:
            pass
    raise HTTPException(HTTPStatus.NOT_FOUND, f"there is no run {number}; it may be pruned")


def _installed(runtime: Runtime, job_id: str) -> bool:
    try:
        return runtime.find(job_id).problem is None
    except UnknownJobError:
        return False


def _why(runtime: Runtime, run: Run) -> tuple[str, ...]:
    """Return why a tick did not run, in sentences; nothing for what ran."""
    if run.tick is None or run.state not in (State.SKIPPED, State.MISSED, State.LOST):
        return ()
    try:
        return runtime.explain(run.job_id, run.tick).sentences
    except UnknownJobError:
        return ()


def _steps(run: Run) -> Iterator[Step]:
    steps = (
        ("tick", run.tick, "the scheduled instant"),
        ("last tick", run.last_tick, f"{run.count} ticks in all"),
        ("due", run.due, "may start: the tick plus its splay, or the delay of a retry"),
        ("claimed", run.created, "recorded, by a scheduler or by hand"),
        ("gate", run.started, "the function of the newest attempt starts"),
        ("end", run.finished, "it has ended"),
    )
    known = [(name, at, meaning) for name, at, meaning in steps if at is not None]
    last = None  # a tick is claimed up to a second ahead, so in the order of time
    for name, at, meaning in sorted(known, key=itemgetter(1)):
        yield Step(name, at, at - last if last else None, meaning)
        last = at
