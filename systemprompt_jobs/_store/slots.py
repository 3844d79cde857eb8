"""Slots: who runs a job that must not overlap, and who runs under a limit.

`(overlap:job, 0)` belongs to the run that goes on or waits to be tried again, `(overlap:job, 1)`
to the one that waits behind it (`overlap: queue`); `(concurrency:key, n)` with 0 <= n < limit to
those that run under a limit. A row names its run and the run's fence. Rows change only together
with their run, in a transaction that has locked it.
"""

from __future__ import annotations

from collections import defaultdict
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from sqlalchemy import and_, bindparam, delete, exists, false, func, literal, or_, select, update

from ..model import Overlap
from ._bulk import delete_many, insert_many, is_sqlite, select_many
from .schema import run, slot

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import ColumnElement, Connection

    from ..model import Run

Held: TypeAlias = dict[str, dict[int, int]]
"""Key → n → the id of the run that has the slot."""


class Verdict(Enum):
    """What the slots say to a run at the gate."""

    START = "start"
    SKIP = "skip"
    WAIT_OVERLAP = "overlap"
    WAIT_CONCURRENCY = "concurrency"


class Claim(NamedTuple):
    """A run, what becomes of it, and the slots it takes and gives back for that."""

    run: Run
    verdict: Verdict
    takes: tuple[tuple[str, int], ...] = ()
    leaves: tuple[tuple[str, int], ...] = ()


def take(connection: Connection, runs: Sequence[Run]) -> dict[int, Verdict]:
    """Decide for each of these locked runs, first come first served, and take its slots.

    Where another node was faster to a slot, it is decided again on what is there then; a
    database with one writer at a time needs no second look.
    """
    verdicts: dict[int, Verdict] = {}
    left = [r for r in runs if _keys(r)]
    while left:
        claims = assign(left, read(connection, left))
        wanted = {(key, n, c.run.id, c.run.fence) for c in claims for key, n in c.takes}
        _leave(connection, claims)
        # In one order for all, against deadlocks.
        insert_many(connection, slot, ("key", "n", "run_id", "fence"), sorted(wanted))
        owned = wanted if is_sqlite(connection) else _owned(connection, wanted)
        missing = {run_id for _, _, run_id, _ in wanted - owned}
        verdicts |= {c.run.id: c.verdict for c in claims if c.run.id not in missing}
        left = [c.run for c in claims if c.run.id in missing]
    return verdicts


def read(connection: Connection, runs: Iterable[Run]) -> Held:
    """Return who has the slots that these runs need. Uses the primary key."""
    held: Held = defaultdict(dict)
    keys = {key for r in runs for key in _keys(r)}
    for key, n, run_id in select_many(connection, slot, ("key", "n", "run_id"), "key", keys):
        held[key][n] = run_id
    return held


def taken() -> ColumnElement[bool]:
    """Select those of the runs that wait for a slot which still wait in vain.

    Said to the database, so that a thousand that wait for one slot hide nobody who waits for
    another. Uses the primary key.
    """
    in_its_way = exists().where(slot.c.key == literal("overlap:") + run.c.job_id, slot.c.n == 0)
    key, limit = (run.c.policy["concurrency", name] for name in ("key", "limit"))
    holders = select(func.count()).where(
        slot.c.key == literal("concurrency:") + key.as_string(), slot.c.run_id != run.c.id
    )
    full = func.coalesce(holders.scalar_subquery() >= limit.as_integer(), false())
    return or_(and_(run.c.reason == Verdict.WAIT_OVERLAP.value, in_its_way), full)


def assign(runs: Iterable[Run], held: Held) -> list[Claim]:
    """Decide for each run in turn; `held` is brought up to date on the way. Pure.

    A run takes its overlap slot first and keeps it while it waits under a limit, so that later
    ones of its job do not pile up. Who has a slot already goes on with it.
    """
    return [_assign(r, held) for r in runs]


def _assign(r: Run, held: Held) -> Claim:
    if r.overlap is Overlap.ALLOW:
        claim = Claim(r, Verdict.START)
    else:
        key = _overlap_key(r)
        claim = _overlap(r, key, held[key])
    limited = r.policy and r.policy.get("concurrency")
    if limited and claim.verdict is Verdict.START:
        claim = _concurrency(claim, held[_limit_key(r)], limited["limit"])
    for key, n in claim.leaves:
        del held[key][n]
    for key, n in claim.takes:
        held[key][n] = r.id
    return claim


def _overlap(r: Run, key: str, holders: dict[int, int]) -> Claim:
    current, waiting = holders.get(0), holders.get(1)
    if current == r.id:
        return Claim(r, Verdict.START)
    first_in_line = waiting in {None, r.id}
    if current is None and (first_in_line or r.overlap is Overlap.SKIP):
        leaves = ((key, 1),) if waiting == r.id else ()
        return Claim(r, Verdict.START, ((key, 0),), leaves)
    if first_in_line and r.overlap is Overlap.QUEUE:
        takes = () if waiting == r.id else ((key, 1),)
        return Claim(r, Verdict.WAIT_OVERLAP, takes)
    waits = (r.policy or {}).get("waits")  # of a backfill: as many as there are, in turn
    return Claim(r, Verdict.WAIT_OVERLAP if waits else Verdict.SKIP)


def _concurrency(claim: Claim, holders: dict[int, int], limit: int) -> Claim:
    if claim.run.id in holders.values():
        return claim
    free = next((n for n in range(limit) if n not in holders), None)
    if free is None or len(holders) >= limit:  # others may hold higher ones: a limit was lowered
        return claim._replace(verdict=Verdict.WAIT_CONCURRENCY)
    return claim._replace(takes=(*claim.takes, (_limit_key(claim.run), free)))


def _leave(connection: Connection, claims: Iterable[Claim]) -> None:
    rows = [
        {"the_key": key, "the_n": n, "the_run": c.run.id} for c in claims for key, n in c.leaves
    ]
    if rows:
        connection.execute(
            delete(slot).where(
                slot.c.key == bindparam("the_key"),
                slot.c.n == bindparam("the_n"),
                slot.c.run_id == bindparam("the_run"),
            ),
            rows,
        )


def _owned(
    connection: Connection, wanted: Iterable[tuple[str, int, int, int]]
) -> set[tuple[str, int, int, int]]:
    ids = {run_id for _, _, run_id, _ in wanted}
    columns = ("key", "n", "run_id", "fence")
    rows = select_many(connection, slot, columns, "run_id", ids)
    return {(key, n, run_id, fence) for key, n, run_id, fence in rows}


def follow(connection: Connection, run_ids: Sequence[int]) -> None:
    """Let the slots of these runs bear the fences that the runs have now."""
    if run_ids:
        fence = select(run.c.fence).where(run.c.id == slot.c.run_id).scalar_subquery()
        connection.execute(update(slot).where(slot.c.run_id.in_(run_ids)).values(fence=fence))


def free(connection: Connection, run_ids: Iterable[int]) -> None:
    """Give back all slots of these runs. Uses the index `jobs_slot_run`."""
    delete_many(connection, slot, "run_id", run_ids)


def _keys(r: Run) -> list[str]:
    keys = [] if r.overlap is Overlap.ALLOW else [_overlap_key(r)]
    if r.policy and r.policy.get("concurrency"):
        keys.append(_limit_key(r))
    return keys


def _overlap_key(r: Run) -> str:
    return f"overlap:{r.job_id}"


def _limit_key(r: Run) -> str:
    return f"concurrency:{r.policy['concurrency']['key']}" if r.policy else ""
