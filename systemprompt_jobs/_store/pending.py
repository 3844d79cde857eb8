"""Statements on runs that are `pending`: which a node may take, and which nobody took in time."""

from __future__ import annotations

import functools
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import Integer, and_, bindparam, case, func, or_, select, true

from ..model import State, Trigger, changed
from . import slots
from ._bulk import chunks, update_many
from .runs import columns, end_runs, to_run, waits_for_pause
from .schema import HELD, PENDING, Instant, run
from .schema import job_set as job_set_table
from .slots import Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from sqlalchemy import ColumnElement, Connection, Select

    from ..model import Run
    from .runs import When

IN_TURN = "catch-up"
"""The reason of a pending tick that waits until the ones before it have ended."""

_SLOTS, _CHOSEN = "slots", "ids"
"""Which pending runs to read: those that wait for a slot, and those that are named."""

_MOST_WAITING = 1000
"""Of a pool's runs whose slot is free, or whose turn may have come, so many are looked at."""


def take_pending(
    connection: Connection,
    job_set: str,
    pools: Mapping[str, str],
    node_id: str,
    now: datetime,
    lease_until: int,
    room: Mapping[str, int],
) -> list[Run]:
    """Claim pending runs of a job set, oldest first, at most `room` for each pool.

    `pools` names the pool of each job that this node runs; a run is from then on in that one.

    Those that wait for a slot are left alone until it is free, those that wait for their turn
    until it has come. Uses the partial index `jobs_run_pending`, which holds pending runs only,
    and the primary key of `jobs_job_set`.
    """
    values = {"the_time": now, "the_set": job_set}
    free: list[Run] = []
    waiting: list[Run] = []
    kinds = _kinds_of_pending(connection, now)
    for where, limit in _shares(room):
        found = {kind for pool, kind in kinds if _is_of(pool, where)}
        if "" in found:
            free += _oldest(connection, where, values | {"most": limit})
        if _SLOTS in found:
            waiting += _pending(connection, _SLOTS, where, values | {"most": _MOST_WAITING})
    waiting.sort(key=lambda r: (r.due or now, r.id))  # pools may share a limit
    if any(kind == IN_TURN for _, kind in kinds):
        waiting += _next_in_turn(connection, values | {"most": _MOST_WAITING})
    claims = slots.assign(waiting, slots.read(connection, waiting))
    kept_out = {claim.run.id for claim in claims if claim.verdict is not Verdict.START}
    due = [*free, *(r for r in waiting if r.id not in kept_out)]
    due.sort(key=lambda r: (r.due or now, r.id))
    taken = _at_most(room, [changed(r, pool=pools.get(r.job_id, "")) for r in due])
    rows = [(State.CLAIMED, node_id, lease_until, r.pool, r.id) for r in taken]
    update_many(connection, run, ("id",), ("state", "node", "lease_until", "pool"), rows)
    return [changed(r, state=State.CLAIMED, node=node_id) for r in taken]


def _kinds_of_pending(connection: Connection, now: datetime) -> list[tuple[str, str]]:
    """Return for which pools something is pending, and whether it waits for more than a node.

    Each further statement reads all that is pending, so those that would find nothing are saved.
    """
    kind = case((run.c.reason.in_(("", IN_TURN)), run.c.reason), else_=_SLOTS)
    pending = select(run.c.pool, kind).where(PENDING, run.c.available_at <= now).distinct()
    return [(pool, kind) for pool, kind in connection.execute(pending)]


def _is_of(pool: str, where: Mapping[str, Any]) -> bool:
    return pool == where["pool"] if "pool" in where else pool not in where["others"]


def _oldest(
    connection: Connection, where: Mapping[str, Any], values: Mapping[str, Any]
) -> list[Run]:
    """Return runs that wait for nothing but a node: what costs most is asked of the oldest only.

    Where some of those are not for this node, or their job is paused, it is asked of all.
    """
    ids = list(connection.execute(_oldest_statement(*where), {**where, **values}).scalars())
    found = [
        one
        for some in chunks(ids)
        for one in _pending(connection, _CHOSEN, {}, {**values, "ids": some})
    ]
    if len(found) < len(ids) == values["most"]:
        return _pending(connection, "", where, values)
    return found


@functools.cache
def _oldest_statement(where: str) -> Select[Any]:
    now = bindparam("the_time", type_=Instant)
    return (
        select(run.c.id)
        .where(PENDING, run.c.available_at <= now, ~_outdated(now), run.c.reason == "")
        .where(_of_pool(where))
        .order_by(run.c.available_at, run.c.id)
        .limit(bindparam("most", type_=Integer))
        .with_for_update(skip_locked=True)
    )


def _of_pool(where: str) -> ColumnElement[bool]:
    if where == "pool":
        return run.c.pool == bindparam("pool")
    return run.c.pool.not_in(bindparam("others", expanding=True))


def _pending(
    connection: Connection, reason: str, where: Mapping[str, Any], values: Mapping[str, Any]
) -> list[Run]:
    rows = connection.execute(_pending_statement(reason, *where), {**where, **values})
    return [to_run(row) for row in rows]


@functools.cache
def _pending_statement(reason: str, where: str = "") -> Select[Any]:
    """Build it once: that costs more than to ask the database."""
    now = bindparam("the_time", type_=Instant)
    firsts = select(func.min(run.c.id)).where(PENDING, run.c.reason == IN_TURN)
    due = and_(PENDING, run.c.available_at <= now, ~_outdated(now))
    chosen = {
        "": and_(due, run.c.reason == ""),
        _CHOSEN: run.c.id.in_(bindparam("ids", expanding=True)),  # and locked; by the primary key
        _SLOTS: and_(due, run.c.reason.not_in(("", IN_TURN)), ~slots.taken()),
        IN_TURN: and_(due, run.c.id.in_(firsts.group_by(run.c.job_id))),
    }
    return (
        select(*columns())
        .where(
            chosen[reason],
            ~waits_for_pause(now),
            _in_set(bindparam("the_set")),
            _of_pool(where) if where else true(),
        )
        .order_by(run.c.available_at, run.c.id)
        .limit(bindparam("most", type_=Integer))
        .with_for_update(of=run, skip_locked=True)
    )


def _next_in_turn(connection: Connection, values: Mapping[str, Any]) -> list[Run]:
    """Return the first of each job's runs that wait for their turn, if nothing is before it."""
    first = {r.job_id: r for r in _pending(connection, IN_TURN, {}, values)}
    if not first:
        return []
    others = connection.execute(
        select(run.c.job_id, func.min(run.c.tick_at))
        .where(
            or_(HELD, and_(PENDING, run.c.reason != IN_TURN)),
            run.c.trigger == Trigger.SCHEDULE,
            run.c.job_id.in_([*first]),
        )
        .group_by(run.c.job_id)
    )
    open_ = {job_id: tick for job_id, tick in others}  # noqa: C416  # rows are no pairs to mypy
    return [r for id_, r in first.items() if id_ not in open_ or open_[id_] > r.tick]


def _shares(room: Mapping[str, int]) -> list[tuple[Mapping[str, Any], int]]:
    """Return what to read for each pool with room, so that none hides what waits for another.

    Last come runs in a pool that only the node which made them has.
    """
    shares = [({"pool": pool}, free) for pool, free in room.items() if free > 0]
    return [*shares, ({"others": [*room]}, sum(free for _, free in shares))]


def _at_most(room: Mapping[str, int], runs: Iterable[Run]) -> list[Run]:
    left, taken = Counter(room), []
    for r in runs:
        if left[r.pool] > 0:
            left[r.pool] -= 1
            taken.append(r)
    return taken


def waits_for_node(job_set: When[str], now: When[datetime]) -> Select[tuple[int]]:
    """Select the runs of a job set that wait for a node, and for nothing else."""
    waiting = (PENDING, run.c.available_at <= now, ~waits_for_pause(now), _in_set(job_set))
    return select(run.c.id).where(*waiting)


def _in_set(digest: When[str]) -> ColumnElement[bool]:
    named = and_(job_set_table.c.hash == digest, job_set_table.c.job_id == run.c.job_id)
    # With an offset PostgreSQL looks each run up, and does not read a whole set to join it.
    return select(job_set_table.c.hash).where(named).offset(0).exists()


def _outdated(now: When[datetime]) -> ColumnElement[bool]:
    """Pending for longer than the job's catch-up window."""
    return and_(run.c.available_until.is_not(None), run.c.available_until < now)


def give_up_pending(connection: Connection, now: datetime) -> list[Run]:
    """End the runs that waited for a node until their catch-up window was over; return them.

    Ticks are `missed`, others `cancelled`; those that waited to be tried again have `failed`.
    Uses the partial index `jobs_run_pending`.
    """
    rows = connection.execute(_given_up_statement(), {"the_time": now})
    message = "no node took it within its catchup_window"
    ended = [
        replace(
            found,
            state=_given_up(found),
            finished=now,
            message=message,
        )
        for found in map(to_run, rows)
    ]
    end_runs(connection, ended)
    return ended


@functools.cache
def _given_up_statement() -> Select[Any]:
    outdated = _outdated(bindparam("the_time", type_=Instant))
    chosen = select(*columns()).where(PENDING, outdated)
    return chosen.with_for_update(skip_locked=True)


def _given_up(r: Run) -> State:
    if r.attempt:
        return State.FAILED
    return State.MISSED if r.trigger is Trigger.SCHEDULE else State.CANCELLED
