"""Statements on nodes: who takes part, and since when."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import insert, select, update

from .schema import node

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from sqlalchemy import Connection


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
) -> None:
    """Say that the node lives, how far its clock is ahead of the database's, how many strays."""
    connection.execute(
        update(node)
        .where(node.c.id == node_id)
        .values(heartbeat=now, lease_until=lease_until, clock_offset=offset, strays=strays)
    )


def leave(connection: Connection, node_id: str, now: datetime) -> None:
    """Say that the node has stopped by itself."""
    connection.execute(update(node).where(node.c.id == node_id).values(stopped=now))


def live(connection: Connection, lease_now: int, boot: str) -> list[Any]:
    """Return the rows of scheduler nodes whose lease has not run out, oldest first."""
    return list(
        connection.execute(
            select(node)
            .where(
                node.c.kind == "scheduler",
                node.c.stopped.is_(None),
                node.c.lease_until >= lease_now,
                node.c.boot == boot,
            )
            .order_by(node.c.started)
        )
    )
