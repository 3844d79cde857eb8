"""Read-only questions that commands and pages ask."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import func, select

from .runs import columns, to_run
from .schema import attempt, job, job_set, run

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy import Connection

    from ..model import Run


def next_ticks(connection: Connection) -> dict[str, datetime | None]:
    """Return the next tick of every job in the database."""
    return {row.id: row.next_tick for row in connection.execute(select(job.c.id, job.c.next_tick))}


def last_runs(connection: Connection) -> dict[str, Run]:
    """Return the newest run of every job that has one. Uses the index `jobs_run_history`."""
    newest = (
        select(func.max(run.c.id)).where(run.c.job_id == job.c.id).correlate(job).scalar_subquery()
    )
    rows = connection.execute(
        select(*columns()).join(job, run.c.id == newest).where(run.c.job_id == job.c.id)
    )
    return {found.job_id: found for found in map(to_run, rows)}


def history(
    connection: Connection,
    job_ids: Sequence[str] | None = None,
    states: Sequence[str] | None = None,
    limit: int = 20,
) -> list[Run]:
    """Return the newest runs, newest first."""
    statement = select(*columns()).order_by(run.c.id.desc()).limit(limit)
    if job_ids is not None:
        statement = statement.where(run.c.job_id.in_(job_ids))
    if states is not None:
        statement = statement.where(run.c.state.in_(states))
    return [to_run(row) for row in connection.execute(statement)]


def find_run(connection: Connection, run_id: int) -> Run | None:
    """Return a run, None if there is none with this id."""
    row = connection.execute(select(*columns()).where(run.c.id == run_id)).one_or_none()
    return None if row is None else to_run(row)


def sets_with(connection: Connection, job_id: str) -> set[str]:
    """Return the hashes of the plugin sets that have a job."""
    found = connection.execute(select(job_set.c.hash).where(job_set.c.job_id == job_id))
    return set(found.scalars())


def traceback_of(connection: Connection, run_id: int) -> str:
    """Return the traceback of the run's last attempt, empty if there is none."""
    found = connection.execute(
        select(attempt.c.traceback)
        .where(attempt.c.run_id == run_id)
        .order_by(attempt.c.fence.desc())
        .limit(1)
    ).scalar()
    return found or ""


def counts_since(connection: Connection, since: datetime) -> dict[str, int]:
    """Return how many ticks and runs recorded at or after `since` are in each state."""
    rows = connection.execute(
        select(run.c.state, func.sum(run.c.count))
        .where(run.c.created >= since)
        .group_by(run.c.state)
    )
    return {row[0]: int(row[1]) for row in rows}
