"""Figures that take long: counted in a thread of their own, and shown as they were until then."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Generic, TypeVar

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
PATIENCE_S = 0.04
"""How long a page waits for a figure that there is not yet: small projects have it by then."""


class Later(Generic[T]):
    """A figure that is counted again when it is asked for and older than `fresh_s`."""

    def __init__(self, count: Callable[[], T], fresh_s: float) -> None:
        self._count = count
        self._fresh_s = fresh_s
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._value: T | None = None
        self._at = float("-inf")
        self._counting = False

    @property
    def known(self) -> bool:
        """Whether it has been counted once."""
        return self._done.is_set()

    def get(self) -> T | None:
        """Return the newest figure; None while the first one is being counted."""
        with self._lock:
            if not self._counting and time.monotonic() - self._at >= self._fresh_s:
                self._counting = True
                threading.Thread(target=self._work, name="dashboard-count", daemon=True).start()
        self._done.wait(PATIENCE_S)
        return self._value

    def _work(self) -> None:
        try:
            self._value = self._count()
            self._done.set()
        except Exception as error:  # noqa: BLE001  # pages go on without it
            log = structlog.get_logger("systemprompt_jobs")
            log.warning("dashboard_count_failed", reason=str(error))
        finally:
            self._at = time.monotonic()
            self._counting = False
