"""Read-only questions that commands and pages ask."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, case, func, or_, select

from ..model import RETRYING, State
from .runs import columns, to_run
from .schema import Instant, attempt, audit, job, job_set, run

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from sqlalchemy import ColumnElement, Connection

    from ..model import Run


_RETRYING = and_(
    run.c.state.in_((State.PENDING, State.CLAIMED, State.DISPATCHED)), run.c.attempt > 0
)


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
    wanted: Wanted | None = None,
) -> list[Run]:
    """Return the newest runs, newest first."""
    statement = select(*columns()).order_by(run.c.id.desc()).limit(limit)
    if job_ids is not None:
        statement = statement.where(run.c.job_id.in_(job_ids))
    if states is not None:
        shown = run.c.state.in_(states)
        statement = statement.where(or_(shown, _RETRYING) if RETRYING in states else shown)
    if wanted is not None:
        statement = statement.where(*_conditions(wanted))
    return [to_run(row) for row in connection.execute(statement)]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which runs: those that overlap a time, of a node, that say a text, older than a run."""

    since: datetime | None = None
    until: datetime | None = None
    node: str | None = None
    text: str | None = None
    before: int | None = None


def _conditions(wanted: Wanted) -> Iterator[ColumnElement[bool]]:
    first = func.coalesce(run.c.tick_at, run.c.created, type_=Instant)
    last = func.coalesce(
        run.c.last_tick, run.c.finished, run.c.tick_at, run.c.created, type_=Instant
    )
    if wanted.since is not None:
        yield or_(last >= wanted.since, run.c.state == State.RUNNING)
    if wanted.until is not None:
        yield first < wanted.until
    if wanted.node is not None:
        yield run.c.node.startswith(wanted.node, autoescape=True)
    if wanted.text is not None:
        text = wanted.text.lower()
        said = (run.c.error, run.c.message)
        yield or_(*(func.lower(column).contains(text, autoescape=True) for column in said))
    if wanted.before is not None:
        yield run.c.id < wanted.before


def audit_rows(connection: Connection, before: int | None, limit: int) -> list[Any]:
    """Return audit rows, newest first."""
    statement = select(audit).order_by(audit.c.id.desc()).limit(limit)
    if before is not None:
        statement = statement.where(audit.c.id < before)
    return list(connection.execute(statement))


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
    status = case((_RETRYING, RETRYING), else_=run.c.state)
    rows = connection.execute(
        select(status, func.sum(run.c.count)).where(run.c.created >= since).group_by(status)
    )
    return {row[0]: int(row[1]) for row in rows}
