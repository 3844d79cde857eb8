"""Ticks of the past that shall run after all: which they are, and what they leave of `missed` rows.

A tick is made up where it lies at or before the job's newest settled one, within the retention,
and no row covers it but a `missed` one. That row is split, so that each tick stays in one row.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ._retry import freeze
from ._rows import run_values
from ._store import backfills
from ._store import jobs as job_rows
from ._store import runs as run_rows
from ._store.backfills import Piece
from ._store.schema import EPOCH, MICROSECOND, micros
from .errors import UsageError
from .model import Backfill, Overlap, State, Trigger

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime, timedelta

    from sqlalchemy import Connection

    from ._store import Store, StoreClock
    from ._store.backfills import Cover
    from ._store.jobs import JobRow
    from .interfaces import Schedule
    from .model import Plan


@dataclass(frozen=True, slots=True)
class Wanted:
    """What somebody asks for. `ids` are the job's own and its former ones."""

    plan: Plan
    ids: Sequence[str]
    start: datetime
    end: datetime
    limit: int

    def __post_init__(self) -> None:
        if self.start.tzinfo is None or self.end.tzinfo is None or self.end < self.start:
            raise UsageError(
                f"from {self.start} to {self.end}: name two times in order, with zones"
            )
        _ = self.schedule

    @property
    def schedule(self) -> Schedule:
        """The job's schedule; raises UsageError where it has none."""
        if self.plan.schedule is None:
            raise UsageError(f"{self.plan.id} has no schedule, so no tick was missed; see `run`")
        return self.plan.schedule


@dataclass(slots=True)
class Choice:
    """The ticks to run, oldest first, and by id the rows in which they are `missed`.

    `more`: the limit left some out. `strange` are ticks of `missed` rows that another schedule
    has counted: which they were, nobody knows.
    """

    ticks: list[datetime] = field(default_factory=list)
    missed: dict[int, list[datetime]] = field(default_factory=dict)
    more: bool = False
    strange: int = 0


def choose(
    schedule: Schedule, start: datetime, end: datetime, covers: Iterable[Cover], limit: int
) -> Choice:
    """Choose the ticks from `start` to `end`, at most `limit`. Pure.

    `covers` are the rows that reach into this time, by their first tick.
    """
    found, rows = Choice(), list(covers)
    usable = {row.id for row in rows if row.state == State.MISSED and _fits(schedule, row)}
    rows.reverse()
    tick = schedule.next(start - MICROSECOND)
    while tick is not None and tick <= end:
        while rows and rows[-1].last < tick:
            rows.pop()
        row = rows[-1] if rows and rows[-1].first <= tick else None
        if row is not None and row.id not in usable:
            found.strange += row.number if row.state == State.MISSED else 0
            tick = schedule.next(row.last)
            continue
        if len(found.ticks) == limit:
            found.more = True
            break
        found.ticks.append(tick)
        if row is not None:
            found.missed.setdefault(row.id, []).append(tick)
        tick = schedule.next(tick)
    return found


def _fits(schedule: Schedule, row: Cover) -> bool:
    """Return whether the row covers ticks of this very schedule, as far as one can tell."""
    return (
        schedule.next(row.first - MICROSECOND) == row.first
        and schedule.previous(row.last + MICROSECOND) == row.last
        and 1 + schedule.count(row.first, row.last) == row.number
    )


def remains(schedule: Schedule, row: Cover, ticks: Sequence[datetime]) -> list[Piece]:
    """Return what is left of a row without these ticks, which follow each other."""
    before, after = schedule.previous(ticks[0]), schedule.next(ticks[-1])
    return [
        Piece(first, last, 1 + schedule.count(first, last))
        for first, last in ((row.first, before), (after, row.last))
        if first is not None and last is not None and first <= last
    ]


def preview(store: Store, clock: StoreClock, wanted: Wanted, retention: timedelta) -> Backfill:
    """Return what a backfill would run now. Raises UsageError."""
    with store.read() as connection:
        row = job_rows.one_row(connection, wanted.plan.id)
        start, end = _window(row, wanted, clock.read(connection), retention)
        covers = backfills.covers(connection, wanted.ids, start, end)
    choice = choose(wanted.schedule, start, end, covers, wanted.limit)
    return Backfill(wanted.plan.id, start, end, tuple(choice.ticks), choice.more, choice.strange)


def backfill(
    store: Store, clock: StoreClock, wanted: Wanted, retention: timedelta, who: str
) -> Backfill:
    """Hand the ticks to whichever schedulers have the job, all or none. Raises UsageError.

    The job's row is locked: neither a claim nor another backfill comes in between.
    """
    plan, schedule = wanted.plan, wanted.schedule
    with store.write() as connection:
        row = job_rows.lock(connection, [plan.id], skip_locked=False).get(plan.id)
        now = clock.read(connection)
        start, end = _window(row, wanted, now, retention)
        covers = backfills.covers(connection, wanted.ids, start, end)
        choice = choose(schedule, start, end, covers, wanted.limit)
        split = backfills.lock(connection, [c for c in covers if c.id in choice.missed])
        pieces = {row.id: remains(schedule, row, choice.missed[row.id]) for row in split}
        backfills.split(connection, pieces, now)
        runs = run_rows.add(connection, [_values(plan, tick, now) for tick in choice.ticks])
        _audit(connection, now, who, plan, choice.ticks)
    ticks = tuple(choice.ticks)
    return Backfill(plan.id, start, end, ticks, choice.more, choice.strange, tuple(runs))


def _window(
    row: JobRow | None, wanted: Wanted, now: datetime, retention: timedelta
) -> tuple[datetime, datetime]:
    """Return from when to when ticks can be made up."""
    plan, schedule = wanted.plan, wanted.schedule
    if row is None or row.last_tick is None:
        raise UsageError(f"no tick of {plan.id} has been due yet: there is nothing to make up")
    if (row.schedule, row.timezone) != (schedule.text, plan.timezone):
        raise UsageError(
            f"the schedulers follow another plan of {plan.id}, {row.schedule!r} in {row.timezone}: "
            "have them follow this one first, by `reload` or a restart"
        )
    if row.is_paused(now):
        raise UsageError(f"{plan.id} is paused, and its ticks would be skipped: `resume` it first")
    start = max(wanted.start, now - min(retention, now - EPOCH))
    return start, min(wanted.end, row.last_tick, now)


def _values(plan: Plan, tick: datetime, now: datetime) -> Mapping[str, Any]:
    """Return the row of a tick that runs late: it gives way to none, and waits for its turn."""
    waits = plan.overlap is not Overlap.ALLOW
    return run_values(plan, f"t:{micros(tick)}", Trigger.SCHEDULE, now) | {
        "state": State.PENDING,
        "reason": "overlap" if waits else "",
        "tick_at": tick,
        "policy": {**(freeze(plan) or {}), "waits": True},
    }


def _audit(
    connection: Connection, now: datetime, who: str, plan: Plan, ticks: Sequence[datetime]
) -> None:
    if ticks:
        note = f"{len(ticks)} ticks from {ticks[0].isoformat()} to {ticks[-1].isoformat()}"
        job_rows.add_audit(connection, now, who, "backfill", plan.id, note)
