"""Pictures as plain numbers: templates draw SVG of them, so everything in it is escaped."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from . import _words

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from datetime import datetime

    from systemprompt_jobs import Run
    from systemprompt_jobs.model import AttemptOverview, Glance

HEIGHT, BAR, GAP = 100, 8, 2
_LEAST = 1.5


@dataclass(frozen=True, slots=True)
class Bar:
    """One run: where its bar stands, and what it says."""

    x: float
    height: float
    look: str
    words: str


@dataclass(frozen=True, slots=True)
class Bars:
    """A chart of runs, oldest first; `top` is what its full height stands for."""

    name: str
    bars: tuple[Bar, ...]
    width: int
    top: timedelta
    middle: timedelta


def quantiles(values: Iterable[timedelta | None]) -> tuple[timedelta | None, timedelta | None]:
    """Return p50 and p95 of those there are, by nearest rank."""
    known = sorted(value for value in values if value is not None)
    if not known:
        return None, None
    return known[(len(known) - 1) // 2], known[(len(known) * 95 + 99) // 100 - 1]


def bars(
    runs: Sequence[Glance], value: Callable[[Glance], timedelta | None], name: str
) -> Bars | None:
    """Return the chart of a value; None where no run has one."""
    found = [(run, value(run)) for run in runs]
    known = sorted(v for _, v in found if v is not None)
    if not known:
        return None
    top = max(known[-1], timedelta(milliseconds=1))
    drawn = [
        Bar(
            n * (BAR + GAP),
            max(v / top * HEIGHT, _LEAST),
            _words.look(run),
            f"{_words.took(v)}, {_words.mark(run).words}",
        )
        for n, (run, v) in enumerate((run, v) for run, v in found if v is not None)
    ]
    return Bars(name, tuple(drawn), max(30, len(drawn)) * (BAR + GAP), top, known[len(known) // 2])


@dataclass(frozen=True, slots=True)
class Stretch:
    """A part of a run's life on a line of width 100; `lane` counts the attempts from 0."""

    x: float
    width: float
    lane: int
    look: str
    words: str


def line(run: Run, attempts: Sequence[AttemptOverview]) -> tuple[Stretch, ...]:
    """Return how a run waited and each of its attempts; empty for one that never started."""
    if not attempts or run.created is None:
        return ()
    # A tick is claimed up to a second ahead: that is no waiting.
    begin = min(max(run.created, run.tick or run.created), attempts[0].started)
    end = run.finished or max(_words.now(), attempts[-1].started)
    whole = max(end - begin, timedelta(milliseconds=1))
    return tuple(
        Stretch((start - begin) / whole * 100, (stop - start) / whole * 100, lane, look, words)
        for start, stop, lane, look, words in _stretches(attempts, begin, end)
    )


def _stretches(
    attempts: Sequence[AttemptOverview], begin: datetime, end: datetime
) -> Iterator[tuple[datetime, datetime, int, str, str]]:
    before = begin
    for lane, attempt in enumerate(attempts):
        yield (
            before,
            attempt.started,
            lane,
            "waited",
            f"waited {_words.took(attempt.started - before)}",
        )
        last = lane == len(attempts) - 1
        before = attempt.finished or (end if last else attempts[lane + 1].started)
        look = str(attempt.outcome or ("running" if last else "lost"))
        took = _words.took(before - attempt.started)
        yield attempt.started, before, lane, look, f"attempt {attempt.number} {look}, {took}"
