"""What one attempt says while it runs: how far it is, what it logs, what plugins note.

Collected where the node is; in a child process another `interfaces.Voice` carries it there.
"""

from __future__ import annotations

import math
import operator
import os
import threading
from collections import deque
from contextvars import ContextVar
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import structlog

from .model import Progress
from .secrets import masked_text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from .interfaces import Voice
    from .model import Report, Run

speaking: ContextVar[Voice | None] = ContextVar("systemprompt_jobs_speaking", default=None)
"""Whose attempt the running code belongs to."""

LOG_CHARACTERS = 65_536
"""How much of what an attempt logs is kept, from its end."""

_LINE_CHARACTERS = 8_192
_MESSAGE_CHARACTERS = 500
_NOTES = 20
_LARGEST = 2**53  # beyond it JSON and Python disagree


class Said:
    """Collects what one attempt says. Any thread may call; nothing waits but for a line.

    `heard` is called each time that something was added. A process that the function forks says
    nothing: nobody reads it there, and a lock may have been held when it was forked.
    """

    def __init__(self, run: Run, heard: Callable[[], None] = lambda: None) -> None:
        self._run = run
        self._heard = heard
        self._process = os.getpid()
        self._progress: tuple[Any, Any, Any] | None = None
        self._known: tuple[tuple[Any, Any, Any] | None, Progress | None] = (None, None)
        self._notes: dict[str, Any] = {}
        self._lines: deque[str] = deque()
        self._size = 0
        self._cut = 0
        self._lock = threading.Lock()
        self._unread = False

    def progress(self, done: float, total: float | None, message: str) -> None:
        """Keep how far the function is; it is looked at when it is written down."""
        if os.getpid() == self._process:
            self._progress = (done, total, message)
            self._heard()

    def output(self, text: str) -> None:
        """Keep these lines, and no more of the older ones than there is room for."""
        if os.getpid() != self._process:
            return
        with self._lock:
            for line in text.split("\n"):
                kept = _clipped(line, _LINE_CHARACTERS)
                self._lines.append(kept)
                self._size += len(kept) + 1
            while self._size > LOG_CHARACTERS:
                self._size -= len(self._lines.popleft()) + 1
                self._cut += 1
            self._unread = True
        self._heard()

    def annotate(self, values: Mapping[str, Any]) -> None:
        """Keep these notes over older ones of the same names; those beyond twenty are ignored."""
        if os.getpid() != self._process:
            return
        for name, value in values.items():
            if name in self._notes or len(self._notes) < _NOTES:
                self._notes[clean(name)] = _plain(value)
        self._unread = True
        self._heard()

    # --- what the node reads ---

    def new_progress(self, now: datetime) -> Progress | None:
        """Return what was said last, None if it was returned before or is nothing."""
        said = self._progress
        if said is self._known[0]:
            return None
        progress = self._checked(said, now) if said else None
        self._known = (said, progress)
        return progress

    def _checked(self, said: tuple[Any, Any, Any], now: datetime) -> Progress | None:
        done, total, message = said
        try:
            limit = None if total is None else _number(total)
            return Progress(_number(done), limit, _clipped(str(message), _MESSAGE_CHARACTERS), now)
        except Exception as error:  # noqa: BLE001  # whatever str() and the like of a job's values do
            structlog.get_logger("systemprompt_jobs").warning(
                "progress_ignored",
                job=self._run.job_id,
                run=self._run.id,
                reason=f"ctx.progress(done, total) takes numbers: {error}",
            )
            return None

    def new_words(self) -> tuple[str, Mapping[str, Any]] | None:
        """Return the log and the notes, None if nothing was added since they were returned."""
        if not self._unread:
            return None
        self._unread = False
        with self._lock:
            return self._log(), dict(self._notes)

    def _log(self) -> str:
        lines = [f"({self._cut} lines before these are not kept)"] if self._cut else []
        return "\n".join([*lines, *self._lines])

    def onto(self, report: Report) -> Report:
        """Return the report together with all that was said."""
        self.new_progress(report.finished)
        if not (self._lines or self._notes or self._known[1]):
            return report
        with self._lock:
            return replace(
                report, progress=self._known[1], log=self._log(), annotations=dict(self._notes)
            )


def split_log(log: str) -> tuple[int, str]:
    """Return how many lines of a kept log were cut, and the others."""
    first, _, rest = log.partition("\n")
    words = first.split()
    if words[1:] == ["lines", "before", "these", "are", "not", "kept)"]:
        return int(words[0].lstrip("(")), rest
    return 0, log


def clean(text: str) -> str:
    """Replace what databases refuse in a text: NUL and lone surrogates."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode("utf-8")


def _clipped(text: str, limit: int) -> str:
    if len(text) <= limit:
        return masked_text(clean(text))
    return masked_text(clean(text[:limit])) + f" … (cut, {len(text):,} characters in all)"


def _number(value: Any) -> float:
    """Return a number that every database can keep. Raises for anything else."""
    try:
        number: float = operator.index(value)  # other libraries' integers too
    except TypeError:
        number = float(value)
    if not math.isfinite(number) or abs(number) > _LARGEST:
        raise ValueError(f"{value!r} is out of range")
    return number


def _plain(value: Any) -> Any:
    if isinstance(value, bool | int):
        return value if abs(value) <= _LARGEST else str(value)
    if isinstance(value, float) and math.isfinite(value):
        return value
    return _clipped(str(value), _MESSAGE_CHARACTERS)
