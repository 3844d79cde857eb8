"""Statements on nodes: who takes part, and since when."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, bindparam, func, insert, or_, select, update

from ..model import Node
from ._bulk import execute_among
from .schema import MICROSECOND, job_set, micros, node

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime, timedelta

    from sqlalchemy import BindParameter, ColumnElement, Connection

    from ._questions import Asked

_CHANGE = update(node).where(node.c.id == bindparam("key"))
"""Sets the columns that are sent with the key."""

_BEAT = """UPDATE jobs_node SET heartbeat = ?, lease_until = ?, clock_offset = ?, strays = ?,
problem = ?, stopped = NULL WHERE {among}"""

_STOPPED = select(node.c.stopped).where(node.c.id == bindparam("key"))

_AT_WORK = or_(node.c.kind == "scheduler", node.c.kind == "worker")

_SILENT = select(node).where(
    _AT_WORK,
    node.c.stopped.is_(None),
    or_(node.c.lease_until < bindparam("lease_now"), node.c.boot != bindparam("the_boot")),
)


def join(connection: Connection, values: dict[str, Any]) -> None:
    """Add a node. Keys: all columns but `stopped`."""
    connection.execute(insert(node).values(values))


def beat(
    connection: Connection,
    node_id: str,
    now: datetime,
    lease_until: int,
    offset: timedelta | None,
    strays: int,
    problem: str = "",
) -> bool:
    """Say that the node lives, how far its clock is ahead of the database's, how many strays.

    `problem` is what is wrong with the configuration that it was told to read. Return whether
    the node is still known: one that was silent for long is forgotten.
    """
    ahead = None if offset is None else offset // MICROSECOND
    values = (micros(now), lease_until, ahead, strays, problem)
    return bool(execute_among(connection, _BEAT, node, "id", [node_id], values))


def rename_set(connection: Connection, node_id: str, job_set: str) -> None:
    """Say that the node has another job set."""
    connection.execute(_CHANGE, {"key": node_id, "job_set": job_set})


def has_stopped(connection: Connection, node_id: str) -> bool:
    """Return whether somebody has taken the node for dead."""
    return connection.execute(_STOPPED, {"key": node_id}).scalar() is not None


def silent(connection: Asked, lease_now: int, boot: str) -> list[tuple[Node, int]]:
    """Return the schedulers and workers with their leases that ran out, of those that never left."""
    rows = connection.execute(_SILENT, {"lease_now": lease_now, "the_boot": boot})
    return [(to_node(row), row.lease_until) for row in rows]


def bury(connection: Connection, dead: Iterable[tuple[Node, int]], now: datetime) -> list[Node]:
    """Say of these nodes that they have stopped; return those whose lease is still the same."""
    return [
        buried
        for buried, lease_until in sorted(dead, key=lambda pair: pair[0].id)
        if connection.execute(
            update(node)
            .where(
                node.c.id == buried.id,
                node.c.lease_until == lease_until,
                node.c.stopped.is_(None),
            )
            .values(stopped=now)
        ).rowcount
    ]


def gone(connection: Connection, lease_now: int, boot: str, since: datetime) -> list[Any]:
    """Return the rows of schedulers and workers that went, and were heard of since, newest first."""
    return list(
        connection.execute(
            select(node)
            .where(
                _AT_WORK,
                node.c.heartbeat >= since,
                or_(
                    node.c.stopped.is_not(None),
                    node.c.lease_until < lease_now,
                    node.c.boot != boot,
                ),
            )
            .order_by(node.c.heartbeat.desc())
        )
    )


def set_sizes(connection: Connection, hashes: Iterable[str]) -> dict[str, int]:
    """Return how many jobs these job sets have."""
    rows = connection.execute(
        select(job_set.c.hash, func.count())
        .where(job_set.c.hash.in_(list(hashes)))
        .group_by(job_set.c.hash)
    )
    return {hash_: number for hash_, number in rows}  # noqa: C416  # rows are no pairs to mypy


def lacking(connection: Connection, hashes: Iterable[str]) -> dict[str, list[str]]:
    """Return for each of these job sets the jobs that others of them have and it has not."""
    names = set(hashes)
    uneven = (
        select(job_set.c.job_id)
        .where(job_set.c.hash.in_(names))
        .group_by(job_set.c.job_id)
        .having(func.count() < len(names))
    )
    rows = connection.execute(
        select(job_set.c.job_id, job_set.c.hash)
        .where(job_set.c.hash.in_(names), job_set.c.job_id.in_(uneven))
        .order_by(job_set.c.job_id)
    )
    having: dict[str, set[str]] = {}
    for job_id, hash_ in rows:
        having.setdefault(job_id, set()).add(hash_)
    return {name: [id_ for id_, own in having.items() if name not in own] for name in names}


def to_node(row: Any) -> Node:
    """Return who a row is about. Its `boot` is the host's; the process's own is in the id."""
    return Node(row.id, row.host, row.pid, row.id.rpartition(":")[2], row.version)


def leave(connection: Connection, node_id: str, now: datetime) -> None:
    """Say that the node has stopped by itself: it was alive until then."""
    connection.execute(_CHANGE, {"key": node_id, "heartbeat": now, "stopped": now})


def live(connection: Connection, lease_now: int, boot: str) -> list[Any]:
    """Return the rows of schedulers and workers whose lease has not run out, oldest first."""
    live = and_(_AT_WORK, _holds(lease_now, boot))
    return list(connection.execute(select(node).where(live).order_by(node.c.started)))


def is_live(
    lease_now: int | BindParameter[int], boot: str | BindParameter[str]
) -> ColumnElement[bool]:
    """Say that a node is a scheduler which has not stopped and whose lease has not run out."""
    return and_(node.c.kind == "scheduler", _holds(lease_now, boot))


def _holds(
    lease_now: int | BindParameter[int], boot: str | BindParameter[str]
) -> ColumnElement[bool]:
    return and_(node.c.stopped.is_(None), node.c.lease_until >= lease_now, node.c.boot == boot)


def is_unburied(boot: str) -> ColumnElement[bool]:
    """Say that nobody has taken a scheduler for dead and that it has not left.

    Its lease may have run out, because its database was away.
    """
    return and_(node.c.kind == "scheduler", node.c.stopped.is_(None), node.c.boot == boot)
