"""How the jobs have been doing: counted and ranked in the database, a few rows per job come back."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import BigInteger, ColumnElement, and_, case, func, select, text, true, type_coerce

from ..model import Glance, State, Trigger
from .pruning import first_young_run
from .runs import columns, to_run
from .schema import EPOCH, MICROSECOND, job, micros, run

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


def recent(
    connection: Connection, job_ids: Sequence[str] | None, since: datetime
) -> list[ColumnElement[bool]]:
    """Return the conditions of runs of these jobs, else of all, recorded since then."""
    found = [run.c.id >= first_young_run(connection, since), run.c.created >= since]
    return found if job_ids is None else [*found, run.c.job_id.in_(job_ids)]


def counts(
    connection: Connection, conditions: Sequence[ColumnElement[bool]]
) -> dict[str, dict[str, int]]:
    """Return for each job how many runs and ticks are in each state. Uses the primary key."""
    rows = connection.execute(
        select(run.c.job_id, run.c.state, func.sum(run.c.count))
        .where(*conditions)
        .group_by(run.c.job_id, run.c.state)
    )
    found: dict[str, dict[str, int]] = {}
    for job_id, state, number in rows:
        found.setdefault(job_id, {})[state] = int(number)
    return found


def took(
    connection: Connection,
    conditions: Sequence[ColumnElement[bool]],
    job_ids: Sequence[str],
    *,
    others: bool,
) -> dict[str, Quantiles]:
    """Return how long runs took that came to their own end: the `RANKED` newest of these jobs.

    With `others` also of all other jobs, each of which has no more.
    """
    ended = [*conditions, run.c.state.in_(_ENDS)]
    return _quantiles(connection, TOOK, ended, job_ids, others=others)


def late(
    connection: Connection,
    conditions: Sequence[ColumnElement[bool]],
    job_ids: Sequence[str],
    *,
    others: bool,
) -> dict[str, Quantiles]:
    """Return how long after they might have started ticks did, of the same runs as `took`."""
    ticks = [*conditions, run.c.trigger == Trigger.SCHEDULE, run.c.started.is_not(None)]
    return _quantiles(connection, LATE, ticks, job_ids, others=others)


def _quantiles(
    connection: Connection,
    value: ColumnElement[int],
    conditions: Sequence[ColumnElement[bool]],
    job_ids: Sequence[str],
    *,
    others: bool,
) -> dict[str, Quantiles]:
    newest = newest_from(RANKED, job_ids)
    first = func.coalesce(newest.c.first, 0) if others else newest.c.first
    ranked = (
        select(
            run.c.job_id,
            value.label("value"),
            func.row_number().over(partition_by=run.c.job_id, order_by=value).label("rank"),
            func.count().over(partition_by=run.c.job_id).label("total"),
        )
        .join(newest, run.c.job_id == newest.c.id, isouter=others)
        .where(*conditions, run.c.id >= first)
        .subquery()
    )
    ranks = [(ranked.c.total * percent + 99) // 100 for percent in (50, 95)]
    rows = connection.execute(
        select(ranked.c.job_id, ranked.c.value)
        .where(ranked.c.rank.in_(ranks))
        .order_by(ranked.c.job_id, ranked.c.rank)
    )
    found: dict[str, list[timedelta]] = {}
    for job_id, taken in rows:
        found.setdefault(job_id, []).append(taken * MICROSECOND)
    return {job_id: (values[0], values[-1]) for job_id, values in found.items()}


def newest_from(number: int, job_ids: Sequence[str] | None = None) -> Subquery:
    """Return each of these jobs, else of all, with the id from which its newest runs begin, by `jobs_run_history`."""
    # Of a job that it knows by name PostgreSQL knows how many runs there are, and so a good plan.
    one = job_ids[0] if job_ids is not None and len(job_ids) == 1 else job.c.id
    oldest = (
        select(run.c.id)
        .where(run.c.job_id == one)
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
    oldest = newest_from(number, job_ids)
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
    newest = newest_from(number, job_ids)
    own = and_(run.c.job_id == newest.c.id, run.c.id >= newest.c.first)
    theirs = select(run.c.job_id, run.c.state, TOOK.label("took"), run.c.id).where(own)
    if connection.dialect.name == "postgresql":  # it would read all of the history
        each = theirs.offset(0).lateral()
        theirs = select(each).join_from(newest, each, true())
    found: dict[str, list[tuple[State, timedelta | None]]] = {}
    for job_id, state, value, _ in connection.execute(theirs.order_by(text("1"), text("4"))):
        duration = None if value is None else value * MICROSECOND
        found.setdefault(job_id, []).append((State(state), duration))
    return found


def glances(connection: Connection, job_ids: Sequence[str], number: int) -> dict[str, list[Glance]]:
    """Return the newest runs of each job at a glance, oldest first. Uses `jobs_run_history`."""
    newest = newest_from(number, job_ids)
    ticks = and_(run.c.trigger == Trigger.SCHEDULE, run.c.started.is_not(None))
    statement = (
        select(
            *(run.c.job_id, run.c.id, run.c.state, run.c.reason, run.c.count, run.c.attempt),
            func.coalesce(run.c.tick_at, run.c.started, run.c.created, type_=BigInteger),
            TOOK,
            case((ticks, LATE)),
        )
        .join(newest, and_(run.c.job_id == newest.c.id, run.c.id >= newest.c.first))
        .order_by(run.c.job_id, run.c.id)
    )
    found: dict[str, list[Glance]] = {}
    for job_id, id_, state, reason, count, tries, *times in connection.execute(statement):
        at, duration, lateness = times
        glance = Glance(
            *(id_, State(state), reason, count, tries, EPOCH + at * MICROSECOND),
            *(None if value is None else value * MICROSECOND for value in (duration, lateness)),
        )
        found.setdefault(job_id, []).append(glance)
    return found


def activity(
    connection: Connection, job_ids: Sequence[str], since: datetime, width: timedelta
) -> list[tuple[str, int, str, int, int]]:
    """Return (job, cell, state, whether at a later attempt, number) of runs and ticks since then.

    Cells are as wide as `width`, numbered from `since`. Uses the index `jobs_run_history`.
    """
    return [
        (job_id, *rest)
        for job_id, *rest in connection.execute(
            select(run.c.job_id, *_cell(since, width))
            .where(run.c.job_id.in_(job_ids), *_since(connection, since))
            .group_by(run.c.job_id, text("2"), text("3"), text("4"))
        )
    ]


def begun(connection: Connection, since: datetime, width: timedelta) -> dict[int, int]:
    """Return how many jobs had runs or ticks in each cell. Uses the primary key."""
    cell, *_ = _cell(since, width)
    rows = connection.execute(
        select(cell, func.count(run.c.job_id.distinct()))
        .where(*_since(connection, since))
        .group_by(text("1"))
    )
    return {int(number): jobs for number, jobs in rows}


_AT = func.coalesce(run.c.last_tick, run.c.tick_at, run.c.started, run.c.created, type_=BigInteger)


def _cell(since: datetime, width: timedelta) -> tuple[ColumnElement[Any], ...]:
    number = (_AT - micros(since)) // (width // MICROSECOND)
    later = case((run.c.attempt > 1, 1), else_=0)
    return number.label("cell"), run.c.state, later.label("later"), func.sum(run.c.count)


def _since(connection: Connection, since: datetime) -> tuple[ColumnElement[bool], ...]:
    begin = micros(since)
    return run.c.id >= first_young_run(connection, since), begin <= _AT
