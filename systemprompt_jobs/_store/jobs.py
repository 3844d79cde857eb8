"""Statements on job rows: which plan owns a job's ticks, and the next one due."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, update

from ._bulk import insert_many, select_many, update_many
from .schema import audit, instant, job, job_set

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
    "id",
    "schedule",
    "timezone",
    "fingerprint",
    "next_tick",
    "last_tick",
    "catch_up",
    "catchup_window",
)


def lock(connection: Connection, ids: Iterable[str], *, skip_locked: bool) -> dict[str, JobRow]:
    """Read the rows of these jobs, locked until the transaction ends.

    Rows that another transaction has locked are waited for, in one order for all, unless
    `skip_locked`.
    """
    how = "FOR UPDATE SKIP LOCKED" if skip_locked else "FOR UPDATE"
    return {
        id_: JobRow(id_, schedule, zone, fingerprint, instant(next_), instant(last), *policy)
        for id_, schedule, zone, fingerprint, next_, last, *policy in select_many(
            connection, job, _COLUMNS, "id", ids, how
        )
    }


def add_missing(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert job rows, leaving those that exist alone."""
    if rows:
        names = tuple(rows[0])
        insert_many(connection, job, names, [tuple(row.values()) for row in rows])


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
        values = [(row["new_next"], row["new_last"], row["key"]) for row in rows]
        update_many(connection, job, ("id",), ("next_tick", "last_tick"), values)


def add_job_set(connection: Connection, digest: str, ids: Sequence[str]) -> None:
    """Remember which jobs a plugin set has; written once per set."""
    insert_many(connection, job_set, ("hash", "job_id"), [(digest, id_) for id_ in ids])


def add_audit(
    connection: Connection, at: datetime, who: str, action: str, subject: str, note: str = ""
) -> None:
    """Record who did what, and why."""
    values = {"at": at, "who": who, "action": action, "subject": subject, "note": note}
    connection.execute(audit.insert().values(values))
