"""What TERM and INT do: the first asks to stop, the second leaves at once."""

from __future__ import annotations

import os
import queue
import signal
from typing import TYPE_CHECKING, Any

from ._failures import INTERRUPTED

if TYPE_CHECKING:
    from collections.abc import Callable

STOPPING = (signal.SIGTERM, signal.SIGINT)


def catch_signals() -> queue.SimpleQueue[int]:
    """Return the queue that the first signal comes out of.

    A SimpleQueue, because its put() may interrupt its own get(); that of an Event may not.
    HUP comes out of it too, as often as it is sent.
    """
    signals: queue.SimpleQueue[int] = queue.SimpleQueue()
    signal.signal(signal.SIGHUP, lambda number, _frame: signals.put(number))

    def stop(number: int, _frame: Any) -> None:
        next_leaves_at_once()
        signals.put(number)

    _handle(stop)
    return signals


def next_leaves_at_once() -> None:
    """Have the next signal end the process, whatever still runs."""
    _handle(lambda _number, _frame: os._exit(INTERRUPTED))


def _handle(handler: Callable[[int, Any], None]) -> None:
    for number in STOPPING:
        signal.signal(number, handler)
