"""What the tables know that explains why a job runs, or did not. Read only."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, func, or_, select, union

from ..model import State, Trigger
from .pruning import first_young_run
from .runs import columns, to_run
from .schema import HELD, Instant, audit, job_set, micros, node, run

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import ColumnElement, Connection, Row, Select

    from ..model import Run

_AHEAD = timedelta(seconds=10)
"""More than ticks are claimed early and clocks disagree."""

_NEWEST = run.c.id.desc()
_ROWS = 1000
_DAY = timedelta(days=1)


def live_nodes(
    connection: Connection, job_id: str, lease_now: int, boot: str
) -> list[tuple[str, bool]]:
    """Return the live schedulers, oldest first, and whether each has the job."""
    alive = and_(node.c.stopped.is_(None), node.c.lease_until >= lease_now, node.c.boot == boot)
    return _nodes(connection, _with_job(job_id).where(alive))


def nodes_at(connection: Connection, job_id: str, at: datetime) -> list[tuple[str, bool]]:
    """Return the schedulers that were up at an instant, and whether each had the job."""
    up = and_(node.c.started <= at, node.c.heartbeat >= at)
    return _nodes(connection, _with_job(job_id).where(up))


def _with_job(job_id: str) -> Select[tuple[Any, ...]]:
    has = and_(job_set.c.hash == node.c.job_set, job_set.c.job_id == job_id)
    return (
        select(node.c.id, job_set.c.job_id)
        .outerjoin(job_set, has)
        .where(node.c.kind == "scheduler")
        .order_by(node.c.started)
    )


def _nodes(connection: Connection, statement: Select[tuple[Any, ...]]) -> list[tuple[str, bool]]:
    return [(row[0], row[1] is not None) for row in connection.execute(statement)]


def run_covering(connection: Connection, job_id: str, tick: datetime) -> Run | None:
    """Return the row that covers a tick: its own, or a stretch that it lies in.

    A row is made when its tick is due or later, a stretch before the job goes on: so only the
    first of the job's younger rows are read; one by hand may have been given this tick. Uses
    `jobs_run_once` and `jobs_run_history`.
    """
    mine = and_(run.c.job_id == job_id, run.c.trigger != Trigger.MANUAL)
    own = select(run.c.id).where(mine, run.c.dedup_key == f"t:{micros(tick)}")
    young = (
        select(run.c.id, run.c.tick_at, run.c.last_tick)
        .where(mine, run.c.id >= first_young_run(connection, tick - _AHEAD))
        .order_by(run.c.id)
        .limit(_ROWS)
        .subquery()
    )
    inside = and_(
        young.c.tick_at <= tick,
        func.coalesce(young.c.last_tick, young.c.tick_at, type_=Instant) >= tick,
    )
    return _first(connection, _NEWEST, run.c.id.in_(union(own, select(young.c.id).where(inside))))


def run_now(connection: Connection, job_id: str, now: datetime) -> Run | None:
    """Return the oldest run of the job that is under way, or is due and held by a node.

    Uses the index `jobs_run_held`.
    """
    held = select(run.c.id).where(HELD)
    due = or_(run.c.state == State.RUNNING, run.c.available_at <= now)
    return _first(connection, run.c.id, run.c.id.in_(held), run.c.job_id == job_id, due)


def run_at(connection: Connection, job_id: str, at: datetime) -> Run | None:
    """Return the newest run of the job that was under way at an instant, begun within a day."""
    return _first(
        connection,
        _NEWEST,
        run.c.job_id == job_id,
        run.c.id >= first_young_run(connection, at - _DAY),
        run.c.id < first_young_run(connection, at + _AHEAD),
        run.c.started <= at,
        or_(run.c.finished.is_(None), run.c.finished >= at),
    )


def _first(
    connection: Connection, order: ColumnElement[int], *conditions: ColumnElement[bool]
) -> Run | None:
    statement = select(*columns()).where(*conditions).order_by(order).limit(1)
    found = connection.execute(statement).one_or_none()
    return to_run(found) if found else None


def last_audit(
    connection: Connection, job_id: str, action: str, before: datetime
) -> Row[*tuple[Any, ...]] | None:
    """Return who last did this to the job before an instant."""
    return connection.execute(
        select(audit)
        .where(audit.c.subject == job_id, audit.c.action == action, audit.c.at <= before)
        .order_by(audit.c.id.desc())
        .limit(1)
    ).one_or_none()


def oldest_run(connection: Connection, job_id: str) -> datetime | None:
    """Return when the oldest row that is kept of a job was made."""
    return connection.execute(
        select(run.c.created).where(run.c.job_id == job_id).order_by(run.c.id).limit(1)
    ).scalar()
