"""Statements that forget: ended runs, nodes that are gone, old audit rows.

Nothing here touches a job row, a slot, or a run that has not ended.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import (
    BigInteger,
    Text,
    and_,
    case,
    column,
    delete,
    exists,
    func,
    literal,
    not_,
    or_,
    select,
    values,
)

from ..model import State
from ._bulk import delete_many, select_many
from .schema import HELD, attempt, audit, job, job_set, node, run, slot

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy import Connection, Select

Bounds = list[tuple[str, int]]
"""Jobs, each with the newest of its runs that may be forgotten."""

_JOBS = 500
"""Jobs per reading statement."""

_STRIDE = 2**62
"""The longest step of a bisection: no id is further on."""

_ALIVE = (State.PENDING, State.CLAIMED, State.RUNNING, State.DISPATCHED)


def first_young_run(connection: Connection, cutoff: datetime) -> int:
    """Return a run id below which nearly all runs were made before `cutoff`; 0 if none was.

    Ids grow with time, so this bisects the primary key, in one statement. Where the clock was
    stepped, runs may lie on the wrong side; whoever deletes looks at each.
    """
    zero, whole = literal(0, BigInteger), literal(_STRIDE, BigInteger)
    halves = select(zero.label("old"), whole.label("stride")).cte("halves", recursive=True)
    old, stride = halves.c.old, halves.c.stride
    next_ = select(run.c.created).where(run.c.id >= old + stride).order_by(run.c.id).limit(1)
    further = case((next_.scalar_subquery() < cutoff, old + stride), else_=old)
    halves = halves.union_all(select(further, stride // 2).where(stride > 0))
    last = connection.execute(select(halves.c.old).where(halves.c.stride == 0)).scalar_one()
    return int(last) + 1 if last else 0


def spare_runs(
    connection: Connection, after: str, first_young: int, keep: int
) -> tuple[Bounds, str | None]:
    """Return which of the next jobs have old runs beyond their `keep` newest.

    `after` is the id of the last job of the call before; the second answer is that of this one,
    None at the end. Per job two looks into the index `jobs_run_history`.
    """
    oldest = select(func.min(run.c.id)).where(run.c.job_id == job.c.id).scalar_subquery()
    spare = (
        select(run.c.id)
        .where(run.c.job_id == job.c.id)
        .order_by(run.c.id.desc())
        .limit(1)
        .offset(keep)
        .scalar_subquery()
    )
    rows = connection.execute(
        select(job.c.id, case((oldest < first_young, spare)).label("newest"))
        .where(job.c.id > after)
        .order_by(job.c.id)
        .limit(_JOBS)
    ).all()
    bounds = [(row.id, min(row.newest, first_young - 1)) for row in rows if row.newest is not None]
    return bounds, rows[-1].id if len(rows) == _JOBS else None


def old_runs(
    connection: Connection, bounds: Bounds, cutoff: datetime, limit: int
) -> list[tuple[int, str]]:
    """Return (run, job) of runs within `bounds` that ended before `cutoff` and hold no slot.

    What has ended stays so, and takes no slot any more. Uses the index `jobs_run_history`.
    """
    rows = connection.execute(_old(bounds, cutoff, run.c.id, run.c.job_id).limit(limit))
    return [(row.id, row.job_id) for row in rows]


def count_old_runs(connection: Connection, bounds: Bounds, cutoff: datetime) -> dict[str, int]:
    """Return how many runs of which job `old_runs` would return without a limit."""
    number = func.count().label("number")
    counted = _old(bounds, cutoff, run.c.job_id, number).group_by(run.c.job_id)
    return {row.job_id: row.number for row in connection.execute(counted)}


def _old(bounds: Bounds, cutoff: datetime, *columns: Any) -> Select[*tuple[Any, ...]]:
    bound = (
        values(column("job_id", Text), column("newest", BigInteger), name="bound")
        .data(bounds)
        .cte("bound")
    )
    return (
        select(*columns)
        .join(bound, and_(run.c.job_id == bound.c.job_id, run.c.id <= bound.c.newest))
        .where(
            run.c.state.not_in(_ALIVE),
            run.c.finished < cutoff,
            not_(exists().where(slot.c.run_id == run.c.id)),
        )
    )


def delete_runs(connection: Connection, runs: Sequence[tuple[int, str]]) -> list[tuple[int, str]]:
    """Delete these ended runs with their attempts; return those that still were there.

    What another node deletes at the same time is left to it.
    """
    ids = (id_ for id_, _ in runs)
    found = select_many(connection, run, ("id", "job_id"), "id", ids, "FOR UPDATE SKIP LOCKED")
    for table, key in ((attempt, "run_id"), (run, "id")):
        delete_many(connection, table, key, (id_ for id_, _ in found))
    return [(id_, job_id) for id_, job_id in found]


class NodeLimits(NamedTuple):
    """Until when nodes were last heard of that may be forgotten, and what tells a live one."""

    schedulers: datetime
    commands: datetime
    lease_now: int
    boot: str


def gone_nodes(connection: Connection, limits: NodeLimits, limit: int | None) -> list[str]:
    """Return nodes that were last heard of long ago, are not alive and hold no run."""
    alive = and_(
        node.c.stopped.is_(None),
        node.c.lease_until >= limits.lease_now,
        node.c.boot == limits.boot,
    )
    rows = connection.execute(
        select(node.c.id)
        .where(
            or_(
                node.c.heartbeat < limits.schedulers,
                and_(node.c.kind == "command", node.c.heartbeat < limits.commands),
            ),
            not_(alive),
            not_(exists().where(HELD, run.c.node == node.c.id)),
        )
        .order_by(node.c.id)
        .limit(limit)
    )
    return list(rows.scalars())


def delete_nodes(connection: Connection, ids: Sequence[str]) -> list[str]:
    """Delete these nodes, and their job sets where no other node names them.

    Only theirs: the set of a node that is just joining is named by none yet.
    """
    found = select_many(connection, node, ("id", "job_set"), "id", ids, "FOR UPDATE SKIP LOCKED")
    gone = [id_ for id_, _ in found]
    delete_many(connection, node, "id", gone)
    named = exists().where(node.c.job_set == job_set.c.hash)
    connection.execute(
        delete(job_set).where(job_set.c.hash.in_({name for _, name in found}), not_(named))
    )
    return gone


def old_audits(connection: Connection, cutoff: datetime, limit: int) -> list[int]:
    """Return the oldest audit rows from before `cutoff`. They were written in the order of ids."""
    oldest = select(audit.c.id, audit.c.at).order_by(audit.c.id).limit(limit)
    return [row.id for row in connection.execute(oldest) if row.at < cutoff]


def delete_audits(connection: Connection, ids: Sequence[int]) -> list[int]:
    """Delete these audit rows; return those that still were there."""
    found = select_many(connection, audit, ("id",), "id", ids, "FOR UPDATE SKIP LOCKED")
    gone = [id_ for (id_,) in found]
    delete_many(connection, audit, "id", gone)
    return gone


def count_old_audits(connection: Connection, cutoff: datetime) -> int:
    """Return how many audit rows are from before `cutoff`."""
    counted = select(func.count()).select_from(audit).where(audit.c.at < cutoff)
    return int(connection.execute(counted).scalar_one())
