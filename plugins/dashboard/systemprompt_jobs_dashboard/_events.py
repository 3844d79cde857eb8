"""Server-sent events: a word to open pages that something has changed; they ask again then."""

from __future__ import annotations

import asyncio
import hashlib
import threading
import time
from http import HTTPStatus
from typing import TYPE_CHECKING

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.responses import StreamingResponse

from systemprompt_jobs.errors import JobsError
from systemprompt_jobs.model import State

from . import _words
from ._guard import dashboard_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from starlette.requests import Request
    from starlette.responses import Response

    from systemprompt_jobs import Runtime

LOOK_S = 2.0
_LISTENERS = 32
_RUNS, _DIGITS = 50, 18


class Changes:
    """Whether anything has changed: asked of the database once, however many pages are open."""

    def __init__(self, runtime: Runtime, more: Callable[[], object] = lambda: None) -> None:
        self._runtime = runtime
        self._more = more
        self._lock = threading.Lock()
        self._stamp, self._at = "", float("-inf")
        self.listeners = 0

    def stamp(self, run: int | None = None) -> str:
        """Return a text that is another one after each change, and once a minute.

        With `run`, also after each of that run's words: its progress and its log.
        """
        with self._lock:
            if time.monotonic() - self._at >= LOOK_S / 2:
                self._stamp, self._at = self._look(), time.monotonic()
            stamp = self._stamp
        return stamp if run is None else f"{stamp}-{self._listen(run)}"

    def _listen(self, number: int) -> str:
        try:
            run = self._runtime.find_run(number)
            logs = [attempt.log for attempt in self._runtime.attempts(run)]
        except JobsError as error:
            return str(error)
        return _digest((run.state, run.attempt, run.progress, run.message, logs))

    def _look(self) -> str:
        try:
            runs = self._runtime.history(limit=_RUNS)
            runs += self._runtime.history(states=[State.RUNNING], limit=_RUNS)
            pauses = sorted(self._runtime.pauses().items())
            nodes = [(node.id, node.state) for node in self._runtime.nodes()]
        except JobsError as error:
            return str(error)
        seen = [(run.id, run.state, run.attempt, run.finished) for run in runs]
        minute = _words.now().strftime("%H:%M")
        return _digest((seen, pauses, nodes, minute, self._more()))


def _digest(value: object) -> str:
    return hashlib.sha256(repr(value).encode()).hexdigest()[:16]


async def events(request: Request) -> Response:
    """Stream `changed` events until the page is left; `run` is one to listen to."""
    changes = dashboard_of(request).changes
    text = request.query_params.get("run", "")
    run = int(text) if text.isdecimal() and len(text) <= _DIGITS else None
    if changes.listeners >= _LISTENERS:
        raise HTTPException(HTTPStatus.SERVICE_UNAVAILABLE, "too many open pages")
    return StreamingResponse(stream(changes, run=run), media_type="text/event-stream")


async def stream(
    changes: Changes, look_s: float = LOOK_S, run: int | None = None
) -> AsyncIterator[str]:
    """Yield an event now and after each change, and a comment between that keeps the line open."""
    changes.listeners += 1
    try:
        last = None
        while True:
            stamp = await run_in_threadpool(changes.stamp, run)
            yield f"event: changed\ndata: {stamp}\n\n" if stamp != last else ": still here\n\n"
            last = stamp
            await asyncio.sleep(look_s)
    finally:
        changes.listeners -= 1
