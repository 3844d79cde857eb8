"""A thread that steps when it is woken or when the time it asked for has come."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import TYPE_CHECKING

import structlog

from .errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._observe import Observer
    from .interfaces import Clock

_FIRST_BACKOFF_S = 0.5
_MAX_BACKOFF_S = 30.0


class Outage:
    """Whether the database answers, as all loops of a process see it: it is observed once."""

    def __init__(self, observer: Observer, clock: Clock) -> None:
        self._observer = observer
        self._clock = clock
        self._lock = threading.Lock()
        self._troubled: set[str] = set()
        self._since = 0.0
        self.reason = ""
        """What was said last while it lasts, else empty."""

    def begins(self, loop: str, reason: str) -> None:
        """Note that a loop cannot use the database."""
        with self._lock:
            first = not self._troubled
            self._troubled.add(loop)
            self.reason = reason
            if first:
                self._since = self._clock.monotonic()
                self._observer.put("database_unavailable", reason=reason)

    def ends(self, loop: str) -> None:
        """Note that a loop can use it again; the outage is over when all can."""
        if loop not in self._troubled:  # nobody else puts it there
            return
        with self._lock:
            self._troubled.remove(loop)
            if not self._troubled:
                self.reason = ""
                after = timedelta(seconds=self._clock.monotonic() - self._since)
                self._observer.put("database_recovered", after=after)


class Loop:
    """Calls `step()` again and again on one thread; the step's result is how long to wait.

    A step that returns None waits until it is woken. When the database fails, the step is tried
    again with growing pauses of at most `backoff_s`, and `outage` is told. Nothing ends the loop
    but `stop()`. `overslept` is told by how many seconds a pause that nobody cut short was too
    long.
    """

    def __init__(
        self,
        name: str,
        step: Callable[[], float | None],
        clock: Clock,
        outage: Outage,
        overslept: Callable[[float], None] = lambda _: None,
        backoff_s: float = _MAX_BACKOFF_S,
    ) -> None:
        self.name = name
        self._step = step
        self._outage = outage
        self._overslept = overslept
        self._longest = min(backoff_s, _MAX_BACKOFF_S)
        self._clock = clock
        self._condition = threading.Condition()
        self._woken = False
        self._stopping = False
        self._backoff = 0.0
        self._began: float | None = None
        self._thread = threading.Thread(target=self._run, name=f"jobs-{name}", daemon=True)
        self._log = structlog.get_logger("systemprompt_jobs").bind(loop=name)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def wake(self) -> None:
        """Have the step called soon, also when it is running right now."""
        if self._woken:  # and the step that this is for has not begun
            return
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

    def stuck_for(self) -> float:
        """Return for how many seconds the step that may be running has been at it."""
        began = self._began
        return 0.0 if began is None else self._clock.monotonic() - began

    def _run(self) -> None:
        while not self._stopping:
            self._woken = False
            self._began = self._clock.monotonic()
            seconds = self._guarded_step()
            self._began = None
            self._pause(seconds)

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
            self._outage.begins(self.name, str(error))
        except Exception:  # noqa: BLE001  # a dead loop would be the silent end of all ticks
            self._log.exception("step_failed")
        else:
            self._outage.ends(self.name)
            self._backoff = 0.0
            return seconds
        self._backoff = min(self._backoff * 2 or _FIRST_BACKOFF_S, self._longest)
        return self._backoff
