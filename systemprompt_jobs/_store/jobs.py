"""Statements on job rows: which plan owns a job's ticks, and the next one due."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import select

from ._bulk import insert_many, select_many, update_many
from .schema import audit, instant, job

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import Connection, Select


class JobRow(NamedTuple):
    """What the database knows of a job's ticks."""

    id: str
    schedule: str
    timezone: str
    fingerprint: str
    next_tick: datetime | None
    last_tick: datetime | None
    catch_up: str
    catchup_window: int
    paused_at: datetime | None = None
    paused_until: datetime | None = None
    note: str | None = None
    by: str | None = None
    """Who paused it; None once somebody has resumed it."""
    revision: int = 0
    """How often a scheduler has written its plan."""
    distribution: str = ""
    version: str = ""

    def is_paused(self, now: datetime) -> bool:
        """Return whether a pause is in force."""
        if self.paused_at is None:
            return False
        return self.paused_until is None or self.paused_until > now


_COLUMNS = (
    "id",
    "schedule",
    "timezone",
    "fingerprint",
    "next_tick",
    "last_tick",
    "catch_up",
    "catchup_window",
    "paused_at",
    "paused_until",
    "note",
    "by",
    "revision",
    "distribution",
    "version",
)


def lock(connection: Connection, ids: Iterable[str], *, skip_locked: bool) -> dict[str, JobRow]:
    """Read the rows of these jobs, locked until the transaction ends.

    Rows that another transaction has locked are waited for, in one order for all, unless
    `skip_locked`.
    """
    how = "FOR UPDATE SKIP LOCKED" if skip_locked else "FOR UPDATE"
    return {row[0]: _to_row(row) for row in select_many(connection, job, _COLUMNS, "id", ids, how)}


def _to_row(row: tuple[Any, ...]) -> JobRow:
    id_, schedule, zone, fingerprint, next_, last, catch_up, window, since, until, *rest = row
    ticks, pause = (instant(next_), instant(last)), (instant(since), instant(until))
    return JobRow(id_, schedule, zone, fingerprint, *ticks, catch_up, window, *pause, *rest)


def all_rows(connection: Connection) -> dict[str, JobRow]:
    """Read every job's row."""
    return {row.id: JobRow(*row) for row in connection.execute(_select())}


def one_row(connection: Connection, job_id: str) -> JobRow | None:
    """Read a job's row; None where no scheduler has taken the job on yet."""
    row = connection.execute(_select().where(job.c.id == job_id)).one_or_none()
    return None if row is None else JobRow(*row)


def _select() -> Select[tuple[Any, ...]]:
    return select(*(job.c[name] for name in _COLUMNS))


def add_missing(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert job rows, leaving those that exist alone."""
    if rows:
        names = tuple(rows[0])
        insert_many(connection, job, names, [tuple(row.values()) for row in rows])


def install(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the plan and the next tick of existing rows."""
    if rows:
        names = tuple(name for name in rows[0] if name != "id")
        values = [(*(row[name] for name in names), row["id"]) for row in rows]
        update_many(connection, job, ("id",), names, values)


def advance(connection: Connection, rows: Sequence[tuple[datetime | None, datetime, str]]) -> None:
    """Move jobs on: their next tick, the last one that is settled, and their ids."""
    update_many(connection, job, ("id",), ("next_tick", "last_tick"), rows)


def add_audit(
    connection: Connection, at: datetime, who: str, action: str, subject: str, note: str = ""
) -> None:
    """Record who did what, and why."""
    values = {"at": at, "who": who, "action": action, "subject": subject, "note": note}
    connection.execute(audit.insert().values(values))
