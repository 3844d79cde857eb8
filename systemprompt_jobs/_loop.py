"""A thread that steps when it is woken or when the time it asked for has come."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import structlog

from .errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable

    from .interfaces import Clock

_FIRST_BACKOFF_S = 0.5
_MAX_BACKOFF_S = 30.0


class Loop:
    """Calls `step()` again and again on one thread; the step's result is how long to wait.

    A step that returns None waits until it is woken. When the database fails, the step is tried
    again with growing pauses, and the log says so once. Nothing ends the loop but `stop()`.
    `overslept` is told by how many seconds a pause that nobody cut short was too long.
    """

    def __init__(
        self,
        name: str,
        step: Callable[[], float | None],
        clock: Clock,
        overslept: Callable[[float], None] = lambda _: None,
    ) -> None:
        self._step = step
        self._overslept = overslept
        self._clock = clock
        self._condition = threading.Condition()
        self._woken = False
        self._stopping = False
        self._backoff = 0.0
        self._thread = threading.Thread(target=self._run, name=f"jobs-{name}", daemon=True)
        self._log = structlog.get_logger("systemprompt_jobs").bind(loop=name)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def wake(self) -> None:
        """Have the step called soon, also when it is running right now."""
        with self._condition:
            self._woken = True
            self._condition.notify()

    def stop(self) -> None:
        """End the thread after the step that may be running."""
        with self._condition:
            self._stopping = True
            self._condition.notify()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._stopping:
            self._woken = False
            self._pause(self._guarded_step())

    def _pause(self, seconds: float | None) -> None:
        deadline = None if seconds is None else self._clock.monotonic() + seconds
        with self._condition:
            while not self._stopping and (self._backoff or not self._woken):
                left = None if deadline is None else deadline - self._clock.monotonic()
                if left is not None and left <= 0:
                    self._overslept(-left)
                    return
                self._clock.wait(self._condition, left)

    def _guarded_step(self) -> float | None:
        try:
            seconds = self._step()
        except StoreError as error:
            if not self._backoff:
                self._log.error("database_unavailable", reason=str(error))
        except Exception:  # noqa: BLE001  # a dead loop would be the silent end of all ticks
            self._log.exception("step_failed")
        else:
            if self._backoff:
                self._log.info("database_recovered")
            self._backoff = 0.0
            return seconds
        self._backoff = min(self._backoff * 2 or _FIRST_BACKOFF_S, _MAX_BACKOFF_S)
        return self._backoff
