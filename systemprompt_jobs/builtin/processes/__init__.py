"""The executor `processes`: worker processes that can be killed."""

from __future__ import annotations

import threading
from collections import deque
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from systemprompt_jobs import hookimpl
from systemprompt_jobs.errors import text_of
from systemprompt_jobs.interfaces import Capabilities
from systemprompt_jobs.model import Report, State

from .._pools import known, seconds

if TYPE_CHECKING:
    from collections.abc import Mapping

    from systemprompt_jobs.interfaces import Attempt, Executor

    from ._worker import Worker


class Processes:
    """Warm worker processes, each driven by a thread of its own and started when first needed.

    A process is used again and again until it dies or is interrupted; then a fresh one takes its
    place. `grace` is how many seconds an interrupted one has between SIGTERM and SIGKILL.
    """

    capabilities = Capabilities(kills=True, by_name=True)

    def __init__(self, origin: Mapping[str, Any], size: int, grace: float) -> None:
        self.size = size
        self._origin, self._grace_s = origin, grace
        self._changed = threading.Condition()
        self._waiting: deque[Attempt] = deque()
        self._begun: dict[Attempt, Worker | None] = {}  # None until it has a worker
        self._interrupted: set[Attempt] = set()  # before they had one
        self._threads = self._idle = 0
        self._closed = False

    def submit(self, attempt: Attempt) -> None:
        """Call it in an idle worker, or as soon as one is."""
        with self._changed:
            self._waiting.append(attempt)
            if self._idle < len(self._waiting) and self._threads < self.size:
                self._threads += 1
                name = f"jobs-process-{self._threads}"
                threading.Thread(target=self._work, name=name, daemon=True).start()
            self._changed.notify()

    def interrupt(self, attempt: Attempt) -> None:
        """End its process: it is asked to by SIGTERM, and killed if it does not in time."""
        attempt.interrupt()
        with self._changed:
            waiting = attempt in self._waiting
            if waiting:
                self._waiting.remove(attempt)
            worker = self._begun.get(attempt)
            if worker is not None:
                worker.interrupt()
            elif attempt in self._begun:
                self._interrupted.add(attempt)
        if waiting:
            attempt.ended(_not_begun())

    def close(self) -> None:
        """End each process after what it runs now."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _work(self) -> None:
        worker: Worker | None = None
        while (attempt := self._next()) is not None:
            try:
                worker = self._ready(worker)
                report = self._call(worker, attempt)
            except Exception as error:  # noqa: BLE001  # no memory, no processes, no descriptors
                now = datetime.now(UTC)
                reason = f"no worker process could run it: {text_of(error)}"
                report = Report(State.FAILED, now, now, error=reason)
            self._forget(attempt)
            attempt.ended(report)
            if worker is not None and worker.spent:
                worker = self._replaced(worker)
        if worker is not None:
            worker.end()

    def _next(self) -> Attempt | None:
        with self._changed:
            self._idle += 1
            while not self._waiting and not self._closed:
                self._changed.wait()
            self._idle -= 1
            if not self._waiting:
                return None
            self._begun[self._waiting[0]] = None
            return self._waiting.popleft()

    def _ready(self, worker: Worker | None) -> Worker:
        from ._worker import Worker

        if worker is not None and worker.usable:
            return worker
        if worker is not None:
            worker.end()
        return Worker(self._origin, self._grace_s)

    def _replaced(self, worker: Worker) -> Worker | None:
        """Return a fresh process for the next attempt, None where that is better tried then."""
        worker.end()
        with suppress(OSError):
            return None if self._closed else self._ready(None)
        return None

    def _call(self, worker: Worker, attempt: Attempt) -> Report:
        with self._changed:
            if attempt in self._interrupted:
                return _not_begun()
            self._begun[attempt] = worker
        return worker.call(attempt)

    def _forget(self, attempt: Attempt) -> None:
        with self._changed:
            del self._begun[attempt]
            self._interrupted.discard(attempt)


def _not_begun() -> Report:
    now = datetime.now(UTC)
    return Report(State.CANCELLED, now, now, message="it was told to end before it began")


@hookimpl
def make_executor(
    kind: str, settings: Mapping[str, Any], origin: Mapping[str, Any]
) -> Executor | None:
    """Provide `processes`."""
    if kind != "processes":
        return None
    import os

    values = known(settings, size=os.cpu_count() or 1, grace="2s")
    return Processes(origin, values["size"], seconds("grace", values["grace"]))
