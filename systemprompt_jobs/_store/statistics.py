"""How the jobs have been doing: counted and ranked in the database, a few rows per job come back."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import BigInteger, ColumnElement, and_, func, select, type_coerce

from ..model import State, Trigger
from .pruning import first_young_run
from .runs import columns, to_run
from .schema import job, run

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy import Connection, Subquery

    from ..model import Run

RANKED = 1000
"""Newest runs of each job that are ranked by time: sorting millions would take too long."""

Quantiles = tuple[timedelta, timedelta]
"""p50 and p95, by nearest rank."""

_ENDS = (State.SUCCEEDED, State.FAILED, "timed_out")
"""Ends of which the time taken says something."""


def _micros(column: Any) -> ColumnElement[int]:
    return type_coerce(column, BigInteger)


TOOK = _micros(run.c.finished) - _micros(run.c.started)
LATE = _micros(run.c.started) - _micros(run.c.available_at)


def recent(job_ids: Sequence[str] | None, since: datetime) -> list[ColumnElement[bool]]:
    """Return the conditions of runs of these jobs, else of all, recorded since then."""
    found = [run.c.created >= since]
    return found if job_ids is None else [*found, run.c.job_id.in_(job_ids)]


def counts(
    connection: Connection, conditions: Sequence[ColumnElement[bool]], since: datetime
) -> dict[str, dict[str, int]]:
    """Return for each job how many runs and ticks are in each state. Uses the primary key."""
    rows = connection.execute(
        select(run.c.job_id, run.c.state, func.sum(run.c.count))
        .where(run.c.id >= first_young_run(connection, since), *conditions)
        .group_by(run.c.job_id, run.c.state)
    )
    found: dict[str, dict[str, int]] = {}
    for job_id, state, number in rows:
        found.setdefault(job_id, {})[state] = int(number)
    return found


def took(connection: Connection, conditions: Sequence[ColumnElement[bool]]) -> dict[str, Quantiles]:
    """Return how long the runs of each job took that came to their own end."""
    return _quantiles(connection, TOOK, [*conditions, run.c.state.in_(_ENDS)])


def late(connection: Connection, conditions: Sequence[ColumnElement[bool]]) -> dict[str, Quantiles]:
    """Return how long after they might have started the ticks of each job did."""
    ticks = [run.c.trigger == Trigger.SCHEDULE, run.c.started.is_not(None)]
    return _quantiles(connection, LATE, [*conditions, *ticks])


def _quantiles(
    connection: Connection, value: ColumnElement[int], conditions: Sequence[ColumnElement[bool]]
) -> dict[str, Quantiles]:
    newest = _newest_from(RANKED)
    ranked = (
        select(
            run.c.job_id,
            value.label("value"),
            func.row_number().over(partition_by=run.c.job_id, order_by=value).label("rank"),
            func.count().over(partition_by=run.c.job_id).label("total"),
        )
        .join(newest, and_(run.c.job_id == newest.c.id, run.c.id >= newest.c.first))
        .where(*conditions)
        .subquery()
    )
    ranks = [(ranked.c.total * percent + 99) // 100 for percent in (50, 95)]
    rows = connection.execute(
        select(ranked.c.job_id, ranked.c.value)
        .where(ranked.c.rank.in_(ranks))
        .order_by(ranked.c.job_id, ranked.c.rank)
    )
    found: dict[str, list[timedelta]] = {}
    for job_id, micros in rows:
        found.setdefault(job_id, []).append(timedelta(microseconds=micros))
    return {job_id: (values[0], values[-1]) for job_id, values in found.items()}


def _newest_from(number: int, job_ids: Sequence[str] | None = None) -> Subquery:
    """Return each of these jobs, else of all, with the id from which its newest runs begin, by `jobs_run_history`."""
    oldest = (
        select(run.c.id)
        .where(run.c.job_id == job.c.id)
        .order_by(run.c.id.desc())
        .limit(1)
        .offset(number - 1)
        .correlate(job)
        .scalar_subquery()
    )
    # The limit keeps SQLite from asking again for every run.
    found = select(job.c.id, func.coalesce(oldest, 0).label("first")).limit(2**31)
    return (found if job_ids is None else found.where(job.c.id.in_(job_ids))).subquery()


def newest(connection: Connection, job_ids: Sequence[str], number: int) -> dict[str, list[Run]]:
    """Return the newest runs of each job, oldest first. Uses the index `jobs_run_history`."""
    oldest = _newest_from(number, job_ids)
    statement = (
        select(*columns())
        .join(oldest, and_(run.c.job_id == oldest.c.id, run.c.id >= oldest.c.first))
        .order_by(run.c.job_id, run.c.id)
    )
    found: dict[str, list[Run]] = {}
    for row in connection.execute(statement):
        found.setdefault(row.job_id, []).append(to_run(row))
    return found


def last_runs(
    connection: Connection, job_ids: Sequence[str] | None, number: int
) -> dict[str, list[tuple[State, timedelta | None]]]:
    """Return the state and the duration of each job's newest runs, oldest first."""
    newest = _newest_from(number)
    statement = (
        select(run.c.job_id, run.c.state, TOOK)
        .join(newest, and_(run.c.job_id == newest.c.id, run.c.id >= newest.c.first))
        .order_by(run.c.job_id, run.c.id)
    )
    if job_ids is not None:
        statement = statement.where(run.c.job_id.in_(job_ids))
    found: dict[str, list[tuple[State, timedelta | None]]] = {}
    for job_id, state, micros in connection.execute(statement):
        duration = None if micros is None else timedelta(microseconds=micros)
        found.setdefault(job_id, []).append((State(state), duration))
    return found
