"""Statements on the rows that cover ticks of the past, and on how a `missed` one is split."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import func, select

from ._bulk import delete_many, insert_many, select_many, update_many
from .schema import Instant, micros, run

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import Connection


class Piece(NamedTuple):
    """Ticks in a row: the first, the last, and how many they are."""

    first: datetime
    last: datetime
    number: int


class Cover(NamedTuple):
    """A row and the ticks that it covers."""

    id: int
    first: datetime
    last: datetime
    number: int
    state: str


def covers(
    connection: Connection, job_ids: Sequence[str], start: datetime, end: datetime
) -> list[Cover]:
    """Return the rows of these jobs that cover ticks between the two, by their first tick.

    A row that `reset-clock` has disowned covers none. Uses the index `jobs_run_history`.
    """
    last = func.coalesce(run.c.last_tick, run.c.tick_at, type_=Instant)
    rows = connection.execute(
        select(run.c.id, run.c.tick_at, last, run.c.count, run.c.state)
        .where(
            run.c.job_id.in_(job_ids),
            run.c.tick_at <= end,
            last >= start,
            run.c.dedup_key.startswith("t:"),
        )
        .order_by(run.c.tick_at)
    )
    return [Cover(*row) for row in rows]


def lock(connection: Connection, rows: Sequence[Cover]) -> list[Cover]:
    """Return those of these rows that are still there, locked: somebody may prune meanwhile."""
    found = select_many(connection, run, ("id",), "id", (row.id for row in rows), "FOR UPDATE")
    there = {id_ for (id_,) in found}
    return [row for row in rows if row.id in there]


def split(connection: Connection, pieces: Mapping[int, Sequence[Piece]], now: datetime) -> None:
    """Leave of each of these locked rows its pieces, two at most; one without any goes.

    The first piece keeps the row, a second one is a new row like it.
    """
    delete_many(connection, run, "id", [id_ for id_, left in pieces.items() if not left])
    kept = [(*_columns(left[0]), id_) for id_, left in pieces.items() if left]
    update_many(connection, run, ("id",), ("dedup_key", "tick_at", "last_tick", "count"), kept)
    again = {id_: left[1] for id_, left in pieces.items() if len(left) > 1}
    rows = connection.execute(select(run).where(run.c.id.in_(again))).mappings()
    names = tuple(column.name for column in run.c if column.name != "id")
    copies = []
    for row in rows:
        key, first, last, count = _columns(again[row["id"]])
        own = {"dedup_key": key, "tick_at": first, "last_tick": last, "count": count}
        copies.append({**row, **own, "created": now})  # ids and `created` grow together
    insert_many(connection, run, names, [tuple(row[name] for name in names) for row in copies])


def _columns(piece: Piece) -> tuple[str, datetime, datetime, int]:
    return f"t:{micros(piece.first)}", piece.first, piece.last, piece.number
