"""The real clocks."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import threading


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
        condition.wait(seconds)


def boot_id() -> str:
    """Return what tells one boot of this machine from another: monotonic clocks restart there."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:  # no Linux: the boot time to the minute, as the wall clock has it
        return f"{(time.time() - time.monotonic()) // 60:.0f}"
