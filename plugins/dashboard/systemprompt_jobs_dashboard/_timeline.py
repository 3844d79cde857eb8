"""The last and the next 24 hours of many jobs, in cells of a quarter of an hour."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import chain, groupby, islice
from operator import itemgetter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from systemprompt_jobs import Runtime
    from systemprompt_jobs.interfaces import Schedule
    from systemprompt_jobs.model import JobOverview

    Ends = Mapping[str, int]

ROWS = 24
CELL = timedelta(minutes=15)
HALF = 96
LEFT, WIDTH, ROW, TOP = 6, 5, 18, 70
"""Pixels: the margin, a cell, a row, and the picture of all jobs above them."""
_HIGHEST = 44
_DAY = HALF * CELL
_WALKED, _HERD, _HERDS, _NAMED = 300, 5, 12, 6
_BREATH_S = 0.0005
_WORST = (
    *("failed", "timed_out", "lost", "cancelled", "missed", "skipped", "retried"),
    *("running", "succeeded"),
)


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
    """How many jobs are due at the same second, and the first of them."""

    at: datetime
    number: int
    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Ahead:
    """All jobs together: those at work and those due by cells from `middle` on, and the herds."""

    middle: datetime
    begun: Mapping[int, int]
    due: Mapping[int, int]
    herds: tuple[Herd, ...]


def ahead(runtime: Runtime, now: datetime) -> Ahead:
    """Count what all jobs did and will do. Takes seconds for thousands of different schedules."""
    middle = _floor(now)
    begun = runtime.begun(since=middle - _DAY, width=CELL)
    due = Counter[int]()
    at: dict[datetime, list[list[str]]] = {}
    for schedule, ids in _by_schedule(runtime):
        for n in _due_cells(schedule, schedule.next(now), middle):
            due[n] += len(ids)
        for tick in islice(_walk(schedule, now, middle + _DAY), _WALKED):
            at.setdefault(tick, []).append(ids)
        time.sleep(_BREATH_S)  # pages go first
    return Ahead(middle, begun, due, tuple(_herds(at)))


def _by_schedule(runtime: Runtime) -> list[tuple[Schedule, list[str]]]:
    """Return each schedule with the jobs that follow it; paused ones do not."""
    paused = {id_ for id_, pause in runtime.pauses().items() if pause.until is None}
    found: dict[tuple[str, str], tuple[Schedule, list[str]]] = {}
    for plan in runtime.plans:
        schedule = plan.schedule
        if schedule is None or not plan.enabled or plan.problem or plan.id in paused:
            continue
        key = schedule.text, schedule.timezone or plan.timezone
        found.setdefault(key, (schedule, []))[1].append(plan.id)
    return list(found.values())


def _herds(at: Mapping[datetime, list[list[str]]]) -> list[Herd]:
    """Return when many jobs are due at once, largest first; of equal herds the first."""
    first: dict[tuple[int, frozenset[str]], datetime] = {}
    for tick, groups in sorted(at.items(), key=itemgetter(0)):
        number = sum(map(len, groups))
        if number >= _HERD:  # a job is in one group only, so its first tells a group
            first.setdefault((-number, frozenset(ids[0] for ids in groups)), tick)
    large = sorted((number, tick) for (number, _), tick in first.items())
    return [
        Herd(tick, -number, tuple(sorted(chain(*at[tick]))[:_NAMED]))
        for number, tick in large[:_HERDS]
    ]


def _walk(schedule: Schedule, now: datetime, end: datetime) -> Iterator[datetime]:
    tick = schedule.next(now)
    while tick is not None and tick < end:
        yield tick
        tick = schedule.next(tick)


def picture(runtime: Runtime, ids: Sequence[str], whole: Ahead | None, now: datetime) -> Picture:
    """Return the picture of these jobs; its head counts all jobs, once that is known."""
    middle = _floor(now)
    past = runtime.activity(*ids, since=middle - _DAY, width=CELL) if ids else {}
    shown = runtime.jobs(*ids) if ids else []
    lines = [
        Line(job.plan.id, TOP + n * ROW, tuple(_cells(past.get(job.plan.id, {}), job, middle)))
        for n, job in enumerate(shown)
    ]
    return Picture(
        tuple(lines),
        tuple(_columns(whole, middle)) if whole else (),
        tuple(_hours(middle)),
        LEFT + 2 * HALF * WIDTH + 30,
        TOP + len(shown) * ROW + 10,
        LEFT + int(HALF * WIDTH + (now - middle) / CELL * WIDTH),
    )


def _floor(now: datetime) -> datetime:
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    return epoch + (now - epoch) // CELL * CELL


def _due_cells(schedule: Schedule, tick: datetime | None, middle: datetime) -> Iterator[int]:
    """Yield the cells in which a schedule has ticks, from one tick on."""
    while tick is not None and tick < middle + _DAY:
        n = (tick - middle) // CELL
        yield HALF + n
        tick = schedule.next(middle + (n + 1) * CELL - timedelta.resolution)


def _cells(past: Mapping[int, Ends], job: JobOverview, middle: datetime) -> Iterator[Cell]:
    """Yield neighbours that look the same as one."""
    schedule = None if job.superseded else job.plan.schedule
    coming = [] if schedule is None else _due_cells(schedule, job.next_tick, middle)
    drawn = {n: _worst(ends) for n, ends in past.items() if n < 2 * HALF}
    drawn |= {n: "coming" for n in coming if n not in past}
    for (_, look), group in groupby(_neighbours(sorted(drawn.items())), key=itemgetter(0, 1)):
        cells = [n for _, _, n in group]
        first, last = cells[0], cells[-1]
        begin, end = (middle + (n - HALF) * CELL for n in (first, last + 1))
        ends = sum((Counter(past.get(n, {})) for n in cells), Counter[str]())
        counted = ", ".join(f"{number} {name}" for name, number in ends.items()) or "due"
        words = f"{begin:%H:%M} to {end:%H:%M}: {counted}"
        yield Cell(LEFT + first * WIDTH, len(cells) * WIDTH - 1, look, words)


def _neighbours(drawn: Iterable[tuple[int, str]]) -> Iterator[tuple[int, str, int]]:
    """Yield cells with a number that changes where one does not follow the one before."""
    for place, (n, look) in enumerate(drawn):
        yield n - place, look, n


def _worst(ends: Iterable[str]) -> str:
    return min(ends, key=lambda look: _WORST.index(look) if look in _WORST else len(_WORST))


def _columns(whole: Ahead, middle: datetime) -> Iterator[Column]:
    """Yield the head; it may have been counted a cell ago."""
    shift = (middle - whole.middle) // CELL
    most = max([*whole.begun.values(), *whole.due.values()], default=1)
    for cells, coming in ((whole.begun, False), (whole.due, True)):
        for n, jobs in sorted(cells.items()):
            if n - shift < 0 or (coming and n in whole.begun):
                continue
            height = max(jobs / most * _HIGHEST, 1.5)
            yield Column(LEFT + (n - shift) * WIDTH, height, f"{jobs} jobs", coming)


def _hours(middle: datetime) -> Iterator[tuple[int, str]]:
    for n in range(2 * HALF + 1):
        at = middle + (n - HALF) * CELL
        if at.minute == 0 and at.hour % 3 == 0:
            yield LEFT + n * WIDTH, f"{at:%H:%M}"
