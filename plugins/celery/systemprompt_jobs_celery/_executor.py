"""The executor `celery`: sends runs to a broker, from one thread."""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING

import structlog

from systemprompt_jobs.errors import text_of
from systemprompt_jobs.interfaces import Capabilities
from systemprompt_jobs.secrets import masked

if TYPE_CHECKING:
    from datetime import timedelta

    from systemprompt_jobs.interfaces import Attempt

    from ._line import Line
    from ._sender import Sender

_BATCH = 500
_TRY_AGAIN_S = 1.0
"""How often to look whether a broker that was gone is back."""

_LAST_S = 5.0
"""How long a stop waits until all is sent."""

_log = structlog.get_logger("systemprompt_jobs")


class CeleryExecutor:
    """Sends what it is given in batches, each confirmed by the broker.

    While the broker cannot be reached `problem` says so, and what was submitted is given back.
    """

    def __init__(self, line: Line) -> None:
        kills = line.executor["kind"] == "processes"
        self.capabilities = Capabilities(kills=kills, remote=True, by_name=True)
        self.size = line.window
        self.problem = ""
        self._line = line
        self._attempts: queue.SimpleQueue[Attempt | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._sender: Sender | None = None

    @property
    def deadline(self) -> timedelta:
        """How long a run may wait for a worker before it is sent again."""
        return self._line.deadline

    def submit(self, attempt: Attempt) -> None:
        """Send it soon."""
        self._attempts.put(attempt)
        with self._lock:
            if self._thread is None:
                name = f"jobs-celery-{self._line.queue}"
                self._thread = threading.Thread(target=self._work, name=name, daemon=True)
                self._thread.start()

    def interrupt(self, attempt: Attempt) -> None:
        """Do nothing: what runs is interrupted by its worker."""

    def close(self) -> None:
        """Accept no more; return when all is sent or given back, at most some seconds later."""
        self._attempts.put(None)
        if self._thread is not None:
            self._thread.join(_LAST_S)

    def _work(self) -> None:
        going = True
        while going:
            batch, going = self._next()
            try:
                self._send(batch)
            except Exception as error:  # noqa: BLE001  # whatever a transport raises
                self._give_up(batch, error)
        if self._sender is not None:
            self._sender.close()

    def _next(self) -> tuple[list[Attempt], bool]:
        """Return what has come in, and whether there may be more; nothing where it is time."""
        batch: list[Attempt] = []
        try:
            found = self._attempts.get(timeout=_TRY_AGAIN_S if self.problem else None)
            while found is not None:
                batch.append(found)
                if len(batch) == _BATCH:
                    return batch, True
                found = self._attempts.get_nowait()
        except queue.Empty:
            return batch, True
        return batch, False

    def _send(self, batch: list[Attempt]) -> None:
        """Send a batch; once more if the connection turns out to be broken. Twice does no harm."""
        runs = [(attempt.run.id, attempt.run.fence) for attempt in batch]
        known = self._sender is not None
        try:
            self._connected().send(runs)
        except Exception:
            self._forget()
            if not known:
                raise
            self._connected().send(runs)
        if self.problem:
            _log.info("broker_recovered", broker=self._line.shown, queue=self._line.queue)
        self.problem = ""

    def _connected(self) -> Sender:
        from ._sender import Sender

        if self._sender is None:
            self._sender = Sender(self._line)
        return self._sender

    def _forget(self) -> None:
        if self._sender is not None:
            self._sender.close()
        self._sender = None

    def _give_up(self, batch: list[Attempt], error: Exception) -> None:
        self._forget()
        reason = f"the broker {self._line.shown} cannot be used: {masked(text_of(error))}"
        if not self.problem:
            _log.error("broker_unavailable", reason=reason, queue=self._line.queue)
        self.problem = reason
        for attempt in batch:
            attempt.refused(reason)
