"""Statements on runs: insert, gate, finish, hold, rescue. Each takes the caller's transaction.

Every change of a held run names its fence, so that whoever holds an old one changes nothing.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import and_, bindparam, func, literal, or_, select, update

from ..model import Overlap, Report, Run, State, Trigger
from . import said
from ._bulk import delete_many, insert_many, insert_returning, select_many, update_many
from .schema import HELD, Instant, attempt, node, run, slot

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from collections.abc import Set as AbstractSet
    from datetime import datetime

    from sqlalchemy import ColumnElement, Connection, Row

_RUN_COLUMNS = (
    run.c.id,
    run.c.job_id,
    run.c.trigger,
    run.c.state,
    run.c.tick_at,
    run.c.available_at,
    run.c.last_tick,
    run.c.count,
    run.c.reason,
    run.c.attempt,
    run.c.fence,
    run.c.node,
    run.c.parameters,
    run.c.enforce,
    run.c.overlap,
    run.c.distribution,
    run.c.version,
    run.c.created,
    run.c.started,
    run.c.finished,
    run.c.message,
    run.c.processed,
    run.c.failed,
    run.c.error,
    run.c.pool,
    run.c.parent,
    run.c.progress,
)


_CHUNK = 500
"""Ids per statement: far below SQLite's limit of 32,766 variables."""

_REPORTED = ("started", "finished", "outcome", "message", "error", "traceback")

_RUN_FIELDS = tuple(field.name for field in fields(Run))


def columns() -> tuple[Any, ...]:
    """Return the columns that `to_run` reads, in its order."""
    return _RUN_COLUMNS


def to_run(row: Row[*tuple[Any, ...]]) -> Run:
    """Return the value of a row of `columns()`."""
    values = dict(zip(_RUN_FIELDS, row, strict=True))
    for name, kind in (("trigger", Trigger), ("state", State), ("overlap", Overlap)):
        values[name] = kind(values[name])
    values["progress"] = said.to_progress(values["progress"], values["fence"])
    return Run(**values)


def add(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> list[Run]:
    """Insert runs; one whose (job, dedup key) exists already is left out of the result.

    Uses the unique index `jobs_run_once`.
    """
    if not rows:
        return []
    names = tuple(rows[0])
    by_key = {(row["job_id"], row["dedup_key"]): row for row in rows}
    values = [tuple(row.values()) for row in rows]
    added = insert_returning(connection, run, names, values, ("id", "job_id", "dedup_key"))
    known = [(f, c.name) for f, c in zip(_RUN_FIELDS, _RUN_COLUMNS, strict=True) if c.name in names]
    return [
        Run(id=id_, **{field: row[column] for field, column in known})
        for id_, *key in added
        for row in [by_key[tuple(key)]]
    ]


def lock(connection: Connection, ids: Iterable[int]) -> dict[int, Run]:
    """Read these runs, locked until the transaction ends."""
    wanted = sorted(_lock_holdings(connection, ids))
    return {
        row.id: to_run(row)
        for start in range(0, len(wanted), _CHUNK)
        for row in connection.execute(
            select(*_RUN_COLUMNS).where(run.c.id.in_(wanted[start : start + _CHUNK]))
        )
    }


class _Holding(NamedTuple):
    """Who holds a run, and in what state it is."""

    state: str
    fence: int
    node: str


def _lock_holdings(connection: Connection, ids: Iterable[int]) -> dict[int, _Holding]:
    """Read who holds these runs, locked until the transaction ends."""
    columns = ("id", *_Holding._fields)
    rows = select_many(connection, run, columns, "id", ids, "FOR UPDATE")
    return {id_: _Holding(*rest) for id_, *rest in rows}


def gate(
    connection: Connection,
    runs: Sequence[Run],
    now: datetime,
    lease_until: int,
    doubted: AbstractSet[int] = frozenset(),
) -> tuple[list[Run], list[Run]]:
    """Let runs that this node has claimed start: (started, skipped for overlap).

    A run that is no longer claimed by this node under this fence is in neither list. The
    attempt is recorded and the slot taken in the same transaction. `doubted` are runs whose
    gate was sent before and never answered: what is on record is read back for them.
    """
    found = _lock_holdings(connection, (wanted.id for wanted in runs))
    mine = [
        wanted
        for wanted in runs
        if wanted.id in found
        and found[wanted.id].state == State.CLAIMED
        and found[wanted.id].fence == wanted.fence
    ]
    done = _gated_before(connection, [r for r in runs if r.id in doubted], found)
    taken = _take_slots(connection, [r for r in mine if r.overlap is Overlap.SKIP])
    started = [
        replace(r, state=State.RUNNING, attempt=r.attempt + 1, started=now)
        for r in mine
        if r.overlap is not Overlap.SKIP or r.id in taken
    ]
    skipped = [
        replace(r, state=State.SKIPPED, reason="overlap", finished=now)
        for r in mine
        if r.overlap is Overlap.SKIP and r.id not in taken
    ]
    _write(connection, started, lease_until=lease_until)
    _write(connection, skipped, lease_until=None)
    insert_many(
        connection,
        attempt,
        ("run_id", "fence", "number", "node", "started"),
        [(r.id, r.fence, r.attempt, r.node, now) for r in started],
    )
    started += [r for r in done if r.state is State.RUNNING]
    skipped += [r for r in done if r.state is State.SKIPPED]
    return started, skipped


def _gated_before(
    connection: Connection, runs: Sequence[Run], found: Mapping[int, _Holding]
) -> list[Run]:
    """Return those of these runs that this node has gated under the fence it holds."""
    ours = [
        r.id
        for r in runs
        if r.id in found
        and found[r.id].state in {State.RUNNING, State.SKIPPED}
        and found[r.id][1:] == (r.fence, r.node)
    ]
    return list(lock(connection, ours).values()) if ours else []


def claimed_by(connection: Connection, node_id: str) -> list[Run]:
    """Return the ticks that a node has claimed and not started, locked.

    Uses the partial index `jobs_run_held`.
    """
    rows = connection.execute(
        select(*_RUN_COLUMNS)
        .where(
            HELD,
            run.c.state == State.CLAIMED,
            run.c.node == node_id,
            run.c.trigger == Trigger.SCHEDULE,
        )
        .order_by(run.c.id)
        .with_for_update()
    )
    return list(map(to_run, rows))


def _take_slots(connection: Connection, runs: Sequence[Run]) -> set[int]:
    if not runs:
        return set()
    rows = [(f"overlap:{r.job_id}", 0, r.id, r.fence) for r in runs]
    rows.sort()  # one order for all, against deadlocks
    insert_many(connection, slot, ("key", "n", "run_id", "fence"), rows)
    taken = select_many(connection, slot, ("run_id",), "run_id", (r.id for r in runs), "")
    return {run_id for (run_id,) in taken}


def _write(connection: Connection, runs: Sequence[Run], *, lease_until: int | None) -> None:
    update_many(
        connection,
        run,
        ("id",),
        ("state", "reason", "attempt", "started", "finished", "lease_until"),
        [(r.state, r.reason, r.attempt, r.started, r.finished, lease_until, r.id) for r in runs],
    )


def finish(
    connection: Connection,
    reports: Sequence[tuple[Run, Report]],
    doubted: AbstractSet[int] = frozenset(),
) -> list[Run]:
    """Record what attempts ended in and give their slots back; return the ended runs.

    A report for a run that is no longer running under the report's fence is left out: it came
    too late. `doubted` are runs whose finish was sent before and never answered: one that is on
    record has ended.
    """
    found = _lock_holdings(connection, (r.id for r, _ in reports))
    first = {(r.id, r.fence): report for r, report in reversed(reports)}
    ended = [
        (_ended(r, report), report)
        for r, report in reports
        if r.id in found
        and found[r.id].state == State.RUNNING
        and found[r.id].fence == r.fence
        and report is first[r.id, r.fence]
    ]
    _end(connection, ended)
    recorded = [
        _ended(r, report)
        for r, report in reports
        if r.id in doubted
        and r.id in found
        and found[r.id] == (report.outcome, r.fence, r.node)
        and report is first[r.id, r.fence]
    ]
    return [r for r, _ in ended] + recorded


def _end(connection: Connection, ended: Sequence[tuple[Run, Report]]) -> None:
    delete_many(connection, slot, "run_id", (r.id for r, _ in ended))
    _end_runs(connection, [r for r, _ in ended])
    update_many(
        connection,
        attempt,
        ("run_id", "fence"),
        _REPORTED,
        [(*(getattr(report, name) for name in _REPORTED), r.id, r.fence) for r, report in ended],
    )
    said.keep(connection, ended)


def _end_runs(connection: Connection, ended: Sequence[Run]) -> None:
    columns = ("state", "started", "finished", "message", "processed", "failed", "error")
    rows = [(*(getattr(r, name) for name in columns), None, r.id) for r in ended]
    update_many(connection, run, ("id",), (*columns, "lease_until"), rows)


def _ended(value: Run, report: Report) -> Run:
    return replace(
        value,
        state=report.outcome,
        started=report.started,
        finished=report.finished,
        message=report.message,
        processed=report.processed,
        failed=report.failed,
        error=report.error,
        progress=report.progress,
    )


def renew(connection: Connection, held: Sequence[tuple[int, int]], lease_until: int) -> None:
    """Renew the leases of these (run, fence) pairs, and of no others."""
    ids = [id_ for id_, _ in held]
    select_many(connection, run, ("id",), "id", ids, "FOR UPDATE")  # in the order of all others
    rows = [(lease_until, id_, fence) for id_, fence in held]
    update_many(connection, run, ("id", "fence"), ("lease_until",), rows, also=HELD.text)


def give_back(connection: Connection, runs: Sequence[tuple[int, int]], now: datetime) -> None:
    """Make claimed runs pending again under a higher fence: any node may take them."""
    if runs:
        connection.execute(
            update(run)
            .where(
                run.c.id == bindparam("key"),
                run.c.fence == bindparam("key_fence"),
                run.c.state == State.CLAIMED,
            )
            .values(
                state=State.PENDING,
                fence=run.c.fence + 1,
                node="",
                lease_until=None,
                available_at=func.coalesce(run.c.available_at, literal(now, Instant)),
            ),
            [{"key": id_, "key_fence": fence} for id_, fence in runs],
        )


def cancel_unstarted(connection: Connection, runs: Iterable[Run], now: datetime) -> list[Run]:
    """End claimed runs that belong to a node which stops before it could start them."""
    ended = [
        replace(r, state=State.CANCELLED, finished=now, message="its node stopped before it began")
        for r in runs
    ]
    _end_runs(connection, ended)
    return ended


def take_pending(
    connection: Connection,
    pools: Mapping[str, str],
    node_id: str,
    now: datetime,
    lease_until: int,
    room: Mapping[str, int],
) -> list[Run]:
    """Claim pending runs, oldest first, at most `room` for each pool.

    `pools` names the pool of each job that this node runs.

    Uses the partial index `jobs_run_pending`, which holds pending runs only.
    """
    left = Counter(room)
    taken = []
    rows = connection.execute(
        select(*_RUN_COLUMNS)
        .where(run.c.state == State.PENDING, run.c.available_at <= now, ~_outdated(now))
        .order_by(run.c.available_at, run.c.id)
        .with_for_update(skip_locked=True)
    )
    for row in rows:
        pool = pools.get(row.job_id, "")
        if left[pool] > 0:
            left[pool] -= 1
            taken.append(replace(to_run(row), state=State.CLAIMED, node=node_id, pool=pool))
    if taken:
        connection.execute(
            update(run)
            .where(run.c.id == bindparam("key"))
            .values(
                state=State.CLAIMED, node=node_id, lease_until=lease_until, pool=bindparam("to")
            ),
            [{"key": r.id, "to": r.pool} for r in taken],
        )
    return taken


def expired(connection: Connection, lease_now: int, boot: str) -> list[tuple[int, int, int]]:
    """Return (run, fence, lease) of held runs whose lease has run out.

    A lease counts in the monotonic microseconds of one boot of the host, so one from another
    boot has run out. Uses the partial index `jobs_run_held`.
    """
    held = select(run.c.id, run.c.fence, run.c.lease_until).outerjoin(node, node.c.id == run.c.node)
    return [
        (row.id, row.fence, row.lease_until)
        for row in connection.execute(
            held.where(
                HELD,
                or_(
                    run.c.lease_until < lease_now,
                    and_(node.c.boot.is_not(None), node.c.boot != boot),
                ),
            )
        )
    ]


def rescue(
    connection: Connection, suspects: Iterable[tuple[int, int, int]], now: datetime
) -> list[Run]:
    """Settle runs whose holder is dead; return those that are `lost`.

    One that never started goes back to `pending` at no cost, unless it was a start-up run,
    which belongs to its node alone; one that was running is `lost`.
    """
    columns, ids = ("id", "fence", "lease_until"), [id_ for id_, _, _ in suspects]
    # A holder may have renewed its lease while this transaction waited for the lock.
    unchanged = set(select_many(connection, run, columns, "id", ids, "FOR UPDATE"))
    dead = list(lock(connection, [id_ for id_, _, _ in unchanged & set(suspects)]).values())
    unstarted = [r for r in dead if r.state is State.CLAIMED and r.trigger is not Trigger.STARTUP]
    give_back(connection, [(r.id, r.fence) for r in unstarted], now)
    lost = [
        replace(r, state=State.LOST, finished=now, error="its node died or was cut off")
        for r in dead
        if r not in unstarted and r.state in {State.CLAIMED, State.RUNNING}
    ]
    _end(
        connection,
        [(r, Report(State.LOST, r.started or now, now, error=r.error)) for r in lost],
    )
    return lost


def any_pending(connection: Connection, now: datetime) -> bool:
    """Return whether any run waits for a node. Uses the partial index `jobs_run_pending`."""
    return (
        connection.execute(
            select(run.c.id).where(run.c.state == State.PENDING, run.c.available_at <= now).limit(1)
        ).scalar()
        is not None
    )


def _outdated(now: datetime) -> ColumnElement[bool]:
    """Pending for longer than the job's catch-up window."""
    return and_(run.c.available_until.is_not(None), run.c.available_until < now)


def give_up_pending(connection: Connection, now: datetime) -> list[Run]:
    """End the runs that waited for a node until their catch-up window was over; return them.

    Ticks are `missed`, others `cancelled`. Uses the partial index `jobs_run_pending`.
    """
    rows = connection.execute(
        select(*_RUN_COLUMNS)
        .where(run.c.state == State.PENDING, _outdated(now))
        .with_for_update(skip_locked=True)
    )
    message = "no node took it within its catchup_window"
    ended = [
        replace(
            found,
            state=State.MISSED if found.trigger is Trigger.SCHEDULE else State.CANCELLED,
            finished=now,
            message=message,
        )
        for found in map(to_run, rows)
    ]
    _end_runs(connection, ended)
    return ended


def unfinished(connection: Connection, job_ids: Sequence[str]) -> set[str]:
    """Return those of the jobs (at most a claim's batch) with a scheduled run not yet ended.

    Uses the partial indexes `jobs_run_held` and `jobs_run_pending`.
    """
    open_ = or_(HELD, run.c.state == State.PENDING)
    if not job_ids:
        return set()
    found = connection.execute(
        select(run.c.job_id)
        .where(run.c.job_id.in_(job_ids), run.c.trigger == Trigger.SCHEDULE, open_)
        .distinct()
    )
    return set(found.scalars())
