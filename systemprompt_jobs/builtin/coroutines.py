"""The executor `asyncio`: one event loop on one thread."""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog

from systemprompt_jobs import hookimpl
from systemprompt_jobs.interfaces import Capabilities

from ._pools import known

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Mapping

    from systemprompt_jobs.interfaces import Attempt, Executor

STALL_S = 1.0
"""A function that keeps the loop from turning for longer is named in the log."""


class Coroutines:
    """Tasks of one event loop, which is started when first needed.

    Its thread is a daemon, so that a function which blocks the loop for ever cannot keep the
    process from ending. What a function has forked ends where the function does. All but `submit`,
    `interrupt` and `close` happens on that thread.
    """

    capabilities = Capabilities(asynchronous=True)

    def __init__(self, size: int, stall_s: float = STALL_S) -> None:
        self.size = size
        self._stall_s = stall_s
        self._start = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._turn, name="jobs-asyncio", daemon=True)
        self._waiting: deque[Attempt] = deque()
        self._tasks: dict[Attempt, asyncio.Task[None]] = {}
        self._interrupted: set[Attempt] = set()
        self._busy = threading.Event()
        self._closed: asyncio.Event
        self._closing = False
        self._pid = os.getpid()

    # --- any thread ---

    def submit(self, attempt: Attempt) -> None:
        """Have it begin in the loop as soon as fewer than `size` others run."""
        self._do(self._take, attempt)

    def interrupt(self, attempt: Attempt) -> None:
        """Cancel its task: the function gets a CancelledError where it awaits something."""
        attempt.interrupt()
        self._do(self._cancel, attempt)

    def close(self) -> None:
        """End the loop when nothing runs in it any more."""
        with self._start:
            started = self._loop is not None
        if started:
            self._do(self._close)

    def _do(self, action: Any, *arguments: Any) -> None:
        import asyncio

        with self._start:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._closed = asyncio.Event()
                self._thread.start()
                threading.Thread(target=self._watch, name="jobs-stalls", daemon=True).start()
        with suppress(RuntimeError):  # it is closed
            self._loop.call_soon_threadsafe(action, *arguments)

    # --- the loop's thread ---

    def _turn(self) -> None:
        import asyncio

        assert self._loop is not None  # noqa: S101  # made before the thread
        loop = self._loop
        try:
            with asyncio.Runner(loop_factory=lambda: loop) as runner:
                runner.run(self._until_closed())
        finally:
            self._busy.set()  # its watcher ends too

    async def _until_closed(self) -> None:
        await self._closed.wait()

    def _take(self, attempt: Attempt) -> None:
        self._waiting.append(attempt)
        self._fill()

    def _fill(self) -> None:
        """Begin what there is room for; what was interrupted does not count any more."""
        assert self._loop is not None  # noqa: S101
        while self._waiting and len(self._tasks.keys() - self._interrupted) < self.size:
            attempt = self._waiting.popleft()
            task = self._loop.create_task(self._call(attempt))
            self._tasks[attempt] = task
            task.add_done_callback(partial(self._ended, attempt))
            self._busy.set()
            if attempt in self._interrupted:
                self._loop.call_soon(task.cancel)  # after its first step, which makes the report

    async def _call(self, attempt: Attempt) -> None:
        report = await attempt.call_async()
        if os.getpid() != self._pid:  # the function has forked, and this is its child
            os._exit(0)
        attempt.ended(report)

    def _ended(self, attempt: Attempt, _: asyncio.Task[None]) -> None:
        del self._tasks[attempt]
        self._interrupted.discard(attempt)
        self._fill()
        if not self._tasks:
            self._busy.clear()
            if self._closing:
                self._closed.set()

    def _close(self) -> None:
        self._closing = True
        if not self._tasks:
            self._closed.set()

    def _cancel(self, attempt: Attempt) -> None:
        if attempt in self._tasks:
            self._interrupted.add(attempt)
            self._tasks[attempt].cancel()
            self._fill()
        elif attempt in self._waiting:
            self._interrupted.add(attempt)

    # --- the thread that watches the loop ---

    def _watch(self) -> None:
        """Name what keeps the loop from turning, once per stall."""
        turned, stopped = threading.Event(), self._thread
        while stopped.is_alive():
            self._busy.wait()
            turned.clear()
            try:
                self._loop.call_soon_threadsafe(turned.set)  # type: ignore[union-attr]
            except RuntimeError:  # the loop has been closed
                return
            if turned.wait(self._stall_s * 3 / 4):
                stopped.join(self._stall_s / 4)
            else:
                self._say_who()
                while stopped.is_alive() and not turned.wait(self._stall_s):
                    pass

    def _say_who(self) -> None:
        import asyncio

        attempts = [*self._tasks.items()]
        if not attempts:  # it ends, or its last one just did: there is nobody to name
            return
        task = asyncio.current_task(self._loop)
        running = [attempt.run.job_id for attempt, own in attempts if own is task]
        frame = sys._current_frames().get(self._thread.ident or 0)  # noqa: SLF001
        structlog.get_logger("systemprompt_jobs").warning(
            "loop_blocked",
            job=", ".join(running or sorted({attempt.run.job_id for attempt, _ in attempts})),
            at=f"{frame.f_code.co_filename}:{frame.f_lineno}" if frame else "",
            remedy="await in it, or run it in another executor",
        )


@hookimpl
def make_executor(kind: str, settings: Mapping[str, Any]) -> Executor | None:
    """Provide `asyncio`."""
    return Coroutines(**known(settings, size=100)) if kind == "asyncio" else None
