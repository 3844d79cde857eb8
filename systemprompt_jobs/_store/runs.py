"""Statements on runs: insert, gate, finish, hold, rescue. Each takes the caller's transaction.

Every change of a held run names its fence, so that whoever holds an old one changes nothing.
"""

from __future__ import annotations

import functools
import operator
from dataclasses import fields, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import (
    BigInteger,
    and_,
    any_,
    bindparam,
    exists,
    func,
    literal,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY

from ..model import Overlap, Report, Run, State, Trigger, changed
from . import said as said_rows
from . import slots
from ._bulk import (
    chunks,
    execute_among,
    insert_returning,
    is_sqlite,
    select_many,
    update_many,
)
from ._postgresql import announce
from .schema import HELD, Instant, attempt, job, micros, node, run
from .slots import Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from collections.abc import Set as AbstractSet
    from datetime import datetime
    from typing import TypeAlias, TypeVar

    from sqlalchemy import BindParameter, ColumnElement, Connection, Row

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


UNSTARTED = frozenset({State.CLAIMED, State.DISPATCHED})
"""Held, and no function was called yet."""

_BY_ID = select(*_RUN_COLUMNS).where(run.c.id.in_(bindparam("ids", expanding=True)))

_BY_ANY_ID = select(*_RUN_COLUMNS).where(
    run.c.id == any_(bindparam("ids", type_=ARRAY(BigInteger)))
)
"""PostgreSQL's, which is the same for any number of ids: it is prepared once."""

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
        changed(_BLANK, zip(known, read(by_key[job_id, key]), strict=True), id=id_)
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
        for some in chunks(keys)
        for row in connection.execute(select(*_RUN_COLUMNS).where(key.in_(some)))
    ]


def lock(connection: Connection, ids: Iterable[int]) -> dict[int, Run]:
    """Read these runs, locked until the transaction ends."""
    return {r.id: r for r in by_id(connection, lock_holdings(connection, ids))}


def by_id(connection: Connection, ids: Iterable[int]) -> list[Run]:
    """Read these runs. Uses the primary key."""
    wanted = sorted(ids)
    if wanted and not is_sqlite(connection):
        return [to_run(row) for row in connection.execute(_BY_ANY_ID, {"ids": wanted})]
    return [
        to_run(row) for some in chunks(wanted) for row in connection.execute(_BY_ID, {"ids": some})
    ]


class Holding(NamedTuple):
    """Who holds a run, and in what state it is."""

    id: int
    state: str
    fence: int
    node: str
    cancel_requested: int | None

    def is_as(self, r: Run) -> bool:
        """Return whether node and fence are still those of this run."""
        return (self.fence, self.node) == (r.fence, r.node)


def lock_holdings(connection: Connection, ids: Iterable[int]) -> dict[int, Holding]:
    """Read who holds these runs, locked until the transaction ends.

    A transaction that changes several groups of runs locks them at once, so that all lock in the
    same order, and hands this to the functions that change them as `held`.
    """
    rows = select_many(connection, run, Holding._fields, "id", ids, "FOR UPDATE")
    return {row[0]: Holding._make(row) for row in rows}


def gate(
    connection: Connection,
    runs: Sequence[Run],
    now: datetime,
    lease_until: int,
    doubted: AbstractSet[int] = frozenset(),
    held: Mapping[int, Holding] | None = None,
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
    found = lock_holdings(connection, (r.id for r in runs)) if held is None else held
    mine = [
        wanted
        for wanted in runs
        if wanted.id in found
        and found[wanted.id].state in UNSTARTED
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
    waiting = select(run.c.id).where(run.c.id.in_(ids), waits_for_pause(now))
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
    connection: Connection, runs: Sequence[Run], found: Mapping[int, Holding]
) -> list[Run]:
    """Return those of these runs that this node has gated under the fence it holds."""
    ours = [
        r.id
        for r in runs
        if r.id in found
        and found[r.id].state in {State.RUNNING, State.SKIPPED}
        and found[r.id].is_as(r)
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
    held: Mapping[int, Holding] | None = None,
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
    found = lock_holdings(connection, (r.id for r, _ in reports)) if held is None else held
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


def end_runs(connection: Connection, ended: Sequence[Run]) -> None:
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


def give_back(connection: Connection, runs: Iterable[tuple[int, int]], now: datetime) -> None:
    """Make unstarted runs pending again under a higher fence: any node may take them."""
    if found := sorted(runs):  # in the order in which all lock
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
            [{"key": id_, "key_fence": fence} for id_, fence in found],
        )
        slots.follow(connection, [id_ for id_, _ in found])


def cancel_unstarted(connection: Connection, runs: Iterable[Run], now: datetime) -> list[Run]:
    """End claimed runs that belong to a node which stops before it could start them."""
    runs = list(runs)
    found = lock_holdings(connection, (r.id for r in runs))
    ended = [
        replace(
            r,
            state=State.CANCELLED,
            finished=now,
            message=f"its node stopped before it {'was tried again' if r.attempt else 'began'}",
        )
        for r in runs
        if r.id in found and (found[r.id].state, found[r.id].fence) == (State.CLAIMED, r.fence)
    ]
    end_runs(connection, ended)
    return ended


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
    end_runs(connection, [r for r, _ in lost])
    _end_attempts(connection, lost)
    given_back = [replace(r, state=State.PENDING, fence=r.fence + 1) for r in unstarted]
    return [r for r, _ in lost + again] + given_back


def lost_report(r: Run, now: datetime) -> Report:
    """Return the report of an attempt whose node died."""
    return Report(State.LOST, r.started or now, now, error="its node died or was cut off")


def waits_for_pause(now: When[datetime]) -> ColumnElement[bool]:
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
    waiting = [r for r in found if r.state in {*UNSTARTED, State.PENDING}]
    retries = [
        r
        for r in waiting
        if r.attempt and r.state in UNSTARTED and r.trigger is not Trigger.STARTUP
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


def unfinished(connection: Connection, job_ids: Sequence[str]) -> set[str]:
    """Return those of the jobs (at most a claim's batch) with a scheduled run not yet ended.

    Uses the partial indexes `jobs_run_held` and `jobs_run_pending`.
    """
    if not job_ids:
        return set()
    return set(connection.execute(_UNFINISHED, {"ids": list(job_ids)}).scalars())
