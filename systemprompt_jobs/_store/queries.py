"""Read-only questions that commands and pages ask."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, case, exists, func, not_, null, or_, select, text, union, union_all

from ..model import RETRYING, Backlog, State, Trigger
from .pruning import first_young_run
from .runs import columns, to_run
from .schema import HELD, PENDING, TROUBLED, Instant, attempt, audit, job, job_set, node, run
from .statistics import newest_from

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from datetime import datetime

    from sqlalchemy import ColumnElement, Connection

    from ..model import Run


_RETRYING = and_(
    run.c.state.in_((State.PENDING, State.CLAIMED, State.DISPATCHED)), run.c.attempt > 0
)
_OPEN = {State.PENDING, State.CLAIMED, State.DISPATCHED, State.RUNNING, RETRYING}
_LOOKED_THROUGH = 10_000
"""So that a job which skips itself each second holds up nobody who asks for the others' trouble."""

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
    tick = case((run.c.trigger != Trigger.MANUAL, run.c.tick_at))  # one by hand says any
    first = func.coalesce(tick, run.c.created, type_=Instant)
    last = func.coalesce(run.c.last_tick, run.c.finished, tick, run.c.created, type_=Instant)
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


def waiting(connection: Connection, now: datetime, job_ids: Collection[str]) -> list[datetime]:
    """Return since when ticks and runs of these jobs are due that no node has taken.

    What is paused, or waits for a slot, waits for something else. Of the ticks of a job the
    oldest counts. Uses the indexes `jobs_job_next_tick` and `jobs_run_pending`.
    """
    paused = and_(
        job.c.paused_at.is_not(None),
        or_(job.c.paused_until.is_(None), job.c.paused_until > now),
    )
    ticks = select(job.c.id, job.c.next_tick).where(job.c.next_tick <= now, not_(paused))
    runs = select(run.c.job_id, run.c.available_at).where(
        PENDING, run.c.available_at <= now, run.c.reason == ""
    )
    found = [*connection.execute(ticks), *connection.execute(runs)]
    return [due for job_id, due in found if job_id in job_ids]


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


def knows(connection: Connection, job_id: str) -> bool:
    """Return whether a job of this id, or a run of it, is on record."""
    found = or_(
        exists().where(job.c.id == job_id).correlate(None),
        exists().where(run.c.job_id == job_id).correlate(None),
    )
    return bool(connection.execute(select(found)).scalar())


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


def troubled(connection: Connection, limit: int) -> list[Run]:
    """Return the newest runs that did not go as planned, newest first. Uses `jobs_run_troubled`.

    One whose job found nothing to do went as planned.
    """
    ids = select(run.c.id).where(TROUBLED).order_by(run.c.id.desc()).limit(_LOOKED_THROUGH)
    newest = ids.subquery()
    statement = select(*columns()).join(newest, run.c.id == newest.c.id)
    statement = statement.where(run.c.reason != "job").order_by(run.c.id.desc()).limit(limit)
    return [to_run(row) for row in connection.execute(statement)]


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


def backlog(connection: Connection, lease_now: int, boot: str) -> list[Backlog]:
    """Return what has not ended, by job. Scans the indexes `jobs_run_pending` and `jobs_run_held`."""
    wanted = (run.c.job_id, run.c.state, run.c.attempt, run.c.available_at)
    over = or_(run.c.lease_until < lease_now, func.coalesce(node.c.boot, boot) != boot)
    # One select for each index: for the two conditions in one, SQLite reads the whole history.
    held = select(*wanted, case((over, 1), else_=0).label("over")).where(HELD)
    pending = select(*wanted, null().label("over")).where(text("state = 'pending'"))
    found = union_all(pending, held.outerjoin(node, node.c.id == run.c.node)).subquery()
    of = found.c
    waits = and_(of.state == State.PENDING, of.attempt == 0)

    def number(condition: ColumnElement[bool]) -> ColumnElement[int]:
        return func.count(case((condition, 1)))

    statement = (
        select(
            of.job_id,
            number(waits).label("pending"),
            number(and_(of.state != State.RUNNING, of.attempt > 0)).label("retrying"),
            number(and_(of.state == State.CLAIMED, of.attempt == 0)).label("claimed"),
            number(and_(of.state == State.DISPATCHED, of.attempt == 0)).label("dispatched"),
            number(of.state == State.RUNNING).label("running"),
            number(of.over == 0).label("held"),
            number(of.over == 1).label("expired"),
            func.min(case((waits, of.available_at)), type_=Instant).label("since"),
        )
        .group_by(of.job_id)
        .order_by(of.job_id)
    )
    return [Backlog(**row._mapping) for row in connection.execute(statement)]  # noqa: SLF001  # public
