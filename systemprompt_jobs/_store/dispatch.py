"""Statements on runs that are on their way to a worker: sent, taken there, or handed back."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import func, select

from ..model import Run, State
from . import slots
from ._bulk import select_many, update_many
from .runs import columns, to_run
from .schema import HELD, run

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import Connection

    from ._questions import Asked

_LONGEST_S = 3600.0
_LONGEST_PAUSE_S = 60.0
_DOUBLINGS = 20

_CHUNK = 500


_UNDER_WAY = (
    select(run.c.pool, func.count().label("number"))
    .where(HELD, run.c.state == State.DISPATCHED)
    .group_by(run.c.pool)
)


class Refusal(NamedTuple):
    """A run that cannot be run where it was to be: a word for it, and a sentence."""

    run: Run
    reason: str
    message: str


def dispatch(
    connection: Connection, runs: Sequence[Run], lease_now: int, deadlines: Mapping[str, float]
) -> list[Run]:
    """Say of runs that this node has claimed that they are being sent; return them.

    Until its deadline nobody renews the lease of such a run; then it is rescued, and sent again.
    `deadlines` are seconds by pool. One that this node has dispatched under this fence before is
    returned too: its commit was not answered, so it was not sent.
    """
    if not runs:
        return []
    found = _holdings(connection, (r.id for r in runs))
    before = (State.CLAIMED, State.DISPATCHED)
    mine = [r for r in runs if found.get(r.id) in [(state, r.fence, r.node) for state in before]]
    rows = [
        (State.DISPATCHED, "", "", lease_now + _deadline(r, deadlines[r.pool]), r.id) for r in mine
    ]
    update_many(connection, run, ("id",), ("state", "reason", "message", "lease_until"), rows)
    return [replace(r, state=State.DISPATCHED, reason="", message="") for r in mine]


def _deadline(r: Run, seconds: float) -> int:
    """Return the microseconds that a run may be under way: doubled for each time it came back."""
    return int(min(_doubled(seconds, r), max(seconds, _LONGEST_S)) * 1_000_000)


def _doubled(seconds: float, r: Run) -> float:
    """Return `seconds`, doubled for each claim of the run that no attempt came of."""
    doubled: float = seconds * 2 ** max(0, min(r.fence - 1 - r.attempt, _DOUBLINGS))
    return doubled


def dispatched(connection: Connection, wanted: Collection[tuple[int, int]]) -> list[Run]:
    """Return those of these (run, fence) pairs that were sent and that no worker has begun."""
    ids = sorted({id_ for id_, _ in wanted})
    found = [
        to_run(row)
        for start in range(0, len(ids), _CHUNK)
        for row in connection.execute(
            select(*columns()).where(run.c.id.in_(ids[start : start + _CHUNK]))
        )
    ]
    return [r for r in found if r.state is State.DISPATCHED and (r.id, r.fence) in wanted]


def hand_back(connection: Connection, refused: Sequence[Refusal], now: datetime) -> list[Run]:
    """Make runs pending again that were to be sent, or were sent where nobody can run them.

    Each waits a second first, and twice as long each further time, up to a minute; its message
    says why. One that is not held under its fence any more is left out.
    """
    if not refused:
        return []
    found = _holdings(connection, (refusal.run.id for refusal in refused))
    back = [
        replace(
            r,
            state=State.PENDING,
            reason=reason,
            message=message,
            fence=r.fence + 1,
            node="",
            due=now + timedelta(seconds=min(_doubled(1.0, r), _LONGEST_PAUSE_S)),
        )
        for r, reason, message in refused
        if r.id in found
        and found[r.id][0] in {State.CLAIMED, State.DISPATCHED}
        and found[r.id][1] == r.fence
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
    rows = connection.execute(
        select(*columns()).where(run.c.id.in_([*ids]), run.c.finished.is_not(None))
    )
    return list(map(to_run, rows))


def _holdings(connection: Connection, ids: Iterable[int]) -> dict[int, tuple[str, int, str]]:
    names = ("id", "state", "fence", "node")
    rows = select_many(connection, run, names, "id", ids, "FOR UPDATE")
    return {id_: (state, fence, node) for id_, state, fence, node in rows}
