"""What operators change while schedulers run: each in one transaction, with who and why."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from ._claim import FAR
from ._rows import job_row
from ._said import clean
from ._store import control as control_rows
from ._store import jobs as job_rows
from ._store import runs as run_rows
from .errors import ScheduleError, UsageError
from .model import PauseOverview

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from sqlalchemy import Connection

    from ._observe import Observer
    from ._store import Store, StoreClock
    from ._store.control import TickRow
    from ._store.jobs import JobRow
    from .interfaces import Schedule
    from .model import Plan, Run


class Control:
    """Pauses, resumes and resets jobs, named by their ids; `observer` is told."""

    def __init__(self, store: Store, clock: StoreClock, observer: Observer) -> None:
        self._store = store
        self._clock = clock
        self._observer = observer

    def pause(
        self,
        ids: Iterable[str],
        plans: Iterable[Plan],
        until: datetime | timedelta | None,
        note: str,
        who: str,
    ) -> list[PauseOverview]:
        """Pause jobs, or change the pauses they are in; `plans` may have no row yet."""
        note = clean(note)
        with self._store.write() as connection:
            now = self._clock.read(connection)
            end = _end(until, now)
            job_rows.add_missing(connection, [job_row(plan, "") for plan in plans])
            rows = job_rows.lock(connection, ids, skip_locked=False)
            found = [PauseOverview(r.id, _since(r, now), end, note, who) for r in rows.values()]
            control_rows.set_pauses(
                connection, [(p.since, end, note, who, p.job_id) for p in found]
            )
            skipped = run_rows.skip_unstarted(connection, rows.keys(), now, "paused")
            said = f"until {end.isoformat()}: {note}" if end else note
            _audit(connection, now, who, "pause", dict.fromkeys(rows, said))
        for id_ in rows:
            self._observer.put("job_paused", job_id=id_, until=end, note=note, who=who)
        self._observe(skipped)
        return found

    def resume(self, ids: Iterable[str], note: str, who: str) -> list[str]:
        """Have pauses end now; return the jobs that were paused."""
        with self._store.write() as connection:
            now = self._clock.read(connection)
            rows = job_rows.lock(connection, ids, skip_locked=False)
            paused = [id_ for id_, row in rows.items() if row.is_paused(now)]
            control_rows.end_pauses(connection, paused, now)
            _audit(connection, now, who, "resume", dict.fromkeys(paused, clean(note)))
        for id_ in paused:
            self._observer.put("job_resumed", job_id=id_, note=note, who=who)
        return paused

    def reset_clock(
        self, ids: Iterable[str], parse: Callable[[str, str], Schedule], who: str
    ) -> dict[str, datetime]:
        """Set jobs that are ahead of the clock back to it; return how far they had come.

        The one place where `last_tick` falls. A stretch that reaches past now ends now, and the
        rows of later ticks stand for these no more: what a wrong clock has run may run again.
        Raises UsageError for a schedule that `parse` does not know; then nothing is changed.
        """
        with self._store.write() as connection:
            now = self._clock.read(connection)
            locked = job_rows.lock(connection, ids, skip_locked=False)
            marks = {id_: r.last_tick for id_, r in locked.items() if r.last_tick}
            marks = {id_: mark for id_, mark in marks.items() if mark > now}
            rows = [locked[id_] for id_ in marks]
            schedules = {row.id: _parsed(row, parse) for row in rows if row.schedule}
            skipped = run_rows.skip_unstarted(connection, marks.keys(), now, "clock", after=now)
            _take_back(connection, control_rows.ticks_after(connection, marks, now), schedules, now)
            control_rows.set_marks(connection, [_mark(row, schedules, now) for row in rows])
            said = {id_: f"it was settled up to {mark.isoformat()}" for id_, mark in marks.items()}
            _audit(connection, now, who, "reset-clock", said)
        self._observe(skipped)
        return marks

    def _observe(self, skipped: Iterable[Run]) -> None:
        for run in skipped:
            self._observer.put("tick_skipped", run=run)


def pauses(store: Store, clock: StoreClock) -> dict[str, PauseOverview]:
    """Return the pauses in force by job."""
    with store.read() as connection:
        rows = control_rows.pauses(connection, clock.read(connection))
    return {row.id: PauseOverview(*row) for row in rows}


def held(store: Store, clock: StoreClock) -> dict[str, datetime]:
    """Return the jobs that a wrong clock holds, and the time for which they wait."""
    with store.read() as connection:
        return control_rows.ahead(connection, clock.read(connection) + FAR)


def _end(until: datetime | timedelta | None, now: datetime) -> datetime | None:
    if until is None:
        return None
    if isinstance(until, datetime) and until.tzinfo is None:
        raise UsageError(f"a pause until {until}: the time has no zone")
    end = now + until if isinstance(until, timedelta) else until
    if end <= now:
        raise UsageError(f"a pause until {until} would be over already: name a time to come")
    return end


def _since(row: JobRow, now: datetime) -> datetime:
    """Return the beginning of the pause: that of the last one while it has ticks to settle."""
    unsettled = row.paused_until and row.next_tick and row.next_tick < row.paused_until
    return row.paused_at if row.paused_at and (row.is_paused(now) or unsettled) else now


def _audit(
    connection: Connection, now: datetime, who: str, action: str, notes: Mapping[str, str]
) -> None:
    control_rows.add_audits(
        connection, [(now, who, action, id_, note) for id_, note in notes.items()]
    )


def _parsed(row: JobRow, parse: Callable[[str, str], Schedule]) -> Schedule:
    try:
        return parse(row.schedule, row.timezone)
    except ScheduleError as error:
        raise UsageError(
            f"{row.id} can be reset only where its schedule is known: {error}"
        ) from None


def _take_back(
    connection: Connection,
    ticks: Sequence[TickRow],
    schedules: Mapping[str, Schedule],
    now: datetime,
) -> None:
    control_rows.disown(connection, [row.id for row in ticks if row.first > now])
    control_rows.shorten(
        connection,
        [
            (last, 1 + schedule.count(row.first, last), row.id)
            for row in ticks
            if row.first <= now and (schedule := schedules.get(row.job_id)) is not None
            for last in [max(row.first, schedule.previous(now + timedelta.resolution) or row.first)]
        ],
    )


def _mark(
    row: JobRow, schedules: Mapping[str, Schedule], now: datetime
) -> tuple[datetime, datetime | None, datetime | None, str]:
    schedule = schedules.get(row.id)
    next_tick = schedule.next(now) if schedule and row.next_tick else None
    return now, next_tick, row.paused_at and min(row.paused_at, now), row.id
