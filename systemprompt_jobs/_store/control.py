"""Statements on what operators change: pauses, and jobs that saw a wrong clock."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import func, or_, select

from ..model import Trigger
from ._bulk import chunks, insert_many, update_many
from .schema import audit, job, run

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from sqlalchemy import Connection

NOTICED = ("pause", "resume", "reset-clock")
"""The actions that schedulers look out for."""

RELOAD = "reload"
"""The action that has every scheduler read its configuration again."""


def set_pauses(
    connection: Connection,
    rows: Sequence[tuple[datetime, datetime | None, str, str, str]],
) -> None:
    """Pause jobs. A row is (since, until, note, who, job id)."""
    columns = ("paused_at", "paused_until", "note", "by")
    update_many(connection, job, ("id",), columns, rows)


def end_pauses(connection: Connection, ids: Iterable[str], now: datetime) -> None:
    """Have the pauses of these jobs end now; their owner settles what they have covered."""
    columns = ("paused_until", "note", "by")
    update_many(connection, job, ("id",), columns, [(now, None, None, id_) for id_ in ids])


def forget_pauses(connection: Connection, ids: Iterable[str]) -> None:
    """Forget the pauses of these jobs: all their ticks are settled."""
    columns = ("paused_at", "paused_until", "note", "by")
    update_many(connection, job, ("id",), columns, [(None, None, None, None, id_) for id_ in ids])


class PauseRow(NamedTuple):
    """A pause that is in force."""

    id: str
    since: datetime
    until: datetime | None
    note: str
    who: str


def pauses(connection: Connection, now: datetime) -> list[PauseRow]:
    """Return the pauses in force, in the order of the jobs' ids."""
    rows = connection.execute(
        select(job.c.id, job.c.paused_at, job.c.paused_until, job.c.note, job.c.by)
        .where(
            job.c.paused_at.is_not(None),
            or_(job.c.paused_until.is_(None), job.c.paused_until > now),
        )
        .order_by(job.c.id)
    )
    return [
        PauseRow(id_, since, until, note or "", who or "") for id_, since, until, note, who in rows
    ]


def ahead(connection: Connection, limit: datetime) -> dict[str, datetime]:
    """Return the jobs whose newest settled tick is after `limit`, and that tick."""
    rows = connection.execute(
        select(job.c.id, job.c.last_tick).where(job.c.last_tick > limit).order_by(job.c.id)
    )
    return {row.id: row.last_tick for row in rows}


class TickRow(NamedTuple):
    """A run of a tick, or a stretch of ticks."""

    id: int
    job_id: str
    first: datetime
    last: datetime | None


def ticks_after(connection: Connection, ids: Iterable[str], now: datetime) -> list[TickRow]:
    """Return the rows of these jobs that reach past `now`. Uses the index `jobs_run_history`."""
    wanted = sorted(ids)
    return [
        TickRow(*row)
        for some in chunks(wanted)
        for row in connection.execute(
            select(run.c.id, run.c.job_id, run.c.tick_at, run.c.last_tick).where(
                run.c.job_id.in_(some),
                run.c.trigger != Trigger.MANUAL,
                or_(run.c.tick_at > now, run.c.last_tick > now),
            )
        )
    ]


def shorten(connection: Connection, rows: Sequence[tuple[datetime, int, int]]) -> None:
    """Have stretches end earlier. A row is (last tick, count, run id)."""
    update_many(connection, run, ("id",), ("last_tick", "count"), rows)


def disown(connection: Connection, ids: Iterable[int]) -> None:
    """Have these runs stand for no tick any more, so that the tick can come again."""
    update_many(connection, run, ("id",), ("dedup_key",), [(f"x:{id_}", id_) for id_ in ids])


def set_marks(
    connection: Connection,
    rows: Sequence[tuple[datetime, datetime | None, datetime | None, str]],
) -> None:
    """Set marks back. A row is (last tick, next tick, paused since, job id)."""
    update_many(connection, job, ("id",), ("last_tick", "next_tick", "paused_at"), rows)


def add_audits(connection: Connection, rows: Sequence[tuple[datetime, str, str, str, str]]) -> None:
    """Record who did what. A row is (when, who, action, subject, note)."""
    insert_many(connection, audit, ("at", "who", "action", "subject", "note"), rows)


def newest_audit(connection: Connection) -> int:
    """Return the id of the newest audit row, 0 for none."""
    return connection.execute(select(func.max(audit.c.id))).scalar() or 0


def changed_after(connection: Connection, audit_id: int) -> tuple[int, set[str], bool]:
    """Return the newest id after this one, which jobs were changed, and whether to reload."""
    rows = connection.execute(
        select(audit.c.id, audit.c.action, audit.c.subject)
        .where(audit.c.id > audit_id)
        .order_by(audit.c.id)
    ).all()
    newest = rows[-1].id if rows else audit_id
    jobs = {row.subject for row in rows if row.action in NOTICED}
    return newest, jobs, any(row.action == RELOAD for row in rows)
