"""The executor `threads`: a bounded pool of worker threads."""

from __future__ import annotations

import os
import queue
import threading
from itertools import count
from typing import TYPE_CHECKING, Any

from systemprompt_jobs import hookimpl
from systemprompt_jobs.interfaces import Capabilities

from ._pools import known

if TYPE_CHECKING:
    from collections.abc import Mapping

    from systemprompt_jobs.interfaces import Attempt, Executor


class Threads:
    """Daemon threads fed by one queue; each is started when first needed.

    They are daemons so that a function which never returns cannot keep the process from ending.
    One whose attempt is interrupted is written off: another takes its place, and it ends with
    that attempt. What a function has forked ends where the function does.
    """

    capabilities = Capabilities()

    def __init__(self, size: int) -> None:
        self.size = size
        self._queue: queue.SimpleQueue[Attempt | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._workers = 0
        self._given = 0  # attempts in the queue and at a worker
        self._running: set[Attempt] = set()
        self._numbers = count(1)
        self._pid = os.getpid()

    def submit(self, attempt: Attempt) -> None:
        """Call it on an idle worker, or as soon as one is."""
        with self._lock:
            self._queue.put(attempt)
            self._given += 1
            self._hire()

    def _hire(self) -> None:
        if self._workers < min(self._given, self.size):
            name = f"jobs-worker-{next(self._numbers)}"
            threading.Thread(target=self._work, name=name, daemon=True).start()
            self._workers += 1  # not before: the system may refuse a thread

    def interrupt(self, attempt: Attempt) -> None:
        """Tell the function, and count on its thread no more: it cannot be stopped."""
        attempt.interrupt()
        with self._lock:
            if attempt in self._running:  # else it waits in the queue, or has just ended
                self._running.remove(attempt)
                self._workers -= 1
                self._given -= 1
                self._hire()

    def close(self) -> None:
        """End each worker after what it runs now."""
        with self._lock:
            for _ in range(self._workers):
                self._queue.put(None)

    def _work(self) -> None:
        while (attempt := self._queue.get()) is not None:
            with self._lock:
                self._running.add(attempt)
            report = attempt.call()
            if os.getpid() != self._pid:  # the function has forked, and this is its child
                os._exit(0)
            attempt.ended(report)
            with self._lock:
                if attempt not in self._running:
                    return
                self._running.remove(attempt)
                self._given -= 1


@hookimpl
def make_executor(kind: str, settings: Mapping[str, Any]) -> Executor | None:
    """Provide `threads`."""
    return Threads(**known(settings, size=10)) if kind == "threads" else None
