"""Exports spans soon after they ended, in processes that may be killed at any time."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Flusher:
    """Calls `flush` on a thread of its own, so that an exporter that hangs delays nobody.

    The SDK would export every five seconds and at the end of the process. A worker process is
    killed when its scheduler has ended, and what waited then would be lost.
    """

    def __init__(self, flush: Callable[[], None]) -> None:
        self._flush = flush
        self._news = threading.Event()
        self._thread: threading.Thread | None = None

    def soon(self) -> None:
        """Have it called, once for all that asked while it was at work."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="jobs-spans", daemon=True)
            self._thread.start()
        self._news.set()

    def _work(self) -> None:
        while self._news.wait():
            self._news.clear()
            with suppress(Exception):  # the SDK has logged it
                self._flush()
