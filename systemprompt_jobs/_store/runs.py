"""Statements on runs: insert, gate, finish, hold, rescue. Each takes the caller's transaction.

Every change of a held run names its fence, so that whoever holds an old one changes nothing.
"""

from __future__ import annotations

import functools
import operator
from collections import Counter
from dataclasses import fields, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import (
    Integer,
    and_,
    bindparam,
    case,
    exists,
    func,
    literal,
    or_,
    select,
    text,
    true,
    tuple_,
    update,
)

from ..model import Overlap, Report, Run, State, Trigger, changed
from . import said as said_rows
from . import slots
from ._bulk import execute_among, insert_returning, select_many, update_many
from ._postgresql import announce
from .schema import HELD, Instant, attempt, job, micros, node, run
from .schema import job_set as job_set_table
from .slots import Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from collections.abc import Set as AbstractSet
    from datetime import datetime
    from typing import TypeAlias, TypeVar

    from sqlalchemy import BindParameter, ColumnElement, Connection, Row, Select

    from ._questions import Asked

    T = TypeVar("T")
    When: TypeAlias = T | BindParameter[T]

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
    run.c.max_attempts,
    run.c.fence,
    run.c.node,
    run.c.parameters,
    run.c.enforce,
    run.c.overlap,
    run.c.policy,
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


PENDING = text("jobs_run.state = 'pending'")
"""Spelt out, so that the partial index of it is used."""

IN_TURN = "catch-up"
"""The reason of a pending tick that waits until the ones before it have ended."""

_SLOTS, _CHOSEN = "slots", "ids"
"""Which pending runs to read: those that wait for a slot, and those that are named."""

_UNSTARTED = frozenset({State.CLAIMED, State.DISPATCHED})
"""Held, and no function was called yet."""

_CHUNK = 500
"""Ids per statement: far below SQLite's limit of 32,766 variables."""

_BY_ID = select(*_RUN_COLUMNS).where(run.c.id.in_(bindparam("ids", expanding=True)))

_EXPIRED = (
    select(run.c.id, run.c.fence, run.c.lease_until)
    .outerjoin(node, node.c.id == run.c.node)
    .where(
        HELD,
        or_(
            run.c.lease_until < bindparam("lease_now"),
            and_(node.c.boot.is_not(None), node.c.boot != bindparam("the_boot")),
        ),
    )
)

_UNFINISHED = (
    select(run.c.job_id)
    .where(
        run.c.job_id.in_(bindparam("ids", expanding=True)),
        run.c.trigger == Trigger.SCHEDULE,
        or_(HELD, run.c.state == State.PENDING),
    )
    .distinct()
)

_SAID = ("message", "processed", "failed", "error")
"""What a run repeats of its last attempt."""

_REPORTED = ("started", "finished", "outcome", "message", "error", "traceback")

_reported = operator.attrgetter(*_REPORTED)

_START = """UPDATE jobs_run SET state = 'running', reason = '', attempt = attempt + 1, started = ?,
node = ?, lease_until = ?, message = '', processed = NULL, failed = NULL, error = ''
WHERE {among}"""

_BEGIN = """INSERT INTO jobs_attempt (run_id, fence, number, node, started)
SELECT id, fence, attempt, node, started FROM jobs_run WHERE {among} ON CONFLICT DO NOTHING"""

_END = """UPDATE jobs_run SET state = said.outcome, started = said.started,
finished = said.finished, message = said.message, error = said.error, lease_until = NULL
FROM jobs_attempt AS said WHERE run_id = id AND said.fence = jobs_run.fence AND {among}"""

_RUN_FIELDS = tuple(field.name for field in fields(Run))

_BLANK = Run(0, "", Trigger.SCHEDULE, State.PENDING)


def columns() -> tuple[Any, ...]:
    """Return the columns that `to_run` reads, in its order."""
    return _RUN_COLUMNS


def to_run(row: Row[*tuple[Any, ...]]) -> Run:
    """Return the value of a row of `columns()`."""
    values = dict(zip(_RUN_FIELDS, row, strict=True))
    for name, kind in (("trigger", Trigger), ("state", State), ("overlap", Overlap)):
        values[name] = kind(values[name])
    values["progress"] = said_rows.to_progress(values["progress"], values["fence"])
    return changed(_BLANK, **values)


def add(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> list[Run]:
    """Insert runs; one whose (job, dedup key) exists already is left out of the result.

    Uses the unique index `jobs_run_once`.
    """
    if not rows:
        return []
    names = tuple(rows[0])
    by_key = {(row["job_id"], row["dedup_key"]): row for row in rows}
    values = [tuple(row.values()) for row in rows]
    if any(row["state"] == State.PENDING for row in rows):
        announce(connection)
    added = insert_returning(connection, run, names, values, ("id", "job_id", "dedup_key"))
    known, read = _known(names)
    return [
        changed(_BLANK, id=id_, **dict(zip(known, read(by_key[job_id, key]), strict=True)))
        for id_, job_id, key in added
    ]


@functools.cache
def _known(names: tuple[str, ...]) -> tuple[tuple[str, ...], operator.itemgetter[Any]]:
    """Return which fields of a run are in these columns, and what reads them out of a row."""
    pairs = zip(_RUN_FIELDS, _RUN_COLUMNS, strict=True)
    known = {field: column.name for field, column in pairs if column.name in names}
    return tuple(known), operator.itemgetter(*known.values())


def find(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> list[Run]:
    """Return the runs with the keys of these rows, whoever has added them.

    Uses the unique index `jobs_run_once`.
    """
    key = tuple_(run.c.job_id, run.c.dedup_key)
    keys = [(row["job_id"], row["dedup_key"]) for row in rows]
    return [
        to_run(row)
        for start in range(0, len(keys), _CHUNK)
        for row in connection.execute(
            select(*_RUN_COLUMNS).where(key.in_(keys[start : start + _CHUNK]))
        )
    ]


def lock(connection: Connection, ids: Iterable[int]) -> dict[int, Run]:
    """Read these runs, locked until the transaction ends."""
    wanted = sorted(_lock_holdings(connection, ids))
    return {
        row.id: to_run(row)
        for start in range(0, len(wanted), _CHUNK)
        for row in connection.execute(_BY_ID, {"ids": wanted[start : start + _CHUNK]})
    }


class _Holding(NamedTuple):
    """Who holds a run, and in what state it is."""

    state: str
    fence: int
    node: str
    cancel_requested: int | None


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
    """Let runs start that this node has claimed, or was sent: (started, others as they stand now).

    The others are `skipped` for overlap, or wait for a slot: ticks `pending` for any node, the
    rest `claimed` as before, since they belong to this one. A run that is no longer claimed by
    this node, or `dispatched`, under this fence is in neither list. The attempt is recorded and the
    slots are taken in the same transaction. `doubted` are runs whose gate was sent before and
    never answered: what is on record is read back for them.
    """
    if not runs:
        return [], []
    found = _lock_holdings(connection, (wanted.id for wanted in runs))
    mine = [
        wanted
        for wanted in runs
        if wanted.id in found
        and found[wanted.id].state in _UNSTARTED
        and found[wanted.id].fence == wanted.fence
    ]
    done = _gated_before(connection, [r for r in runs if r.id in doubted], found)
    paused = _paused(connection, mine, now)
    mine = [r for r in mine if r.id not in paused]
    verdicts = slots.take(connection, mine)
    started = [_started(r, now) for r in mine if verdicts.get(r.id, Verdict.START) is Verdict.START]
    others = [
        _kept_out(r, verdicts[r.id], now)
        for r in mine
        if verdicts.get(r.id, Verdict.START) is not Verdict.START
    ]
    others += [replace(r, reason="paused") for r in runs if r.id in paused]
    _write_started(connection, started, now, lease_until)
    _write_kept_out(connection, others)
    started += [r for r in done if r.state is State.RUNNING]
    others += [r for r in done if r.state is State.SKIPPED]
    return started, others


def _paused(connection: Connection, runs: Iterable[Run], now: datetime) -> set[int]:
    """Return which start-up runs wait to be tried again while their job is paused.

    They wait on the node to which they belong. The retries of others are `pending` meanwhile, where
    nobody takes them.
    """
    ids = [r.id for r in runs if r.trigger is Trigger.STARTUP and r.attempt]
    if not ids:
        return set()
    waiting = select(run.c.id).where(run.c.id.in_(ids), _waits_for_pause(now))
    return set(connection.execute(waiting).scalars())


def _started(r: Run, now: datetime) -> Run:
    return changed(
        r,
        state=State.RUNNING,
        reason="",
        attempt=r.attempt + 1,
        started=now,
        message="",
        processed=None,
        failed=None,
        error="",
    )


def _kept_out(r: Run, verdict: Verdict, now: datetime) -> Run:
    if verdict is Verdict.SKIP:
        return replace(r, state=State.SKIPPED, reason="overlap", finished=now)
    if r.trigger is not Trigger.SCHEDULE and r.state is State.CLAIMED:
        return replace(r, reason=verdict.value)
    return replace(r, state=State.PENDING, reason=verdict.value, fence=r.fence + 1, node="")


def _write_started(
    connection: Connection, started: Sequence[Run], now: datetime, lease_until: int
) -> None:
    for holder in {r.node for r in started}:
        ids = [r.id for r in started if r.node == holder]
        execute_among(connection, _START, run, "id", ids, (micros(now), holder, lease_until))
        execute_among(connection, _BEGIN, run, "id", ids)


def _write_kept_out(connection: Connection, others: Sequence[Run]) -> None:
    columns = ("state", "reason", "fence", "node", "finished")
    rows = [
        (*(getattr(r, name) for name in columns), None, r.id)
        for r in others
        if r.state is not State.CLAIMED
    ]
    update_many(connection, run, ("id",), (*columns, "lease_until"), rows)
    slots.follow(connection, [r.id for r in others if r.state is State.PENDING])
    own = [(r.reason, r.id) for r in others if r.state is State.CLAIMED]
    update_many(connection, run, ("id",), ("reason",), own)


def _gated_before(
    connection: Connection, runs: Sequence[Run], found: Mapping[int, _Holding]
) -> list[Run]:
    """Return those of these runs that this node has gated under the fence it holds."""
    ours = [
        r.id
        for r in runs
        if r.id in found
        and found[r.id].state in {State.RUNNING, State.SKIPPED}
        and found[r.id][1:3] == (r.fence, r.node)
    ]
    return list(lock(connection, ours).values()) if ours else []


def unchanged(connection: Connection, runs: Sequence[Run]) -> list[Run]:
    """Return those of these runs that are on record as they are here, locked.

    An id alone proves nothing: one that was rolled back may have gone to another run.
    """
    found = lock(connection, [r.id for r in runs])
    return [r for r in runs if r.id in found and _mark(found[r.id]) == _mark(r)]


def _mark(value: Run) -> tuple[Any, ...]:
    holder = "" if value.state is State.PENDING else value.node
    return value.job_id, value.tick, value.state, value.fence, holder, value.finished


def finish(
    connection: Connection,
    reports: Sequence[tuple[Run, Report]],
    now: datetime,
    lease_until: int,
    doubted: AbstractSet[int] = frozenset(),
) -> dict[tuple[int, int], Run]:
    """Record what attempts ended in; return the runs as they stand now, by (run, fence) before.

    A run that has ended gives its slots back. One that is tried again (`retry_after`) keeps them
    under a higher fence: a tick `pending` for any node, others `claimed` by this one. A report for
    a run that is no longer running under the report's fence is left out: it came too late.
    `doubted` are runs whose finish was sent before and never answered: one that is on record
    counts. One that somebody has cancelled is not tried again.
    """
    if not reports:
        return {}
    found = _lock_holdings(connection, (r.id for r, _ in reports))
    first = {(r.id, r.fence): report for r, report in reversed(reports)}
    heard = [(r, said) for r, said in reports if r.id in found and said is first[r.id, r.fence]]
    running = [
        (r, _last(said) if found[r.id].cancel_requested else said)
        for r, said in heard
        if found[r.id].state == State.RUNNING and found[r.id].fence == r.fence
    ]
    settled = [(r, _after(r, said, now), said) for r, said in running]
    _end(connection, [(r, said) for _, r, said in settled if said.retry_after is None])
    again = [(r, said) for _, r, said in settled if said.retry_after is not None]
    _try_again(connection, again, lease_until)
    written = {(r.id, r.fence) for r, _ in running}
    in_doubt = [
        (r, _last(said) if found[r.id].fence == r.fence else said)  # it has ended with it
        for r, said in heard
        if r.id in doubted and (r.id, r.fence) not in written
    ]
    recorded = _recorded(connection, in_doubt)
    settled += [(r, _after(r, said, now), said) for r, said in recorded]
    return {(before.id, before.fence): r for before, r, _ in settled}


def _last(report: Report) -> Report:
    """Return the report of a run that somebody cancelled before it could be tried again."""
    if report.retry_after is None:
        return report
    why = "not tried again: it was cancelled"
    message = f"{report.message}; {why}" if report.message else why
    return replace(report, retry_after=None, message=message)


def _after(value: Run, report: Report, now: datetime) -> Run:
    if report.retry_after is None:
        return _ended(value, report)
    return _again(value, report, report.retry_after, now)


def _recorded(
    connection: Connection, reports: Sequence[tuple[Run, Report]]
) -> list[tuple[Run, Report]]:
    """Return those of the reports that stand in the attempts. Uses the primary key."""
    if not reports:
        return []
    columns = (attempt.c.run_id, attempt.c.fence, attempt.c.outcome)
    ids = [r.id for r, _ in reports]
    found = {
        tuple(row) for row in connection.execute(select(*columns).where(attempt.c.run_id.in_(ids)))
    }
    return [(r, said) for r, said in reports if (r.id, r.fence, said.outcome) in found]


def _end(connection: Connection, ended: Sequence[tuple[Run, Report]]) -> None:
    """Write the ends of running runs: a run repeats what its last attempt came to."""
    slots.free(connection, (r.id for r, said in ended if not said.stray))
    _end_attempts(connection, ended)
    execute_among(connection, _END, run, "id", (r.id for r, _ in ended))
    counts = [(r.processed, r.failed, r.id) for r, _ in ended]
    told = [row for row in counts if row[:2] != (None, None)]
    update_many(connection, run, ("id",), ("processed", "failed"), told)
    skipped = [(r.reason, r.id) for r, _ in ended if r.reason]
    update_many(connection, run, ("id",), ("reason",), skipped)


def _end_attempts(connection: Connection, ended: Sequence[tuple[Run, Report]]) -> None:
    update_many(
        connection,
        attempt,
        ("run_id", "fence"),
        _REPORTED,
        [(*_reported(report), r.id, r.fence) for r, report in ended],
    )
    said_rows.keep(connection, ended)


def _end_runs(connection: Connection, ended: Sequence[Run]) -> None:
    """Write the ends of runs that do not run, and give their slots back."""
    slots.free(connection, (r.id for r in ended))
    _write_ends(connection, ended)


def _write_ends(connection: Connection, ended: Sequence[Run]) -> None:
    columns = ("state", "reason", "started", "finished", *_SAID)
    rows = [(*(getattr(r, name) for name in columns), None, r.id) for r in ended]
    update_many(connection, run, ("id",), (*columns, "lease_until"), rows)


def _try_again(
    connection: Connection, again: Sequence[tuple[Run, Report]], lease_until: int
) -> None:
    if not again:
        return
    _end_attempts(connection, [(replace(r, fence=r.fence - 1), said) for r, said in again])
    columns = ("state", "fence", "node", "started", *_SAID)
    rows = [
        (
            *(getattr(r, name) for name in columns),
            r.due,
            _window_end(r),
            lease_until if r.state is State.CLAIMED else None,
            r.id,
        )
        for r, _ in again
    ]
    when = ("available_at", "available_until", "lease_until")
    update_many(connection, run, ("id",), (*columns, *when), rows)
    slots.follow(connection, [r.id for r, _ in again])
    if any(r.state is State.PENDING for r, _ in again):
        announce(connection)


def _window_end(r: Run) -> datetime | None:
    """Return until when a run that is tried again may wait for a node, from its time on."""
    if r.due is None or r.policy is None:
        return None
    return r.due + timedelta(seconds=r.policy["window"])


def _again(value: Run, report: Report, delay: timedelta, now: datetime) -> Run:
    """Return a run that waits for its next attempt; those of a dead node wait for any other.

    Not before its tick: the clock may have been set back since the last attempt.
    """
    own = value.trigger is not Trigger.SCHEDULE and report.outcome is not State.LOST
    first = value.tick if value.trigger is Trigger.SCHEDULE else None
    return replace(
        _ended(value, report),
        state=State.CLAIMED if own else State.PENDING,
        fence=value.fence + 1,
        node=value.node if own else "",
        due=max(now + delay, first or now),
        finished=None,
        progress=None,
    )


def _ended(value: Run, report: Report) -> Run:
    return changed(
        value,
        state=report.outcome,
        reason="job" if report.outcome is State.SKIPPED else value.reason,
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
    """Make unstarted runs pending again under a higher fence: any node may take them."""
    if runs:
        announce(connection)
        connection.execute(
            update(run)
            .where(
                run.c.id == bindparam("key"),
                run.c.fence == bindparam("key_fence"),
                or_(run.c.state == State.CLAIMED, run.c.state == State.DISPATCHED),
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
        slots.follow(connection, [id_ for id_, _ in runs])


def cancel_unstarted(connection: Connection, runs: Iterable[Run], now: datetime) -> list[Run]:
    """End claimed runs that belong to a node which stops before it could start them."""
    runs = list(runs)
    found = _lock_holdings(connection, (r.id for r in runs))
    ended = [
        replace(
            r,
            state=State.CANCELLED,
            finished=now,
            message=f"its node stopped before it {'was tried again' if r.attempt else 'began'}",
        )
        for r in runs
        if r.id in found and found[r.id][:2] == (State.CLAIMED, r.fence)
    ]
    _end_runs(connection, ended)
    return ended


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
    taken = _at_most(room, [replace(r, pool=pools.get(r.job_id, "")) for r in due])
    rows = [(State.CLAIMED, node_id, lease_until, r.pool, r.id) for r in taken]
    update_many(connection, run, ("id",), ("state", "node", "lease_until", "pool"), rows)
    return [replace(r, state=State.CLAIMED, node=node_id) for r in taken]


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
        for start in range(0, len(ids), _CHUNK)
        for one in _pending(connection, _CHOSEN, {}, {**values, "ids": ids[start : start + _CHUNK]})
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
        select(*_RUN_COLUMNS)
        .where(
            chosen[reason],
            ~_waits_for_pause(now),
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


def expired(connection: Asked, lease_now: int, boot: str) -> list[tuple[int, int, int]]:
    """Return (run, fence, lease) of held runs whose lease has run out.

    A lease counts in the monotonic microseconds of one boot of the host, so one from another
    boot has run out. Uses the partial index `jobs_run_held`.
    """
    rows = connection.execute(_EXPIRED, {"lease_now": lease_now, "the_boot": boot})
    return [(row.id, row.fence, row.lease_until) for row in rows]


def rescue(
    connection: Connection, suspects: Iterable[tuple[int, int, int]], now: datetime
) -> list[Run]:
    """Settle runs whose holder is dead; return them as they stand now.

    One that had not goes back to `pending` at no cost; one that was running too, while attempts
    are left and nobody has cancelled it, else it is `lost`. A start-up run belongs to its node
    alone and is always `lost`.
    """
    columns = ("id", "fence", "lease_until", "cancel_requested")
    looked = set(suspects)
    # A holder may have renewed its lease while this transaction waited for the lock.
    found = select_many(connection, run, columns, "id", (id_ for id_, _, _ in looked), "FOR UPDATE")
    unchanged = {row[0] for row in found if row[:3] in looked}
    cancelled = {row[0] for row in found if row[3] is not None}
    dead = list(lock(connection, unchanged).values())
    movable = [r for r in dead if r.trigger is not Trigger.STARTUP]
    unstarted = [r for r in movable if r.state is State.CLAIMED]
    unstarted += [r for r in dead if r.state is State.DISPATCHED]  # no node had it
    give_back(connection, [(r.id, r.fence) for r in unstarted], now)
    left = [
        r
        for r in movable
        if r.state is State.RUNNING and r.attempt < r.max_attempts and r.id not in cancelled
    ]
    again = [(_again(r, lost_report(r, now), timedelta(), now), lost_report(r, now)) for r in left]
    lost = [
        (replace(_ended(r, lost_report(r, now)), started=r.started), lost_report(r, now))
        for r in dead
        if r not in unstarted + left and r.state in {State.CLAIMED, State.RUNNING}
    ]
    _try_again(connection, again, lease_until=0)
    _end_runs(connection, [r for r, _ in lost])
    _end_attempts(connection, lost)
    given_back = [replace(r, state=State.PENDING, fence=r.fence + 1) for r in unstarted]
    return [r for r, _ in lost + again] + given_back


def lost_report(r: Run, now: datetime) -> Report:
    """Return the report of an attempt whose node died."""
    return Report(State.LOST, r.started or now, now, error="its node died or was cut off")


def waits_for_node(job_set: When[str], now: When[datetime]) -> Select[tuple[int]]:
    """Select the runs of a job set that wait for a node, and for nothing else."""
    waiting = (PENDING, run.c.available_at <= now, ~_waits_for_pause(now), _in_set(job_set))
    return select(run.c.id).where(*waiting)


def _in_set(digest: When[str]) -> ColumnElement[bool]:
    named = and_(job_set_table.c.hash == digest, job_set_table.c.job_id == run.c.job_id)
    # With an offset PostgreSQL looks each run up, and does not read a whole set to join it.
    return select(job_set_table.c.hash).where(named).offset(0).exists()


def _waits_for_pause(now: When[datetime]) -> ColumnElement[bool]:
    """Of a job that is paused, unless somebody has asked for the run."""
    in_force = or_(job.c.paused_until.is_(None), job.c.paused_until > now)
    paused = exists().where(job.c.id == run.c.job_id, job.c.paused_at.is_not(None), in_force)
    return and_(run.c.trigger != Trigger.MANUAL, paused)


def skip_unstarted(
    connection: Connection,
    job_ids: AbstractSet[str],
    now: datetime,
    reason: str,
    after: datetime | None = None,
) -> list[Run]:
    """Skip the runs of these jobs that no function was called for yet; return them.

    With `after` only ticks later than that. Runs by hand stay as they are, and so does one that
    waits to be retried. The fence grows, so that a node which holds one forgets it at the gate.
    Uses the partial indexes `jobs_run_held` and `jobs_run_pending`.
    """
    open_ = select(run.c.id, run.c.job_id).where(
        or_(HELD, run.c.state == State.PENDING), run.c.trigger != Trigger.MANUAL
    )
    if after is not None:
        open_ = open_.where(run.c.tick_at > after)
    ids = [id_ for id_, job_id in connection.execute(open_) if job_id in job_ids]
    found = lock(connection, ids).values()
    waiting = [r for r in found if r.state in {*_UNSTARTED, State.PENDING}]
    retries = [
        r
        for r in waiting
        if r.attempt and r.state in _UNSTARTED and r.trigger is not Trigger.STARTUP
    ]
    give_back(connection, [(r.id, r.fence) for r in retries], now)
    skipped = [
        replace(r, state=State.SKIPPED, reason=reason, fence=r.fence + 1, node="", finished=now)
        for r in waiting
        if not r.attempt
    ]
    update_many(
        connection,
        run,
        ("id",),
        ("state", "reason", "fence", "node", "finished", "lease_until"),
        [(r.state, r.reason, r.fence, r.node, r.finished, None, r.id) for r in skipped],
    )
    slots.free(connection, (r.id for r in skipped))
    return skipped


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
    _end_runs(connection, ended)
    return ended


@functools.cache
def _given_up_statement() -> Select[Any]:
    outdated = _outdated(bindparam("the_time", type_=Instant))
    chosen = select(*_RUN_COLUMNS).where(PENDING, outdated)
    return chosen.with_for_update(skip_locked=True)


def _given_up(r: Run) -> State:
    if r.attempt:
        return State.FAILED
    return State.MISSED if r.trigger is Trigger.SCHEDULE else State.CANCELLED


def unfinished(connection: Connection, job_ids: Sequence[str]) -> set[str]:
    """Return those of the jobs (at most a claim's batch) with a scheduled run not yet ended.

    Uses the partial indexes `jobs_run_held` and `jobs_run_pending`.
    """
    if not job_ids:
        return set()
    return set(connection.execute(_UNFINISHED, {"ids": list(job_ids)}).scalars())
