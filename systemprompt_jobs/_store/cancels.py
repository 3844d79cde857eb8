"""Statements that end runs early, and the slots of threads that outlived their runs."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from sqlalchemy import or_, select

from ..model import State
from ._bulk import delete_many, select_many, update_many
from .runs import lock
from .schema import HELD, node, run, slot

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from sqlalchemy import Connection

    from ..model import Run

_UNSTARTED = frozenset({State.PENDING, State.CLAIMED})


def cancel(connection: Connection, ids: Iterable[int], why: str, now: datetime) -> list[Run]:
    """Cancel runs; return those that exist, as they were before.

    One that waits ends at once, under a higher fence. Of one that runs, its node is asked to end
    it; `why` becomes its message meanwhile. One that has ended stays as it is.
    """
    found = list(lock(connection, ids).values())
    ended = [
        replace(r, state=State.CANCELLED, fence=r.fence + 1, finished=now, message=why)
        for r in found
        if r.state in _UNSTARTED
    ]
    columns = ("state", "fence", "finished", "message", "cancel_requested", "lease_until")
    rows = [(r.state, r.fence, r.finished, r.message, now, None, r.id) for r in ended]
    update_many(connection, run, ("id",), columns, rows)
    delete_many(connection, slot, "run_id", (r.id for r in ended))  # of one that waits to retry
    asked = [(now, why, r.id) for r in found if r.state is State.RUNNING]
    update_many(connection, run, ("id",), ("cancel_requested", "message"), asked)
    return found


def requests(connection: Connection, ids: Iterable[int]) -> list[tuple[int, int, str]]:
    """Return run, fence and why of those of these runs that were cancelled."""
    columns = ("id", "fence", "message", "cancel_requested")
    rows = select_many(connection, run, columns, "id", ids, "")
    return [(id_, fence, why) for id_, fence, why, asked in rows if asked is not None]


def free_slots(connection: Connection, ids: Iterable[int]) -> None:
    """Give back the slots of these runs, which have ended before."""
    delete_many(connection, slot, "run_id", ids)


def orphaned_slots(connection: Connection, lease_now: int, boot: str) -> set[int]:
    """Return the runs that have ended and keep a slot for a thread whose node is dead.

    Reads the slots that are taken, and run and node of each by its key.
    """
    open_ = or_(HELD, run.c.state == State.PENDING)
    dead = or_(
        node.c.id.is_(None),
        node.c.stopped.is_not(None),
        node.c.lease_until < lease_now,
        node.c.boot != boot,
    )
    slots = select(slot.c.run_id).join(run, run.c.id == slot.c.run_id)
    return set(
        connection.execute(
            slots.outerjoin(node, node.c.id == run.c.node).where(~open_, dead)
        ).scalars()
    )
