"""Statements on runs: insert, gate, finish, hold, rescue. Each takes the caller's transaction.

Every change of a held run names its fence, so that whoever holds an old one changes nothing.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, bindparam, delete, or_, select, update

from ..model import Overlap, Report, Run, State, Trigger
from ._dialect import chunks, insert
from .schema import HELD, attempt, node, run, slot

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import ColumnElement, Connection, Row

_RUN_COLUMNS = (
    run.c.id,
    run.c.job_id,
    run.c.trigger,
    run.c.state,
    run.c.tick_at,
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
)


_RUN_FIELDS = tuple(field.name for field in fields(Run))


def columns() -> tuple[Any, ...]:
    """Return the columns that `to_run` reads, in its order."""
    return _RUN_COLUMNS


def to_run(row: Row[*tuple[Any, ...]]) -> Run:
    """Return the value of a row of `columns()`."""
    values = dict(zip(_RUN_FIELDS, row, strict=True))
    for name, kind in (("trigger", Trigger), ("state", State), ("overlap", Overlap)):
        values[name] = kind(values[name])
    return Run(**values)


def add(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> list[Run]:
    """Insert runs; one whose (job, dedup key) exists already is left out of the result.

    Uses the unique index `jobs_run_once`.
    """
    if not rows:
        return []
    statement = (
        insert(connection, run)
        .on_conflict_do_nothing(index_elements=[run.c.job_id, run.c.dedup_key])
        .returning(*_RUN_COLUMNS)
    )
    return [to_run(row) for row in connection.execute(statement, rows)]


def lock(connection: Connection, ids: Iterable[int]) -> dict[int, Run]:
    """Read these runs, locked until the transaction ends."""
    return {
        row.id: to_run(row)
        for some in chunks(ids)
        for row in connection.execute(
            select(*_RUN_COLUMNS).where(run.c.id.in_(some)).with_for_update()
        )
    }


def gate(
    connection: Connection, runs: Sequence[Run], now: datetime, lease_until: int
) -> tuple[list[Run], list[Run]]:
    """Let runs that this node has claimed start: (started, skipped for overlap).

    A run that is no longer claimed by this node under this fence is in neither list. The
    attempt is recorded and the slot taken in the same transaction.
    """
    found = lock(connection, (wanted.id for wanted in runs))
    mine = [
        wanted
        for wanted in runs
        if wanted.id in found
        and found[wanted.id].state is State.CLAIMED
        and found[wanted.id].fence == wanted.fence
    ]
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
    if started:
        connection.execute(
            attempt.insert(),
            [
                {
                    "run_id": r.id,
                    "fence": r.fence,
                    "number": r.attempt,
                    "node": r.node,
                    "started": now,
                }
                for r in started
            ],
        )
    return started, skipped


def _take_slots(connection: Connection, runs: Sequence[Run]) -> set[int]:
    if not runs:
        return set()
    statement = insert(connection, slot).on_conflict_do_nothing().returning(slot.c.run_id)
    rows = [{"key": f"overlap:{r.job_id}", "n": 0, "run_id": r.id, "fence": r.fence} for r in runs]
    return set(connection.execute(statement, rows).scalars())


def _write(connection: Connection, runs: Sequence[Run], *, lease_until: int | None) -> None:
    if runs:
        connection.execute(
            update(run)
            .where(run.c.id == bindparam("key"))
            .values(
                state=bindparam("new_state"),
                reason=bindparam("new_reason"),
                attempt=bindparam("new_attempt"),
                started=bindparam("new_started"),
                finished=bindparam("new_finished"),
                lease_until=lease_until,
            ),
            [
                {
                    "key": r.id,
                    "new_state": r.state,
                    "new_reason": r.reason,
                    "new_attempt": r.attempt,
                    "new_started": r.started,
                    "new_finished": r.finished,
                }
                for r in runs
            ],
        )


def finish(connection: Connection, reports: Sequence[tuple[Run, Report]]) -> list[Run]:
    """Record what attempts ended in and give their slots back; return the ended runs.

    A report for a run that is no longer running under the report's fence is left out: it came
    too late.
    """
    found = lock(connection, (r.id for r, _ in reports))
    first = {r.id: report for r, report in reversed(reports)}
    ended = [
        (_ended(r, report), report)
        for r, report in reports
        if r.id in found
        and found[r.id].state is State.RUNNING
        and found[r.id].fence == r.fence
        and report is first[r.id]
    ]
    if ended:
        connection.execute(
            delete(slot).where(slot.c.run_id == bindparam("key")), [{"key": r.id} for r, _ in ended]
        )
        connection.execute(_END_RUN, [_run_values(r) for r, _ in ended])
        connection.execute(_END_ATTEMPT, [_attempt_values(r, report) for r, report in ended])
    return [r for r, _ in ended]


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
    )


_END_RUN = (
    update(run)
    .where(run.c.id == bindparam("key"))
    .values(
        state=bindparam("new_state"),
        started=bindparam("new_started"),
        finished=bindparam("new_finished"),
        message=bindparam("new_message"),
        processed=bindparam("new_processed"),
        failed=bindparam("new_failed"),
        error=bindparam("new_error"),
        lease_until=None,
    )
)

_END_ATTEMPT = (
    update(attempt)
    .where(attempt.c.run_id == bindparam("key"), attempt.c.fence == bindparam("key_fence"))
    .values(
        started=bindparam("new_started"),
        finished=bindparam("new_finished"),
        outcome=bindparam("new_outcome"),
        error=bindparam("new_error"),
        traceback=bindparam("new_traceback"),
    )
)


def _run_values(value: Run) -> dict[str, Any]:
    return {
        "key": value.id,
        "new_state": value.state,
        "new_started": value.started,
        "new_finished": value.finished,
        "new_message": value.message,
        "new_processed": value.processed,
        "new_failed": value.failed,
        "new_error": value.error,
    }


def _attempt_values(value: Run, report: Report) -> dict[str, Any]:
    return {
        "key": value.id,
        "key_fence": value.fence,
        "new_started": report.started,
        "new_finished": report.finished,
        "new_outcome": report.outcome,
        "new_error": report.error,
        "new_traceback": report.traceback,
    }


def renew(connection: Connection, held: Sequence[tuple[int, int]], lease_until: int) -> None:
    """Renew the leases of these (run, fence) pairs, and of no others."""
    if held:
        connection.execute(
            update(run)
            .where(
                run.c.id == bindparam("key"),
                run.c.fence == bindparam("key_fence"),
                HELD,
            )
            .values(lease_until=lease_until),
            [{"key": id_, "key_fence": fence} for id_, fence in held],
        )


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
                available_at=now,
            ),
            [{"key": id_, "key_fence": fence} for id_, fence in runs],
        )


def cancel_unstarted(connection: Connection, runs: Iterable[Run], now: datetime) -> list[Run]:
    """End claimed runs that belong to a node which stops before it could start them."""
    ended = [
        replace(r, state=State.CANCELLED, finished=now, message="its node stopped before it began")
        for r in runs
    ]
    if ended:
        connection.execute(_END_RUN, [_run_values(r) for r in ended])
    return ended


def take_pending(
    connection: Connection,
    job_ids: Iterable[str],
    node_id: str,
    now: datetime,
    lease_until: int,
    limit: int,
) -> list[Run]:
    """Claim pending runs of these jobs, oldest first, at most `limit`.

    Uses the partial index `jobs_run_pending`, which holds pending runs only.
    """
    known = set(job_ids)
    rows = connection.execute(
        select(*_RUN_COLUMNS)
        .where(run.c.state == State.PENDING, run.c.available_at <= now, ~_outdated(now))
        .order_by(run.c.available_at, run.c.id)
        .with_for_update(skip_locked=True)
    )
    taken = [to_run(row) for row in rows if row.job_id in known][:limit]
    if taken:
        connection.execute(
            update(run)
            .where(run.c.id == bindparam("key"))
            .values(state=State.CLAIMED, node=node_id, lease_until=lease_until),
            [{"key": r.id} for r in taken],
        )
    return [replace(r, state=State.CLAIMED, node=node_id) for r in taken]


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
    found = lock(connection, (id_ for id_, _, _ in suspects))
    dead = [found[i] for i, fence, _ in suspects if i in found and found[i].fence == fence]
    unstarted = [r for r in dead if r.state is State.CLAIMED and r.trigger is not Trigger.STARTUP]
    give_back(connection, [(r.id, r.fence) for r in unstarted], now)
    lost = [
        replace(r, state=State.LOST, finished=now, error="its node died or was cut off")
        for r in dead
        if r not in unstarted and r.state in {State.CLAIMED, State.RUNNING}
    ]
    if lost:
        connection.execute(
            delete(slot).where(slot.c.run_id == bindparam("key")), [{"key": r.id} for r in lost]
        )
        connection.execute(_END_RUN, [_run_values(r) for r in lost])
        connection.execute(
            _END_ATTEMPT,
            [
                _attempt_values(r, Report(State.LOST, r.started or now, now, error=r.error))
                for r in lost
            ],
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
    if ended:
        connection.execute(_END_RUN, [_run_values(r) for r in ended])
    return ended


def unfinished(connection: Connection, job_ids: Iterable[str]) -> set[str]:
    """Return those of the jobs that have a scheduled run which has not ended.

    Uses the partial indexes `jobs_run_held` and `jobs_run_pending`.
    """
    open_ = or_(HELD, run.c.state == State.PENDING)
    return {
        id_
        for some in chunks(job_ids)
        for id_ in connection.execute(
            select(run.c.job_id)
            .where(run.c.job_id.in_(some), run.c.trigger == Trigger.SCHEDULE, open_)
            .distinct()
        ).scalars()
    }
