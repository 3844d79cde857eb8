"""The pages of everything in time, of the schedulers, and of who did what."""

from __future__ import annotations

import time
from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING

from systemprompt_jobs.model import State

from . import _timeline, _words
from ._catalogue import Chosen
from ._guard import dashboard_of

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from systemprompt_jobs import Run

_CHANGES, _ENTRIES, _HELD = 50, 100, 1000
_UNENDED = (State.PENDING, State.CLAIMED, State.RUNNING)


def timeline(request: Request) -> Response:
    """Return the page of the last and the next 24 hours."""
    dashboard, chosen, now = dashboard_of(request), Chosen.by(request), _words.now()
    page = dashboard.catalogue.page(chosen, _timeline.ROWS)
    ahead = dashboard.ahead.get()
    return dashboard.render(
        request,
        "timeline.html",
        picture=_timeline.picture(dashboard.runtime, page.ids, ahead, now),
        ahead=ahead,
        chosen=chosen,
        page=page,
        jobs=len(dashboard.catalogue.plans()),
    )


def nodes(request: Request) -> Response:
    """Return the page of the schedulers and of what is wrong."""
    dashboard = dashboard_of(request)
    runtime = dashboard.runtime
    begin = time.perf_counter()
    pauses = runtime.pauses()
    asked = timedelta(seconds=time.perf_counter() - begin)
    unended = runtime.history(states=_UNENDED, limit=_HELD)
    changes = runtime.changes() if "changes" in request.query_params else None
    return dashboard.render(
        request,
        "nodes.html",
        nodes=runtime.nodes(),
        health=runtime.health(),
        revisions=runtime.revisions(),
        database=runtime.database,
        project=str(runtime.project.root),
        degraded=runtime.degraded,
        held=runtime.held(),
        paused=len(pauses),
        busy=Counter(run.node for run in unended if run.state is State.RUNNING),
        leases=sum(run.state is not State.PENDING for run in unended),
        lag=_lag(unended),
        changes=None if changes is None else changes[:_CHANGES],
        more=len(changes or ()) - _CHANGES,
        asked=asked,
    )


def _lag(unended: list[Run]) -> timedelta | None:
    """Return for how long the run has been waiting that may start for longest."""
    now = _words.now()
    waiting = [run.due for run in unended if run.due and run.state is not State.RUNNING]
    return now - min(waiting) if waiting and min(waiting) <= now else None


def audit(request: Request) -> Response:
    """Return the page of who did what."""
    dashboard = dashboard_of(request)
    return dashboard.render(request, "audit.html", entries=dashboard.runtime.audit(limit=_ENTRIES))
