"""Statements on job rows: which plan owns a job's ticks, and the next one due."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, select, update

from ._dialect import chunks, insert
from .schema import audit, job, job_set

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import Connection


@dataclass(frozen=True, slots=True)
class JobRow:
    """What the database knows of a job's ticks."""

    id: str
    schedule: str
    timezone: str
    fingerprint: str
    next_tick: datetime | None
    last_tick: datetime | None
    catch_up: str
    catchup_window: int


_COLUMNS = (
    job.c.id,
    job.c.schedule,
    job.c.timezone,
    job.c.fingerprint,
    job.c.next_tick,
    job.c.last_tick,
    job.c.catch_up,
    job.c.catchup_window,
)


def lock(connection: Connection, ids: Iterable[str]) -> dict[str, JobRow]:
    """Read the rows of these jobs, locked until the transaction ends."""
    return {
        row.id: JobRow(*row)
        for some in chunks(ids)
        for row in connection.execute(
            select(*_COLUMNS).where(job.c.id.in_(some)).with_for_update(skip_locked=True)
        )
    }


def add_missing(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert job rows, leaving those that exist alone."""
    if rows:
        connection.execute(insert(connection, job).on_conflict_do_nothing(), rows)


def install(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the plan and the next tick of existing rows."""
    if rows:
        connection.execute(
            update(job)
            .where(job.c.id == bindparam("key"))
            .values({name: bindparam(f"new_{name}") for name in rows[0] if name != "id"})
            .values(revision=job.c.revision + 1),
            [
                {"key" if name == "id" else f"new_{name}": value for name, value in row.items()}
                for row in rows
            ],
        )


def advance(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Move jobs on to their next tick. Keys: `key`, `new_next`, `new_last`."""
    if rows:
        connection.execute(
            update(job)
            .where(job.c.id == bindparam("key"))
            .values(next_tick=bindparam("new_next"), last_tick=bindparam("new_last")),
            rows,
        )


def add_job_set(connection: Connection, digest: str, ids: Sequence[str]) -> None:
    """Remember which jobs a plugin set has; written once per set."""
    if ids:
        connection.execute(
            insert(connection, job_set).on_conflict_do_nothing(),
            [{"hash": digest, "job_id": id_} for id_ in ids],
        )


def add_audit(connection: Connection, at: datetime, who: str, action: str, subject: str) -> None:
    """Record who did what."""
    connection.execute(audit.insert().values(at=at, who=who, action=action, subject=subject))
