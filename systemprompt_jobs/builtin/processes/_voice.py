"""What a function says in its worker process, on the way to its scheduler."""

from __future__ import annotations

import operator
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_EVERY_S = 0.25
"""How often progress goes over, at most. It is written down once a second."""

_LONGEST = 10_000


class CarriedVoice:
    """The `interfaces.Voice` of one attempt. `send` is never called by two threads at once.

    Of progress only the last goes over, sent by a thread that the first call starts, so that a
    function may say it as often as it likes. Notes go at once: the function may crash next.
    """

    def __init__(self, send: Callable[[object], None]) -> None:
        self._send = send
        self._progress: tuple[Any, Any, Any] | None = None
        self._lock = threading.Lock()
        self._over = False
        self._carrier: _Carrier | None = None

    def progress(self, done: float, total: float | None, message: str) -> None:
        """Keep how far the function is, to be sent soon."""
        self._progress = (done, total, message)
        if self._carrier is None and not self._over:
            self._start()
        if self._carrier is not None and not self._carrier.news.is_set():
            self._carrier.news.set()

    def output(self, text: str) -> None:
        """Write it where all goes that the function writes: so it stays in order."""
        with suppress(OSError, ValueError):  # the function may have closed it
            sys.__stderr__.write(f"{text}\n")  # type: ignore[union-attr]

    def annotate(self, values: Mapping[str, Any]) -> None:
        """Send notes."""
        if not self._over:
            with self._lock:
                self._tell("annotate", lambda: [{str(k): _plain(v) for k, v in values.items()}])

    def end(self) -> None:
        """Send the last progress; from now on nothing is sent."""
        if not self._over:
            with self._lock:
                self._tell_progress()
                self._over = True
        if self._carrier is not None:
            self._carrier.end()

    def mute(self) -> None:
        """Send nothing more: this is a process that the function has forked.

        From then on the lock is left alone: a thread that is not here may have it.
        """
        self._over = True

    def _start(self) -> None:
        with self._lock:
            if self._carrier is None and not self._over:
                self._carrier = _Carrier(self._carry)

    def _carry(self) -> None:
        with self._lock:
            self._tell_progress()

    def _tell_progress(self) -> None:
        said, self._progress = self._progress, None
        if said is not None:
            done, total, message = said
            self._tell("progress", lambda: [_number(done), _number(total), str(message)[:_LONGEST]])

    def _tell(self, what: str, arguments: Callable[[], list[object]]) -> None:
        if not self._over:
            with suppress(Exception):  # whatever str() and the like of a job's values do
                self._send([what, *arguments()])


class _Carrier:
    """A thread that calls `carry` while there are `news`, a pause after each time."""

    def __init__(self, carry: Callable[[], None]) -> None:
        self.news = threading.Event()
        self._over = threading.Event()
        self._carry = carry
        with suppress(RuntimeError):  # no more threads: the last one is sent at the end
            threading.Thread(target=self._run, name="jobs-progress", daemon=True).start()

    def end(self) -> None:
        self._over.set()
        self.news.set()

    def _run(self) -> None:
        while self.news.wait() and not self._over.is_set():
            self.news.clear()
            self._carry()
            self._over.wait(_EVERY_S)


def _number(value: Any) -> object:
    """Return a number of any library as one of Python's; the scheduler complains of others."""
    if value is None:
        return None
    try:
        return operator.index(value)
    except TypeError:
        with suppress(TypeError, ValueError):
            return float(value)
        return str(value)[:_LONGEST]


def _plain(value: Any) -> object:
    for kind in (bool, int, float):
        if isinstance(value, kind):
            return kind(value)  # without what enumerations and the like add to it
    return str(value)[:_LONGEST]
