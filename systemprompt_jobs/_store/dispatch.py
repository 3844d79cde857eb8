"""Statements on runs that are on their way to a worker: sent, taken there, or handed back."""

from __future__ import annotations

import zlib
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import bindparam, func, select

from ..model import Run, State, changed
from . import slots
from ._bulk import update_many
from .runs import UNSTARTED, by_id, columns, lock_holdings, to_run
from .schema import HELD, run

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import Connection

    from ._questions import Asked
    from .runs import Holding

_LONGEST_S = 3600.0
_LONGEST_PAUSE_S = 60.0
_DOUBLINGS = 20

_UNDER_WAY = (
    select(run.c.pool, func.count().label("number"))
    .where(HELD, run.c.state == State.DISPATCHED)
    .group_by(run.c.pool)
)

_ENDED = select(*columns()).where(
    run.c.id.in_(bindparam("ids", expanding=True)), run.c.finished.is_not(None)
)


class Refusal(NamedTuple):
    """A run that cannot be run where it was to be: a word for it, and a sentence."""

    run: Run
    reason: str
    message: str


def dispatch(
    connection: Connection,
    runs: Sequence[Run],
    lease_now: int,
    deadlines: Mapping[str, float],
    held: Mapping[int, Holding] | None = None,
) -> list[Run]:
    """Say of runs that this node has claimed that they are being sent; return them.

    Until its deadline nobody renews the lease of such a run; then it is rescued, and sent again.
    `deadlines` are seconds by pool. One that this node has dispatched under this fence before is
    returned too: its commit was not answered, so it was not sent.
    """
    if not runs:
        return []
    found = lock_holdings(connection, (r.id for r in runs)) if held is None else held
    mine = [
        r for r in runs if r.id in found and found[r.id].state in UNSTARTED and found[r.id].is_as(r)
    ]
    rows = [
        (State.DISPATCHED, "", "", lease_now + _deadline(r, deadlines[r.pool]), r.id) for r in mine
    ]
    update_many(connection, run, ("id",), ("state", "reason", "message", "lease_until"), rows)
    return [changed(r, state=State.DISPATCHED, reason="", message="") for r in mine]


def _deadline(r: Run, seconds: float) -> int:
    """Return the microseconds that a run may be under way: doubled for each time it came back."""
    return int(min(_doubled(seconds, r), max(seconds, _LONGEST_S)) * 1_000_000)


def _doubled(seconds: float, r: Run) -> float:
    """Return `seconds`, doubled for each claim of the run that no attempt came of."""
    doubled: float = seconds * 2 ** max(0, min(r.fence - 1 - r.attempt, _DOUBLINGS))
    return doubled


def _pause(r: Run) -> timedelta:
    """Return how long a run waits that was handed back, up to half of it left out.

    Workers ask some brokers once a second in turn: after whole seconds it would be the same one's.
    """
    part = 1 - zlib.crc32(f"{r.id}:{r.fence}".encode()) / 2**33
    return timedelta(seconds=min(_doubled(1.0, r), _LONGEST_PAUSE_S) * part)


def dispatched(connection: Connection, wanted: Collection[tuple[int, int]]) -> list[Run]:
    """Return those of these (run, fence) pairs that were sent and that no worker has begun."""
    found = by_id(connection, {id_ for id_, _ in wanted})
    return [r for r in found if r.state is State.DISPATCHED and (r.id, r.fence) in wanted]


def hand_back(
    connection: Connection,
    refused: Sequence[Refusal],
    now: datetime,
    held: Mapping[int, Holding] | None = None,
) -> list[Run]:
    """Make runs pending again that were to be sent, or were sent where nobody can run them.

    Each waits up to a second first, and twice as long each further time, up to a minute; its
    message says why. One that is not held under its fence any more is left out.
    """
    if not refused:
        return []
    found = lock_holdings(connection, (r.id for r, *_ in refused)) if held is None else held
    back = [
        replace(
            r,
            state=State.PENDING,
            reason=reason,
            message=message,
            fence=r.fence + 1,
            node="",
            due=now + _pause(r),
        )
        for r, reason, message in refused
        if r.id in found and found[r.id].state in UNSTARTED and found[r.id].fence == r.fence
    ]
    names = ("state", "reason", "message", "fence", "node", "due")
    rows = [(*(getattr(r, name) for name in names), None, r.id) for r in back]
    update_many(connection, run, ("id",), (*names[:-1], "available_at", "lease_until"), rows)
    slots.follow(connection, [r.id for r in back])
    return back


def under_way(connection: Asked) -> dict[str, int]:
    """Return how many runs of each pool wait for a worker. Uses the partial index of held runs."""
    return {row.pool: row.number for row in connection.execute(_UNDER_WAY, {})}


def ended(connection: Connection, ids: Iterable[int]) -> list[Run]:
    """Return those of these runs that have ended."""
    return list(map(to_run, connection.execute(_ENDED, {"ids": [*ids]})))
