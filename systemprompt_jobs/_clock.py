"""The real clocks."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .interfaces import Clock

_HEED_S = 1.0
"""How long the main thread waits at once: it hears no signal that came as it began, or elsewhere."""

_STEP = timedelta(milliseconds=50)
"""Less of a change is drift: no wait is as long as to make more of that."""


class SystemClock:
    """The clocks of this machine."""

    def now(self) -> datetime:
        """Return the wall clock, aware UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return seconds since the machine booted."""
        return time.monotonic()

    def wait(self, condition: threading.Condition, seconds: float | None) -> None:
        """Wait on the held condition."""
        if seconds is None and threading.current_thread() is threading.main_thread():
            seconds = _HEED_S
        condition.wait(seconds)


class Steps:
    """Notices that a wall clock was stepped, or that the machine slept."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lead = self._measured()

    def noticed(self) -> bool:
        """Return whether it was since this was asked last."""
        before, self._lead = self._lead, self._measured()
        return abs(self._lead - before) > _STEP

    def _measured(self) -> datetime:
        return self._clock.now() - timedelta(seconds=self._clock.monotonic())


def boot_id() -> str:
    """Return what tells one boot of this machine from another: monotonic clocks restart there."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:  # no Linux: the boot time to the minute, as the wall clock has it
        return f"{(time.time() - time.monotonic()) // 60:.0f}"
