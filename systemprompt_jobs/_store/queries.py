"""Read-only questions that commands and pages ask."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, case, func, or_, select, union

from ..model import RETRYING, State
from .pruning import first_young_run
from .runs import PENDING, columns, to_run
from .schema import HELD, TROUBLED, Instant, attempt, audit, job, job_set, run
from .statistics import newest_from

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from sqlalchemy import ColumnElement, Connection

    from ..model import Run


_RETRYING = and_(run.c.state.in_((State.PENDING, State.CLAIMED)), run.c.attempt > 0)
_OPEN = {State.PENDING, State.CLAIMED, State.RUNNING, RETRYING}
_TROUBLED = {State.FAILED, "timed_out", State.LOST, State.MISSED, State.SKIPPED, State.CANCELLED}


def job_ids(connection: Connection) -> set[str]:
    """Return every job in the database."""
    return set(connection.execute(select(job.c.id)).scalars())


def last_runs(connection: Connection) -> dict[str, Run]:
    """Return the newest run of every job that has one. Uses the index `jobs_run_history`."""
    newest = newest_from(1)
    rows = connection.execute(select(*columns()).join(newest, run.c.id == newest.c.first))
    return {found.job_id: found for found in map(to_run, rows)}


def last_in(connection: Connection, states: Sequence[str]) -> set[str]:
    """Return the jobs whose newest run is in one of these states. Uses `jobs_run_history`."""
    newest = select(newest_from(1)).cte("newest").prefix_with("MATERIALIZED")
    own = select(run.c.job_id).join(newest, run.c.id == newest.c.first)
    return set(connection.execute(own.where(run.c.state.in_(states))).scalars())


def history(
    connection: Connection,
    job_ids: Sequence[str] | None = None,
    states: Sequence[str] | None = None,
    limit: int = 20,
    wanted: Wanted | None = None,
) -> list[Run]:
    """Return the newest runs, newest first.

    Those of open or troubled states are few: their partial indexes are used.
    """
    statement = select(*columns()).order_by(run.c.id.desc()).limit(limit)
    if job_ids is not None:
        statement = statement.where(run.c.job_id.in_(job_ids))
    if states is not None:
        if _OPEN.issuperset(states):
            open_ = union(select(run.c.id).where(HELD), select(run.c.id).where(PENDING))
            statement = statement.where(run.c.id.in_(open_))
        elif _TROUBLED.issuperset(states):
            statement = statement.where(TROUBLED)
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
    """Return how many ticks and runs recorded at or after `since` are in each state.

    Uses the primary key.
    """
    status = case((_RETRYING, RETRYING), else_=run.c.state)
    rows = connection.execute(
        select(status, func.sum(run.c.count))
        .where(run.c.id >= first_young_run(connection, since), run.c.created >= since)
        .group_by(status)
    )
    return {row[0]: int(row[1]) for row in rows}
