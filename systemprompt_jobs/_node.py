"""One node at work: wires claim, run, record, keep and observe, and takes them down in order."""

from __future__ import annotations

import hashlib
import os
import secrets
import socket
import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING

import structlog

from ._claim import Claimer, manual_key, run_values
from ._keep import Keeper
from ._loop import Loop
from ._middleware import Middleware
from ._observe import Observer
from ._output import LogTap
from ._progress import Scribe
from ._record import Recorder, cancelled
from ._run import Attempt
from ._store import jobs as job_rows
from ._store import runs as run_rows
from ._version import __version__
from .errors import StoreError
from .model import Node, Run, State, Trigger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Any

    import pluggy

    from ._context import Resources
    from ._hand_over import Wanted
    from ._store import Store
    from .interfaces import Clock, Executor, Schedule
    from .model import Plan, Problem, Report

_DRAIN_S = 5.0
"""How long observers may take to see the last events."""


def new_node() -> Node:
    """Return an identity that no other process shares, whatever its host is called."""
    host, boot = socket.gethostname(), secrets.token_hex(4)
    return Node(f"{host}:{os.getpid()}:{boot}", host, os.getpid(), boot, __version__)


class LiveNode:
    """A node from join to leave. `start` it once, `stop` it once."""

    def __init__(
        self,
        store: Store,
        plans: Iterable[Plan],
        manager: pluggy.PluginManager,
        resources: Resources,
        executors: Mapping[str, Executor],
        clock: Clock,
        lease_s: float,
    ) -> None:
        self.node = new_node()
        self._store = store
        self._plans = {plan.id: plan for plan in plans if plan.problem is None}
        self._resources = resources
        self._executors = executors
        self._sizes = {name: executor.size for name, executor in executors.items()}
        self._clock = clock = store.clock(clock)
        self._log = structlog.get_logger("systemprompt_jobs")
        self._changed = threading.Condition()
        self._awaited: dict[int, SimpleQueue[Run]] = {}
        self._caught_up: set[str] = set()
        self._ticking = False
        self._observer = Observer(manager)
        self._keeper = Keeper(
            store,
            self.node,
            clock,
            lease_s,
            pools={plan.id: plan.executor for plan in self._plans.values()},
            held=lambda: self._recorder.held(),  # noqa: PLW0108  # made below
            room=lambda: self._recorder.room() if self._ticking else {},
            took=self._took,
            observer=self._observer,
        )
        self._middleware = Middleware(manager)
        self._scribe = Scribe(
            store,
            self._observer,
            clock,
            lambda: self._scribe_loop.wake(),  # noqa: PLW0108  # made below
        )
        self._recorder = Recorder(
            store,
            self._observer,
            clock,
            sizes=self._sizes,
            lease_until=self._keeper.lease_until,
            may_start=self._keeper.may_start,
            start=self._start,
            ended=self._ended,
            wake=lambda: self._record_loop.wake(),  # noqa: PLW0108  # made below
        )
        self._claimer = Claimer(
            store,
            self._plans.values(),
            self.node,
            clock,
            self._keeper.lease_until,
            self._took,
            lambda problem: self._observer.put("plugin_failed", problem=problem),
        )
        self._record_loop = Loop("record", self._recorder.step, clock)
        self._keep_loop = Loop("keep", self._keeper.step, clock)
        self._scribe_loop = Loop("scribe", self._scribe.step, clock)
        self._tap = LogTap()
        self._claim_loop = Loop("claim", self._claimer.step, clock)

    # --- up ---

    def start_ticking(
        self, parse: Callable[[str, str], Schedule], degraded: Iterable[Problem]
    ) -> None:
        """Join as a scheduler: catch up, run what starts up, then claim ticks."""
        self._ticking = True
        self._join("scheduler")
        self._observer.put("scheduler_started", node=self.node)
        for problem in degraded:
            self._observer.put("plugin_failed", problem=problem)
        self._claimer.install(parse)
        self._claimer.step()
        self._start_up()
        self._claim_loop.start()

    def start_waiting(self) -> None:
        """Join for runs by hand only."""
        self._join("command")

    def _join(self, kind: str) -> None:
        digest = hashlib.sha256("\n".join(sorted(self._plans)).encode()).hexdigest()[:16]
        with self._store.write() as connection:
            job_rows.add_job_set(connection, digest, sorted(self._plans))
        self._keeper.join(kind, self._sizes, digest)
        self._observer.start()
        self._tap.attach()
        self._scribe_loop.start()
        self._record_loop.start()
        self._keep_loop.start()

    def _start_up(self) -> None:
        """Run once what asks for it; a caught-up tick of the same job makes it unnecessary."""
        now = self._clock.now()
        rows = []
        for plan in self._plans.values():
            if plan.starts_up:
                row = self._held_values(plan, f"s:{self.node.boot}", Trigger.STARTUP)
                if plan.id in self._caught_up:
                    row |= {"state": State.SKIPPED, "reason": "catch-up", "finished": now}
                rows.append(row)
        with self._store.write() as connection:
            runs = run_rows.add(connection, rows)
        for run in runs:
            if run.state is State.SKIPPED:
                self._observer.put("tick_skipped", run=run)
        self._recorder.offer(run for run in runs if run.state is State.CLAIMED)

    def _held_values(self, plan: Plan, key: str, trigger: Trigger) -> dict[str, Any]:
        values = run_values(plan, key, trigger, self._clock.now())
        return values | {"node": self.node.id, "lease_until": self._keeper.lease_until()}

    # --- at work ---

    def trigger(self, wanted: Wanted, who: str) -> SimpleQueue[Run]:
        """Run a job here and now; the queue receives the run when it has ended."""
        plan = wanted.plan
        row = self._held_values(plan, manual_key(), Trigger.MANUAL) | wanted.values
        with self._store.write() as connection:
            job_rows.add_missing(connection, [self._claimer.row(plan)])
            (run,) = run_rows.add(connection, [row])
            job_rows.add_audit(connection, self._clock.now(), who, wanted.action, plan.id)
        answer: SimpleQueue[Run] = SimpleQueue()
        self._awaited[run.id] = answer
        self._recorder.offer([run])
        return answer

    def _took(self, rows: Sequence[Run]) -> None:
        for run in rows:
            if run.state is State.MISSED:
                self._observer.put("tick_missed", run=run)
        claimed = [run for run in rows if run.state is State.CLAIMED]
        now = self._clock.now()
        self._caught_up |= {run.job_id for run in claimed if run.tick and run.tick <= now}
        self._recorder.offer(claimed)

    def _start(self, run: Run) -> None:
        def reported(report: Report) -> None:
            self._report(run, report)
            with self._changed:
                self._changed.notify_all()

        attempt = Attempt(
            self._plans[run.job_id],
            run,
            self._resources,
            self._clock.now,
            lambda: self._recorder.began(run),
            reported,
            self._scribe.listen(run),
            self._middleware,
        )
        self._executors[run.pool].submit(attempt)

    def _report(self, run: Run, report: Report) -> None:
        """Take what an attempt ended in, whoever says so."""
        self._recorder.report(run, self._scribe.complete(run, report))

    def _ended(self, run: Run) -> None:
        if self._claimer.ended(run):
            self._claim_loop.wake()
        answer = self._awaited.pop(run.id, None)
        if answer is not None:
            answer.put(run)

    # --- down ---

    def stop(self, grace_s: float) -> None:
        """Claim nothing more, give back what was not started, and let the rest end in time."""
        if self._ticking:
            self._observer.put("scheduler_stopping", node=self.node)
            self._claim_loop.stop()
        unstarted = self._recorder.close()
        if unstarted:
            self._settle(lambda: self._give_back(unstarted))
        self._wait_for_runs(grace_s)
        for run in self._recorder.running():
            why = f"still running {grace_s:g} s after the scheduler was told to stop"
            self._report(run, cancelled(run, self._clock.now(), why))
        self._scribe_loop.stop()
        self._record_loop.stop()
        self._settle(self._recorder.flush)
        self._keep_loop.stop()
        self._settle(self._keeper.leave)
        self._tap.detach()
        for executor in self._executors.values():
            executor.close()
        if self._ticking:
            self._observer.put("scheduler_stopped", node=self.node)
        self._observer.drain(_DRAIN_S)

    def _give_back(self, unstarted: Sequence[Run]) -> None:
        """Other nodes may take the ticks; start-up and manual runs belong to this one alone."""
        now = self._clock.now()
        ticks = [run for run in unstarted if run.trigger is Trigger.SCHEDULE]
        own = [run for run in unstarted if run.trigger is not Trigger.SCHEDULE]
        with self._store.write() as connection:
            run_rows.give_back(connection, [(run.id, run.fence) for run in ticks], now)
            ended = run_rows.cancel_unstarted(connection, own, now)
        for run in ended:
            report = cancelled(run, now, run.message)
            self._observer.put("run_cancelled", run=run, report=report)
            self._ended(run)

    def _wait_for_runs(self, grace_s: float) -> None:
        deadline = self._clock.monotonic() + grace_s
        with self._changed:
            while self._recorder.running() and self._clock.monotonic() < deadline:
                self._clock.wait(self._changed, deadline - self._clock.monotonic())

    def _settle(self, action: Callable[[], None]) -> None:
        """Try once: without a database the leases run out and other nodes settle it."""
        try:
            action()
        except StoreError as error:
            self._log.error("not_recorded_at_stop", reason=str(error))
