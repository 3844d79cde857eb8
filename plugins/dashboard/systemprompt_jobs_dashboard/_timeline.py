"""The last and the next 24 hours of many jobs, in cells of a quarter of an hour."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby, islice
from operator import itemgetter
from typing import TYPE_CHECKING

from . import _words

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from systemprompt_jobs import Run
    from systemprompt_jobs.interfaces import Schedule
    from systemprompt_jobs.model import JobOverview

ROWS, RUNS = 30, 5000
CELL = timedelta(minutes=15)
HALF = 96
LEFT, WIDTH, ROW, TOP = 200, 5, 18, 70
"""Pixels: the names, a cell, a row, and the picture of all jobs above them."""
_HIGHEST = 44
_WALKED, _HERD, _HERDS = 300, 5, 12
_WORST = ("failed", "lost", "cancelled", "missed", "skipped", "retried", "running", "succeeded")


@dataclass(frozen=True, slots=True)
class Cell:
    """Quarters of an hour of a job that look the same, and what they say."""

    x: int
    width: int
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
    """A quarter of an hour of all jobs: jobs that ran or will."""

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
    """Return the picture of `shown`; its head counts the jobs of all that were `found`."""
    middle = _floor(now)
    past = _past(runs, middle)
    coming = {job.plan.id: dict(_coming(job, middle)) for job in found}
    cells = [tuple(_cells(past.get(job.plan.id, {}), coming[job.plan.id], middle)) for job in shown]
    lines = tuple(Line(job.plan.id, TOP + n * ROW, cells[n]) for n, job in enumerate(shown))
    begun = Counter(n for id_ in coming.keys() & past.keys() for n in past[id_])
    due = Counter(n for cells in coming.values() for n in cells)
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


def _coming(job: JobOverview, middle: datetime) -> Iterator[tuple[int, int]]:
    """Yield the cells in which a job is due and how often, counted and not walked."""
    schedule, tick = _in_force(job), job.next_tick
    end = middle + HALF * CELL
    while schedule is not None and tick is not None and tick < end:
        n = (tick - middle) // CELL
        edge = middle + (n + 1) * CELL - timedelta.resolution
        yield HALF + n, 1 + schedule.count(tick, edge)
        tick = schedule.next(edge)


def _in_force(job: JobOverview) -> Schedule | None:
    return None if job.superseded else job.plan.schedule


def _cells(past: dict[int, list[Run]], coming: dict[int, int], middle: datetime) -> Iterator[Cell]:
    """Yield neighbours that look the same as one."""
    drawn = {n: _worst(runs) for n, runs in past.items()}
    drawn |= {n: "coming" for n in coming if n not in past}
    for look, group in groupby(_neighbours(sorted(drawn.items())), key=itemgetter(0, 1)):
        cells = [n for _, _, n in group]
        first, last = cells[0], cells[-1]
        begin, end = (middle + (n - HALF) * CELL for n in (first, last + 1))
        if look[1] == "coming":
            counted = f"due x{sum(coming[n] for n in cells)}"
        else:
            looks = Counter(_words.look(run) for n in cells for run in past[n])
            counted = ", ".join(f"{k} {name}" for name, k in looks.items())
        words = f"{begin:%H:%M} to {end:%H:%M}: {counted}"
        yield Cell(LEFT + first * WIDTH, len(cells) * WIDTH - 1, look[1], words)


def _neighbours(drawn: Iterable[tuple[int, str]]) -> Iterator[tuple[int, str, int]]:
    """Yield cells with a number that changes where one does not follow the one before."""
    for place, (n, look) in enumerate(drawn):
        yield n - place, look, n


def _worst(runs: Iterable[Run]) -> str:
    looks = (_words.look(run) for run in runs)
    return min(looks, key=lambda look: _WORST.index(look) if look in _WORST else len(_WORST))


def _columns(begun: Counter[int], due: Counter[int]) -> Iterator[Column]:
    most = max([*begun.values(), *due.values()], default=1)
    for counter, coming in ((begun, False), (due, True)):
        for n, times in sorted(counter.items()):
            if coming and n in begun:
                continue
            height = max(times / most * _HIGHEST, 1.5)
            yield Column(LEFT + n * WIDTH, height, f"{times} jobs", coming)


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
    tick, schedule = job.next_tick, _in_force(job)
    while schedule is not None and tick is not None and tick < end:
        yield tick
        tick = schedule.next(tick)
