"""Pictures as plain numbers: templates draw SVG of them, so everything in it is escaped."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from . import _words

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from systemprompt_jobs import Run

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


def took(run: Run) -> timedelta | None:
    """Return how long the function ran."""
    return run.duration


def late(run: Run) -> timedelta | None:
    """Return how long after it was due a tick's function started."""
    if run.due is None or run.started is None or run.tick is None:
        return None
    return max(run.started - run.due, timedelta(0))


def bars(runs: Sequence[Run], value: Callable[[Run], timedelta | None], name: str) -> Bars | None:
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
    """A part of a run's life on a line of width 100."""

    x: float
    width: float
    look: str
    words: str


def line(run: Run) -> tuple[Stretch, ...]:
    """Return due → gate → end as parts of one line; empty for a run that never started."""
    start, gate = run.due or run.created, run.started
    if start is None or gate is None:
        return ()
    end = run.finished or _words.now()
    begin = min(start, gate)
    whole = max(end - begin, timedelta(milliseconds=1))
    waited = (gate - begin) / whole * 100
    return (
        Stretch(0, waited, "waited", f"waited {_words.took(gate - begin)}"),
        Stretch(waited, 100 - waited, _words.look(run), f"ran {_words.took(end - gate)}"),
    )
