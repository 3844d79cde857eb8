"""The executor `threads`: a bounded pool of worker threads."""

from __future__ import annotations

import queue
import threading
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
    """

    capabilities = Capabilities()

    def __init__(self, size: int) -> None:
        self.size = size
        self._queue: queue.SimpleQueue[Attempt | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._idle = threading.Semaphore(0)

    def submit(self, attempt: Attempt) -> None:
        """Call it on an idle worker, or as soon as one is."""
        self._queue.put(attempt)
        if not self._idle.acquire(blocking=False) and len(self._threads) < self.size:
            thread = threading.Thread(
                target=self._work, name=f"jobs-worker-{len(self._threads) + 1}", daemon=True
            )
            self._threads.append(thread)
            thread.start()

    def interrupt(self, attempt: Attempt) -> None:
        """Tell the function: a thread cannot be stopped."""
        attempt.interrupt()

    def close(self) -> None:
        """End each worker after what it runs now."""
        for _ in self._threads:
            self._queue.put(None)

    def _work(self) -> None:
        while (attempt := self._queue.get()) is not None:
            attempt.ended(attempt.call())
            self._idle.release()


@hookimpl
def make_executor(kind: str, settings: Mapping[str, Any]) -> Executor | None:
    """Provide `threads`."""
    return Threads(**known(settings, size=10)) if kind == "threads" else None
