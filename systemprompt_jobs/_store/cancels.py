"""Statements that end runs early, and the slots of threads that outlived their runs."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from sqlalchemy import bindparam, delete, or_, select

from ..model import State
from . import slots
from ._bulk import select_many, update_many
from .runs import columns, lock, to_run
from .schema import HELD, node, run, slot

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from sqlalchemy import Connection

    from ..model import Run
    from ._questions import Asked

_DEAD = or_(
    node.c.id.is_(None),
    node.c.stopped.is_not(None),
    node.c.lease_until < bindparam("lease_now"),
    node.c.boot != bindparam("the_boot"),
)

_ORPHANED = (
    select(slot.c.run_id, slot.c.fence)
    .join(run, run.c.id == slot.c.run_id)
    .outerjoin(node, node.c.id == run.c.node)
    .where(~or_(HELD, run.c.state == State.PENDING), _DEAD)
)

_UNSTARTED = frozenset({State.PENDING, State.CLAIMED, State.DISPATCHED})


def cancel(connection: Connection, ids: Iterable[int], why: str, now: datetime) -> list[Run]:
    """Cancel runs; return those that exist, as they were before.

    One that waits ends at once, under a higher fence. Of one that runs, its node is asked to end
    it; `why` becomes its message meanwhile. One that has ended stays as it is.
    """
    found = list(lock(connection, ids).values())
    ended = [
        replace(r, state=State.CANCELLED, reason="", fence=r.fence + 1, finished=now, message=why)
        for r in found
        if r.state in _UNSTARTED
    ]
    names = ("state", "reason", "fence", "finished", "message")
    rows = [(*(getattr(r, name) for name in names), now, None, r.id) for r in ended]
    update_many(connection, run, ("id",), (*names, "cancel_requested", "lease_until"), rows)
    slots.free(connection, (r.id for r in ended))  # of one that waits to retry, or in the queue
    asked = [(now, why, r.id) for r in found if r.state is State.RUNNING]
    update_many(connection, run, ("id",), ("cancel_requested", "message"), asked)
    return found


def requests(connection: Connection, ids: Iterable[int]) -> list[Run]:
    """Return those of these runs that somebody has cancelled, as they stand now."""
    rows = select_many(connection, run, ("id",), "id", ids, also="cancel_requested IS NOT NULL")
    asked = [id_ for (id_,) in rows]
    if not asked:
        return []
    return list(map(to_run, connection.execute(select(*columns()).where(run.c.id.in_(asked)))))


def free_slots(connection: Connection, strays: Iterable[tuple[int, int]]) -> None:
    """Give back the slots of these (run, fence) pairs, which have ended before.

    One that was tried again holds its slots under a higher fence, and keeps them.
    """
    rows = [{"the_run": id_, "the_fence": fence} for id_, fence in strays]
    if rows:
        connection.execute(
            delete(slot).where(
                slot.c.run_id == bindparam("the_run"), slot.c.fence == bindparam("the_fence")
            ),
            rows,
        )


def orphaned_slots(connection: Asked, lease_now: int, boot: str) -> set[tuple[int, int]]:
    """Return the (run, fence) that have ended and keep slots for a thread whose node is dead.

    Reads the slots that are taken, and run and node of each by its key. A run that waits to be
    tried again or in a queue keeps its slots too, and has not ended.
    """
    rows = connection.execute(_ORPHANED, {"lease_now": lease_now, "the_boot": boot})
    return {(row.run_id, row.fence) for row in rows}
