"""Answers about nodes, audit and statistics, made of what the database says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._clock import boot_id
from ._store import nodes as node_rows
from ._store import queries, statistics
from .model import EMPTY, AuditEntry, Backlog, JobStats, NodeOverview, State

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime, timedelta
    from typing import Any

    from ._store import Store, StoreClock

_UNKNOWN = (None, None)
_SPARKS = 20
"""Newest runs of a job that its statistics hold."""


def nodes(store: Store, clock: StoreClock, gone: timedelta) -> list[NodeOverview]:
    """Return the live schedulers and workers, then those that went within `gone`, newest first."""
    boot = boot_id() if store.one_host else ""
    with store.read() as connection:
        now, lease_now = clock.read(connection), clock.lease_now()
        live = node_rows.live(connection, lease_now, boot)
        left = node_rows.gone(connection, lease_now, boot, now - gone)
        sets = {row.job_set for row in live}
        sizes = node_rows.set_sizes(connection, {row.job_set for row in left} | sets)
        lacks = node_rows.lacking(connection, sets)
    found = [_node(row, "live", sizes, lacks.get(row.job_set, ())) for row in live]
    return found + [_node(row, _went(row), sizes) for row in left]


def live_nodes(store: Store, clock: StoreClock, job: str | None = None) -> list[NodeOverview]:
    """Return the live schedulers and workers, or those of them that have a job."""
    with store.read() as connection:
        clock.read(connection)
        live = node_rows.live(connection, clock.lease_now(), boot_id() if store.one_host else "")
        having = None if job is None else queries.sets_with(connection, job)
    return [_node(row, "live", {}) for row in live if having is None or row.job_set in having]


def backlog(store: Store, clock: StoreClock) -> list[Backlog]:
    """Return what has not ended, by job."""
    boot = boot_id() if store.one_host else ""
    with store.read() as connection:
        clock.read(connection)
        return queries.backlog(connection, clock.lease_now(), boot)


def _went(row: Any) -> str:
    return "left" if row.stopped is not None and row.stopped == row.heartbeat else "died"


def _node(row: Any, state: str, sizes: dict[str, int], lacks: Sequence[str] = ()) -> NodeOverview:
    return NodeOverview(
        row.id,
        row.version,
        row.workers,
        row.started,
        row.heartbeat,
        state=state,
        stopped=row.stopped,
        clock_offset=row.clock_offset,
        jobs=sizes.get(row.job_set, 0),
        lacks=tuple(lacks),
        strays=row.strays,
        problem=row.problem,
        kind=row.kind,
    )


def audit(store: Store, before: int | None, limit: int) -> list[AuditEntry]:
    """Return who did what, newest first."""
    with store.read() as connection:
        rows = queries.audit_rows(connection, before, limit)
    return [AuditEntry(row.id, row.at, row.who, row.action, row.subject, row.note) for row in rows]


def stats(
    store: Store, clock: StoreClock, job_ids: Sequence[str] | None, since: timedelta
) -> list[JobStats]:
    """Return how the jobs did, in the order of their ids; those without any run are left out."""
    with store.read() as connection:
        begin = clock.read(connection) - since
        conditions = statistics.recent(connection, job_ids, begin)
        counts = statistics.counts(connection, conditions)
        many = [id_ for id_, ends in counts.items() if sum(ends.values()) > statistics.RANKED]
        ranked = many if job_ids is None else job_ids
        took = statistics.took(connection, conditions, ranked, others=job_ids is None)
        late = statistics.late(connection, conditions, ranked, others=job_ids is None)
        last = statistics.last_runs(connection, job_ids, _SPARKS)
    return [
        JobStats(
            job_id,
            counts.get(job_id, EMPTY),
            took.get(job_id, _UNKNOWN),
            late.get(job_id, _UNKNOWN),
            tuple(last.get(job_id, ())),
        )
        for job_id in sorted(counts.keys() | last.keys())
    ]


def activity(
    store: Store, jobs: Sequence[str], since: datetime, width: timedelta
) -> dict[str, dict[int, dict[str, int]]]:
    """Return by job, by stretch and by how it ended how many runs and ticks there were."""
    found: dict[str, dict[int, dict[str, int]]] = {}
    with store.read() as connection:
        rows = statistics.activity(connection, jobs, since, width)
    for job_id, cell, state, later, number in rows:
        look = "retried" if later and state == State.SUCCEEDED else state
        ends = found.setdefault(job_id, {}).setdefault(int(cell), {})
        ends[look] = ends.get(look, 0) + int(number)
    return found
