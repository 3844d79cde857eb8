"""What a `Runtime` says of jobs: plans and what is on record of them, side by side."""

from __future__ import annotations

from datetime import timedelta
from itertools import chain
from operator import attrgetter
from typing import TYPE_CHECKING

from ._answer import Answers
from ._clock import boot_id
from ._load import own_ids
from .errors import StoreError
from .model import (
    RETRYING,
    Explanation,
    JobOverview,
    Orphan,
    SchedulerOverview,
    State,
    Superseding,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import Connection

    from ._explain import Evidence
    from ._store.plans import Standing
    from .model import Change, NodeOverview, PauseOverview, Plan, Run

_TROUBLED = 5

_number = attrgetter("id")


class Overviews(Answers):
    """How jobs stand, and why."""

    def jobs(self, *ids: str) -> list[JobOverview]:
        """Return these jobs, else all, with next tick and newest run, in the order of their ids."""
        chosen = set(ids)
        plans = [plan for plan in self.plans if not ids or plan.id in chosen]
        own = {plan.id: own_ids(plan) for plan in plans}
        newest = self.newest(*chain(*own.values()), limit=1) if ids else {}
        last = {id_: runs[-1] for id_, runs in newest.items()} if ids else self._last_runs()
        others = self._plans_of_others(plans)
        pauses, held = self.pauses(), self.held()
        now = self._clock.now()
        return [
            _overview(
                plan,
                max((last[id_] for id_ in own[plan.id] if id_ in last), key=_number, default=None),
                others.get(plan.id),
                pauses.get(plan.id),
                held.get(plan.id),
                now,
            )
            for plan in sorted(plans, key=lambda plan: plan.id)
        ]

    def _plans_of_others(self, plans: Iterable[Plan]) -> Mapping[str, Standing]:
        """Return the plans in force that are held by a live node and are not this machine's."""
        from ._store import plans as plan_rows
        from ._whose import fingerprint

        if not self._readable():
            return {}
        mine = {plan.id: fingerprint(plan) for plan in plans if plan.problem is None}
        with self._store.read() as connection:
            found = plan_rows.standing(connection, mine, *self._lease_now(connection))
        return {
            id_: other
            for id_, other in found.items()
            if other.node is not None and other.fingerprint != mine[id_]
        }

    def _last_runs(self) -> Mapping[str, Run]:
        from ._store import queries

        if not self._readable():
            return {}
        with self._store.read() as connection:
            return queries.last_runs(connection)

    def orphans(self) -> list[Orphan]:
        """Return the jobs of the database that neither a live node nor this machine has."""
        from ._store import plans as plan_rows
        from ._store import queries

        if not self._readable():
            return []
        mine = {id_ for plan in self.plans for id_ in own_ids(plan)}
        with self._store.read() as connection:
            known = queries.job_ids(connection) - mine
            if known:
                known -= plan_rows.provided(connection, *self._lease_now(connection))
            last = queries.last_runs(connection) if known else {}
        return [Orphan(id_, last.get(id_)) for id_ in sorted(known)]

    def pauses(self) -> dict[str, PauseOverview]:
        """Return the pauses in force by job id, also those of jobs that are not installed."""
        from . import _control

        if not self._readable():
            return {}
        return _control.pauses(self._store, self._store.clock(self._clock))

    def held(self) -> dict[str, datetime]:
        """Return the jobs settled more than an hour beyond now, and up to when.

        A clock was wrong; `reset_clock()` lets them go on.
        """
        from . import _control

        if not self._readable():
            return {}
        return _control.held(self._store, self._store.clock(self._clock))

    def changes(self) -> list[Change]:
        """Return what a start of this configuration would change in the database's jobs.

        Raises ConfigurationError and StoreError.
        """
        from ._changes import changes
        from ._store import jobs as job_rows

        if not self._readable():
            return changes(self.plans, {})
        with self._store.read() as connection:
            return changes(self.plans, job_rows.all_rows(connection))

    def explain(self, name: str, at: datetime | None = None) -> Explanation:
        """Say whether, when and where a job will run; with `at`, what became of it then.

        `at` is an aware datetime; it stands for the job's tick at that instant, or the last one
        within the minute before. Raises UnknownJobError, AmbiguousJobError and StoreError.
        """
        from . import _explain
        from ._whose import fingerprint

        plan, now = self.find(name), self._clock.now()
        known = self._evidence(plan, at)
        if at is None:
            said = _explain.prospect(plan, known, fingerprint(plan), now)
        else:
            said = _explain.account(plan, known, at, now)
        return Explanation(plan, tuple(said), known.run)

    def _evidence(self, plan: Plan, at: datetime | None) -> Evidence:
        from ._explain import Evidence, tick_at
        from ._store import evidence, jobs

        if not self._readable():
            return Evidence()
        clock = self._store.clock(self._clock)
        boot = boot_id() if self._store.one_host else ""
        with self._store.read() as connection:
            now = clock.read(connection)
            row = jobs.one_row(connection, plan.id)
            live = evidence.live_nodes(connection, plan.id, clock.lease_now(), boot)
            if at is None:
                other = evidence.run_now(connection, plan.id, now)
                return Evidence(row, live, other=other)
            tick = tick_at(plan, at) or at
            run = evidence.run_covering(connection, plan.id, tick)
            other = evidence.run_at(connection, plan.id, tick)
            return Evidence(
                row,
                live,
                run=run,
                nodes=evidence.nodes_at(connection, plan.id, tick),
                other=other if run is None or other is None or other.id != run.id else None,
                paused=evidence.last_audit(connection, plan.id, "pause", tick),
                oldest=evidence.oldest_run(connection, plan.id),
            )

    def status(self) -> SchedulerOverview:
        """Return the scheduler at a glance."""
        from . import _look

        running: list[Run] = []
        troubled: list[Run] = []
        nodes: tuple[NodeOverview, ...] = ()
        counts: Mapping[str, int] = {}
        waiting: Sequence[datetime] = ()
        problem = ""
        if self._readable():
            running = self.history(states=[State.RUNNING, State.DISPATCHED, RETRYING], limit=100)
            troubled = self._troubled()
            nodes = tuple(_look.live_nodes(self._store, self._store.clock(self._clock)))
            counts, waiting = self.counts(), self._waiting()
            problem = "" if nodes else self._unwritable()
        return SchedulerOverview(
            root=str(self.project.root),
            database=self._store.label,
            enabled=self.settings.enabled,
            nodes=nodes,
            jobs=tuple(self.jobs()),
            running=tuple(running),
            troubled=tuple(troubled),
            counts=counts,
            degraded=self.degraded,
            pauses=tuple(self.pauses().values()),
            held=self.held(),
            orphaned=tuple(self.orphans()),
            waiting=len(waiting),
            waiting_since=min(waiting, default=None),
            problem=problem,
        )

    def _unwritable(self) -> str:
        """Return why nothing can be recorded, which keeps schedulers from being live."""
        try:
            self._store.check_writing()
        except StoreError as error:
            return str(error)
        return ""

    def _troubled(self) -> list[Run]:
        from ._store import queries

        with self._store.read() as connection:
            return queries.troubled(connection, _TROUBLED)

    def _waiting(self) -> Sequence[datetime]:
        """Return since when what is due waits, of jobs that this configuration has."""
        from ._store import queries

        mine = {plan.id for plan in self.plans if plan.enabled and plan.problem is None}
        clock = self._store.clock(self._clock)
        with self._store.read() as connection:
            return queries.waiting(connection, clock.read(connection), mine)

    def _lease_now(self, connection: Connection) -> tuple[int, str]:
        """Return what tells whether a lease has run out: the time, and this host's boot."""
        clock = self._store.clock(self._clock)
        clock.read(connection)
        return clock.lease_now(), boot_id() if self._store.one_host else ""


def _overview(
    plan: Plan,
    last: Run | None,
    other: Standing | None,
    pause: PauseOverview | None,
    held_until: datetime | None,
    now: datetime,
) -> JobOverview:
    by = None
    settled = max(now, held_until or now)
    if pause is not None and pause.until is None:
        next_tick = None
    elif other is not None:
        by = Superseding(other.distribution, other.version, other.node or "", other.schedule)
        next_tick = other.next_tick
    elif pause is not None and pause.until is not None:  # a tick at the very end of it runs
        next_tick = _next_tick(plan, max(settled, pause.until - timedelta.resolution))
    else:
        next_tick = _next_tick(plan, settled)
    return JobOverview(plan, next_tick, last, pause, held_until, by)


def _next_tick(plan: Plan, after: datetime) -> datetime | None:
    if plan.problem is not None or not plan.enabled or plan.schedule is None:
        return None
    return plan.schedule.next(after)
