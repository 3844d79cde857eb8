"""The last and the next 24 hours of many jobs, in cells of a quarter of an hour."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING

from . import _words

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from systemprompt_jobs import Run
    from systemprompt_jobs.model import JobOverview

ROWS, RUNS = 60, 5000
CELL = timedelta(minutes=15)
HALF = 96
LEFT, WIDTH, ROW, TOP = 200, 5, 18, 70
"""Pixels: the names, a cell, a row, and the picture of all jobs above them."""
_HIGHEST = 44
_WALKED, _HERD, _HERDS = 300, 5, 12
_WORST = ("failed", "lost", "cancelled", "missed", "skipped", "retried", "running", "succeeded")


@dataclass(frozen=True, slots=True)
class Cell:
    """A quarter of an hour of a job: how it looks and what it says."""

    x: int
    look: str
    words: str


@dataclass(frozen=True, slots=True)
class Line:
    """A job's cells."""

    id: str
    y: int
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class Column:
    """A quarter of an hour of all jobs: ticks that ran or come."""

    x: int
    height: float
    words: str
    coming: bool


@dataclass(frozen=True, slots=True)
class Picture:
    """Everything to draw, in pixels."""

    lines: tuple[Line, ...]
    columns: tuple[Column, ...]
    hours: tuple[tuple[int, str], ...]
    width: int
    height: int
    now: int


@dataclass(frozen=True, slots=True)
class Herd:
    """Jobs that are due at the same second."""

    at: datetime
    ids: tuple[str, ...]


def picture(
    shown: Sequence[JobOverview], found: Sequence[JobOverview], runs: Iterable[Run], now: datetime
) -> Picture:
    """Return the picture of `shown`; its head counts the ticks of all that were `found`."""
    middle = _floor(now)
    past = _past(runs, middle)
    coming = {job.plan.id: dict(_coming(job, now, middle)) for job in found}
    lines = tuple(
        Line(job.plan.id, TOP + n * ROW, tuple(_cells(past.get(job.plan.id, {}), coming[job.plan.id])))
        for n, job in enumerate(shown)
    )  # fmt: skip
    ids = coming.keys()
    begun = Counter[int]()
    for id_ in ids & past.keys():
        begun.update({n: len(same) for n, same in past[id_].items()})
    due = Counter[int]()
    for cells in coming.values():
        due.update(cells)
    return Picture(
        lines,
        tuple(_columns(begun, due)),
        tuple(_hours(middle)),
        LEFT + 2 * HALF * WIDTH + 10,
        TOP + len(shown) * ROW + 10,
        LEFT + int(HALF * WIDTH + (now - middle) / CELL * WIDTH),
    )


def _floor(now: datetime) -> datetime:
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    return epoch + (now - epoch) // CELL * CELL


def _past(runs: Iterable[Run], middle: datetime) -> dict[str, dict[int, list[Run]]]:
    found: dict[str, dict[int, list[Run]]] = {}
    for run in runs:
        at = run.last_tick or run.tick or run.started or run.created
        n = HALF + (at - middle) // CELL if at else -1
        if 0 <= n < 2 * HALF:
            found.setdefault(run.job_id, {}).setdefault(n, []).append(run)
    return found


def _coming(job: JobOverview, now: datetime, middle: datetime) -> Iterator[tuple[int, int]]:
    """Yield the cells in which a job is due and how often, counted and not walked."""
    schedule, tick = job.plan.schedule, job.next_tick
    end = middle + HALF * CELL
    while schedule is not None and tick is not None and tick < end:
        n = (tick - middle) // CELL
        edge = middle + (n + 1) * CELL - timedelta.resolution
        yield HALF + n, 1 + schedule.count(tick, edge)
        tick = schedule.next(edge)


def _cells(past: dict[int, list[Run]], coming: dict[int, int]) -> Iterator[Cell]:
    for n, runs in sorted(past.items()):
        looks = [_words.look(run) for run in runs]
        worst = min(looks, key=lambda x: _WORST.index(x) if x in _WORST else len(_WORST))
        counted = ", ".join(f"{k} {look}" for look, k in Counter(looks).items())
        yield Cell(LEFT + n * WIDTH, worst, f"{_words.instant(runs[0].tick)}: {counted}")
    for n, times in coming.items():
        if n not in past:
            yield Cell(
                LEFT + n * WIDTH, "coming", f"due {times} times" if times > 1 else "due once"
            )


def _columns(begun: Counter[int], due: Counter[int]) -> Iterator[Column]:
    most = max([*begun.values(), *due.values()], default=1)
    for counter, coming in ((begun, False), (due, True)):
        for n, times in sorted(counter.items()):
            if coming and n in begun:
                continue
            height = max(times / most * _HIGHEST, 1.5)
            yield Column(LEFT + n * WIDTH, height, f"{times} ticks", coming)


def _hours(middle: datetime) -> Iterator[tuple[int, str]]:
    for n in range(2 * HALF + 1):
        at = middle + (n - HALF) * CELL
        if at.minute == 0 and at.hour % 3 == 0:
            yield LEFT + n * WIDTH, f"{at:%H:%M}"


def herds(found: Iterable[JobOverview], now: datetime) -> list[Herd]:
    """Return the instants of the next 24 hours when many jobs are due at once, largest first.

    Only the first few hundred ticks of each job are looked at.
    """
    at: dict[datetime, list[str]] = {}
    for job in found:
        for tick in islice(_walk(job, now + timedelta(hours=24)), _WALKED):
            at.setdefault(tick, []).append(job.plan.id)
    large = [Herd(tick, tuple(ids)) for tick, ids in at.items() if len(ids) >= _HERD]
    return sorted(large, key=lambda herd: (-len(herd.ids), herd.at))[:_HERDS]


def _walk(job: JobOverview, end: datetime) -> Iterator[datetime]:
    tick, schedule = job.next_tick, job.plan.schedule
    while schedule is not None and tick is not None and tick < end:
        yield tick
        tick = schedule.next(tick)
