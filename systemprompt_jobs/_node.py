"""One node at work: wires claim, run, record, keep and observe, and takes them down in order."""

from __future__ import annotations

import os
import secrets
import socket
import threading
from dataclasses import replace
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, cast

import structlog

from . import _durations
from ._claim import Claimer
from ._clock import Steps
from ._declare import GIVE_UP, error_type_name
from ._doubt import twice
from ._interrupt import Interrupter
from ._keep import Keeper
from ._listen import Listener
from ._loop import Loop, Outage
from ._middleware import Middleware
from ._observe import DRAIN_S, Hooks, Observer
from ._output import LogTap
from ._progress import Scribe
from ._prune import Pruner, Retention
from ._record import Recorder, cancelled
from ._retry import settle
from ._rows import manual_key, run_values
from ._run import Attempt
from ._said import clean
from ._store import dispatch as dispatch_rows
from ._store import jobs as job_rows
from ._store import runs as run_rows
from ._take import Taker
from ._version import __version__
from ._watch import Watch
from ._whose import fingerprint
from .errors import StoreError, text_of
from .model import Health, Node, Overlap, Problem, Report, Run, State, Trigger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import datetime
    from typing import Any

    from sqlalchemy import Connection

    from ._context import Resources
    from ._hand_over import Wanted
    from ._store import Store
    from ._store.jobs import JobRow
    from .interfaces import Clock, Executor, RemoteExecutor, Schedule
    from .model import Plan

_STUCK_S = 120.0
"""A step that takes this long hangs: every statement ends within a third of a lease."""

_MOMENT_S, _KILLING_S = 1.0, 10.0
"""How long interrupted functions may take to end: threads, and what an executor kills."""

_UNREADY_WAIT_S = 1.0
"""How often a node whose workers are all strays looks whether it may claim again."""

_MOST_SAID = 2000
"""Characters of what is wrong with refused files that the database keeps."""

_STALLED_S = 1.0
"""A pause that is longer than asked for by more than this was no matter of scheduling."""


def new_node() -> Node:
    """Return an identity that no other process shares, whatever its host is called."""
    host, boot = socket.gethostname(), secrets.token_hex(4)
    return Node(f"{host}:{os.getpid()}:{boot}", host, os.getpid(), boot, __version__)


class Threads:
    """What gives the parts of a node their turns: a thread for each."""

    def node(self) -> Node:
        """Return the node that they are parts of."""
        return new_node()

    def loop(
        self,
        name: str,
        step: Callable[[], float | None],
        clock: Clock,
        outage: Outage,
        **options: Any,
    ) -> Loop:
        """Return what calls `step` from its start on."""
        return Loop(name, step, clock, outage, **options)

    def observe(self, observer: Observer) -> None:
        """Have the hooks called that are put into `observer`."""
        observer.start()


class LiveNode:
    """A node from join to leave. `start` it once, `stop` it once."""

    def __init__(
        self,
        store: Store,
        plans: Iterable[Plan],
        manager: Hooks,
        resources: Resources,
        executors: Mapping[str, Executor],
        clock: Clock,
        lease_s: float,
        retention: Retention = Retention(),  # noqa: B008  # frozen
        reload_asked: Callable[[], object] = lambda: None,
        crew: Threads | None = None,
    ) -> None:
        self._crew = crew = crew or Threads()
        self.node = crew.node()
        self._store = store
        self._plans = {plan.id: plan for plan in plans if plan.problem is None}
        self._resources = resources
        self._executors = executors
        self._far = {
            name: cast("RemoteExecutor", executor)
            for name, executor in executors.items()
            if executor.capabilities.remote
        }
        self._sizes = {name: executor.size for name, executor in executors.items()}
        self._clock = clock = store.clock(clock)
        self._steps = Steps(clock)
        self._log = structlog.get_logger("systemprompt_jobs")
        self._changed = threading.Condition()
        self._awaited: dict[int, SimpleQueue[Run]] = {}
        self._starting = True
        self._caught_up: set[str] = set()
        self._ticking = False
        self._kind = "command"
        self._reload_asked = reload_asked
        self._new_plans: dict[str, Plan] | None = None
        self._watch: Watch | None = None
        self._manager = manager
        self._observer = Observer(
            manager,
            busy=lambda: self._recorder.is_starting(),  # noqa: PLW0108  # made below
        )
        self._interrupter = Interrupter(
            clock,
            workers={
                name: executor.size
                for name, executor in executors.items()
                if not (executor.capabilities.kills or executor.capabilities.remote)
            },
            lease_left=lambda: self._keeper.lease_left(),  # noqa: PLW0108  # made below
            report=self._reported,
            released=lambda run: self._recorder.release(run),  # noqa: PLW0108  # made below
            wake=lambda: self._interrupt_loop.wake(),  # noqa: PLW0108  # made below
        )
        self._keeper = Keeper(
            store,
            self.node,
            clock,
            lease_s,
            fingerprints={plan.id: fingerprint(plan) for plan in self._plans.values()},
            pools={plan.id: plan.executor for plan in self._plans.values()},
            held=lambda: self._recorder.held(),  # noqa: PLW0108  # made below
            room=lambda: self._recorder.room() if self._ticking else {},
            took=self._took,
            drop=lambda runs: self._recorder.drop(runs),  # noqa: PLW0108  # made below
            observer=self._observer,
            watch=self._look,
            count_sent=lambda: self._recorder.count_sent() if self._far else None,
            interrupter=self._interrupter,
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
            settle=self._settle_report,
            exhausted=lambda: {*self._interrupter.exhausted, *self._shut()},
            remote={name: far.deadline.total_seconds() for name, far in self._far.items()},
            named=lambda: not self._stopping and self._taker.named(),
            look=lambda connection: self._taker.look(connection),  # noqa: PLW0108  # made below
            settled=lambda runs: self._taker.settled(runs),  # noqa: PLW0108  # made below
        )
        self._taker = Taker(
            self.node,
            self._plans.keys(),
            refuse=self._recorder.refuse,
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
            self._resumed,
            room=self._claimable,
            exhausted=lambda: {*self._interrupter.exhausted, *self._shut()},
            lease_s=lease_s,
        )
        pruner = Pruner(store, clock, retention, self._observer)
        self._outage = outage = Outage(self._observer, clock)
        self._record_loop = crew.loop("record", self._recorder.step, clock, outage)
        self._keep_loop = crew.loop(
            *("keep", self._keep, clock, outage),
            overslept=self._overslept,
            backoff_s=lease_s / 3,  # or others, back first, look twice and bury this node
        )
        self._scribe_loop = crew.loop("scribe", self._scribe.step, clock, outage)
        self._tap = LogTap()
        self._interrupt_loop = crew.loop("interrupt", self._interrupter.step, clock, outage)
        self._listener = Listener(store, self._keep_loop.wake, lease_s / 3)
        self._claim_loop = crew.loop("claim", self._claim, clock, outage)
        self._prune_loop = crew.loop("prune", pruner.step, clock, outage)
        self._loops = (
            self._record_loop,
            self._keep_loop,
            self._scribe_loop,
            self._interrupt_loop,
            self._claim_loop,
        )
        self._stopping = False
        self._gone = False

    # --- up ---

    def start_ticking(
        self, parse: Callable[[str, str], Schedule], degraded: Iterable[Problem]
    ) -> None:
        """Join as a scheduler: catch up, run what starts up, then claim ticks."""
        self._ticking = True
        self._join("scheduler")
        self._observer.put("node_joined", node=self.node)
        self._observer.put("scheduler_started", node=self.node)
        for problem in degraded:
            self._observer.put("plugin_failed", problem=problem)
        self._watch = Watch(self._store, self._changed_by_others, self._reload_asked)
        twice(lambda: self._claimer.install(parse))
        twice(self._claimer.step)
        self._start_up()
        self._starting = False
        self._claim_loop.start()
        self._listener.start()
        self._prune_loop.start()

    def start_waiting(self) -> None:
        """Join for runs by hand only."""
        self._join("command")

    def start_working(self) -> None:
        """Join as a worker, for what `take` is told to run."""
        self._join("worker")
        self._observer.put("node_joined", node=self.node)

    def _join(self, kind: str) -> None:
        self._kind = kind
        near = {name: size for name, size in self._sizes.items() if name not in self._far}
        self._keeper.join(kind, near)
        self._crew.observe(self._observer)
        self._tap.attach()
        self._scribe_loop.start()
        self._record_loop.start()
        self._keep_loop.start()
        self._interrupt_loop.start()

    def _start_up(self) -> None:
        """Run once what asks for it; a caught-up tick of the same job makes it unnecessary."""
        plans = [plan for plan in self._plans.values() if plan.starts_up]

        def add() -> list[Run]:
            with self._store.write() as connection:
                rows = self._start_up_rows(connection, plans)
                run_rows.add(connection, rows)
                return run_rows.find(connection, rows)

        runs = twice(add)
        for run in runs:
            if run.state is State.SKIPPED:
                self._observer.put("tick_skipped", run=run)
        self._recorder.offer(run for run in runs if run.state is State.CLAIMED)

    def _start_up_rows(self, connection: Connection, plans: Sequence[Plan]) -> list[dict[str, Any]]:
        now = self._clock.read(connection)
        locked = job_rows.lock(connection, [plan.id for plan in plans], skip_locked=False)
        rows = []
        for plan in plans:
            row = self._held_values(plan, f"s:{self.node.boot}", Trigger.STARTUP)
            reason = "paused" if locked[plan.id].is_paused(now) else ""
            if reason := "catch-up" if plan.id in self._caught_up else reason:
                row |= {"state": State.SKIPPED, "reason": reason, "finished": now}
            rows.append(row)
        return rows

    def _held_values(self, plan: Plan, key: str, trigger: Trigger) -> dict[str, Any]:
        values = run_values(plan, key, trigger, self._clock.now())
        return values | {"node": self.node.id, "lease_until": self._keeper.lease_until()}

    def health(self) -> Health:
        """Return whether the threads work, and whether runs can be started."""
        reasons = []
        if self._stopping:
            reasons.append("the scheduler is stopping")
        if not self._keeper.may_start():
            reasons.append("nothing could be recorded for as long as a lease")
            reasons += [self._outage.reason] if self._outage.reason else []
        reasons += [
            f"as many threads of the pool {pool!r} have outlived their timeouts as it has workers"
            for pool in self._interrupter.exhausted
        ]
        stuck = [loop.name for loop in self._loops if loop.stuck_for() > _STUCK_S]
        reasons += [f"the thread {name} is stuck" for name in stuck]
        problems = {name: far.problem for name, far in self._far.items()}
        reasons += [
            f"nothing can be sent to {name!r}: {why}" for name, why in problems.items() if why
        ]
        return Health(live=not stuck, ready=not reasons, reasons=tuple(reasons))

    @property
    def observer(self) -> Observer:
        """The one thread on which this process's hooks are called."""
        return self._observer

    # --- at work ---

    def trigger(self, wanted: Wanted, who: str) -> SimpleQueue[Run]:
        """Run a job here and now; the queue receives the run when it has ended."""
        plan = wanted.plan
        row = self._held_values(plan, manual_key(), Trigger.MANUAL) | wanted.values

        def add() -> Run:
            with self._store.write() as connection:
                job_rows.add_missing(connection, [self._claimer.row(plan)])
                if run_rows.add(connection, [row]):  # else it is there from the first try
                    now = self._clock.now()
                    job_rows.add_audit(connection, now, who, wanted.action, plan.id)
                return run_rows.find(connection, [row])[0]

        run = twice(add)
        answer: SimpleQueue[Run] = SimpleQueue()
        self._awaited[run.id] = answer
        self._recorder.offer([run])
        return answer

    def result(self, answer: SimpleQueue[Run]) -> Run:
        """Wait for the run whose end `answer` is told of.

        Raises StoreError if the node has stopped and could not record that end.
        """
        with self._changed:
            while answer.empty() and not self._gone:
                self._clock.wait(self._changed, None)
        if answer.empty():
            raise StoreError("the scheduler has stopped, and could not record the end of the run")
        return answer.get()

    def _took(self, rows: Sequence[Run]) -> None:
        due = []
        for run in rows:
            if run.state in {State.MISSED, State.SKIPPED}:
                self._observer.put(f"tick_{run.state}", run=run)
            else:
                due.append(run)
        if self._starting:
            now = self._clock.now()
            self._caught_up |= {
                run.job_id for run in due if _is_tick(run) and run.tick and run.tick <= now
            }
        claimed = [run for run in due if run.state is State.CLAIMED]
        for run in claimed:
            if _is_tick(run):
                self._observer.put("tick_claimed", run=run)
        self._recorder.offer(claimed)
        if len(claimed) < len(due):
            self._keep_loop.wake()

    def take(self, run_id: int, fence: int, pool: str, settled: Callable[[], None]) -> None:
        """Run what was dispatched under this fence, if it still is. Any thread may call."""
        self._taker.take((run_id, fence), pool, settled)

    def _shut(self) -> list[str]:
        """Return the pools whose workers cannot be reached."""
        return [name for name, far in self._far.items() if far.problem]

    def _look(self, newest_audit: int) -> None:
        if self._watch is not None:
            self._watch.step(newest_audit)
        if self._far and self._awaited:
            with self._store.read() as connection:
                ended = dispatch_rows.ended(connection, [*self._awaited])
            for run in ended:
                self._ended(run)

    def _changed_by_others(self, job_ids: Iterable[str]) -> None:
        self._claimer.look(job_ids)
        self._claim_loop.wake()

    def _resumed(self, rows: Iterable[JobRow]) -> None:
        for row in rows:
            self._observer.put("job_resumed", job_id=row.id, note=row.note or "", who="")

    def _send(self, run: Run) -> None:
        attempt = Attempt(
            self._plans[run.job_id],
            run,
            self._resources,
            self._clock.now,
            refused=partial(self._not_sent, run),
        )
        try:
            self._executors[run.pool].submit(attempt)
        except Exception as error:  # noqa: BLE001  # a plugin's
            self._log.exception("submit_failed", job=run.job_id, run=run.id, pool=run.pool)
            self._not_sent(run, _why_not_taken(run, error))

    def _not_sent(self, run: Run, why: str) -> None:
        """Give a run back; one by hand, whose command would wait for others, is answered too."""
        self._recorder.refuse(run, "not sent", why)
        if self._kind == "command":
            self._ended(replace(run, state=State.PENDING, message=why))

    def _start(self, run: Run) -> None:
        if run.pool in self._far:
            self._send(run)
            return

        def began() -> None:
            self._recorder.began(run)
            self._interrupter.began(run)

        plan = self._plans[run.job_id]
        attempt = Attempt(
            plan,
            run,
            self._resources,
            self._clock.now,
            began,
            lambda report: self._interrupter.ended(run, report),
            self._scribe.listen(run),
            self._middleware,
        )
        executor = self._executors[run.pool]
        self._interrupter.watch(attempt, executor, plan.timeout)
        try:
            executor.submit(attempt)
        except Exception as error:  # noqa: BLE001  # a plugin's
            self._log.exception("submit_failed", job=run.job_id, run=run.id, pool=run.pool)
            attempt.interrupt()  # should it lie in a queue already, its function is not called
            self._interrupter.ended(run, _not_taken(run, error, self._clock.now()))

    def _reported(self, run: Run, report: Report) -> None:
        """Take what an attempt ended in, whoever says so; what it says later is dropped."""
        self._recorder.report(run, self._scribe.complete(run, report))
        if self._stopping:  # else nobody waits for that
            with self._changed:
                self._changed.notify_all()

    def _ready(self) -> bool:
        """Return whether there is a worker that could start something, now or later."""
        return len(self._interrupter.exhausted) < len(self._executors)

    def _claimable(self) -> Mapping[str, int]:
        """Return how many ticks each pool can make use of.

        None where what has waited longer, in whatever node, comes first.
        """
        return self._recorder.room() | dict.fromkeys(self._keeper.crowded, 0)

    def not_startable(self, plans: Iterable[Plan]) -> tuple[Problem, ...]:
        """Return what of other plans only a restart could bring: pools are made at the start."""
        return tuple(
            Problem(
                plan.id,
                f"its executor {plan.executor!r} is not at work: no job used it at the start",
                plan.sources["executor"][-1].place,
                "restart the scheduler to move the job there",
            )
            for plan in plans
            if plan.problem is None and plan.executor not in self._executors
        )

    def reload(self, plans: Iterable[Plan]) -> None:
        """Go on by other plans of the same jobs. Any thread may call; runs go on as they began."""
        new = {plan.id: plan for plan in plans if plan.problem is None}
        for id_, plan in new.items():
            self._plans.setdefault(id_, plan)  # one mended may be started before it is in force
        self._new_plans = new
        self._keeper.problem = ""
        self._claim_loop.wake()

    def refuse(self, problems: tuple[Problem, ...]) -> None:
        """Say what is wrong with files that change nothing. Any thread may call."""
        self._keeper.problem = clean("; ".join(map(str, problems))[:_MOST_SAID])
        self._observer.put("configuration_reloaded", node=self.node, problems=problems)

    def _go_on_by(self, plans: dict[str, Plan]) -> None:
        """Put new plans in force; where the database fails, this is tried again.

        Others see that a live node has the plans before they see them in force.
        """
        self._keeper.reload(
            {plan.id: fingerprint(plan) for plan in plans.values()},
            {plan.id: plan.executor for plan in plans.values()},
        )
        self._claimer.reload(plans.values())
        self._plans |= plans  # what was claimed before may still need a plan that has gone
        if self._new_plans is plans:  # not yet others
            self._new_plans = None
        self._observer.put("configuration_reloaded", node=self.node, problems=())

    def _keep(self) -> float | None:
        """Keep, and have the claims that wait for an instant know of another time."""
        if self._steps.noticed():
            self._claim_loop.wake()
        return self._keeper.step()

    def _claim(self) -> float | None:
        if self._new_plans is not None:
            self._go_on_by(self._new_plans)
        return self._claimer.step() if self._ready() else _UNREADY_WAIT_S

    def _overslept(self, seconds: float) -> None:
        """Say that no thread got its turn: code that holds the interpreter's lock, or a freeze."""
        if seconds > _STALLED_S:
            jobs = sorted({run.job_id for run in self._interrupter.running()})
            self._log.warning("process_stalled", stalled_s=round(seconds, 3), jobs=jobs)

    def _settle_report(self, run: Run, report: Report) -> Report:
        next_tick = partial(self._tick_after, run.job_id)
        return settle(run, report, next_tick, self._advise, awaited=run.id in self._awaited)

    def _tick_after(self, job_id: str, after: datetime) -> datetime | None:
        plan = self._plans[job_id]
        if not plan.enabled or plan.schedule is None:
            return None
        try:
            return plan.schedule.next(after)
        except Exception:  # noqa: BLE001  # a plugin's schedule; the claimer says so
            return None

    def _advise(self, run: Run, report: Report) -> object:
        """Ask the plugins how long to wait; what is no answer does not count."""
        try:
            said = self._manager.hook.retry_delay(run=run, report=report)
            return said if said is None or said is GIVE_UP else _durations.parse(said)
        except Exception:  # noqa: BLE001  # a plugin's: the job's own policy counts
            self._log.exception("retry_delay_failed", job=run.job_id, run=run.id)
            return None

    def _ended(self, run: Run) -> None:
        if run.overlap is Overlap.QUEUE or (run.policy and "concurrency" in run.policy):
            self._keep_loop.wake()  # another one may wait for the slot
        if self._claimer.ended(run):
            self._claim_loop.wake()
        if self._keeper.crowded:
            self._keep_loop.wake()
        answer = self._awaited.pop(run.id, None)
        if answer is not None:
            answer.put(run)
            with self._changed:
                self._changed.notify_all()

    # --- down ---

    def stop(self, grace_s: float) -> None:
        """Claim nothing more, give back what was not started, and let the rest end in time.

        What has not ended after `grace_s` is interrupted, and recorded as cancelled even if it
        does not end then.
        """
        self._stopping = True
        if self._ticking:
            self._observer.put("scheduler_stopping", node=self.node)
            self._claim_loop.stop()
            self._listener.stop()
            self._prune_loop.stop()
        self._give_back_unstarted()
        self._wait_for_runs(grace_s)
        for name in self._far:
            self._close(name)
        after = f"{grace_s:g} s after the scheduler" if grace_s else "when its process"
        self._cut_off(f"still running {after} was told to stop")
        self._interrupt_loop.stop()
        self._scribe_loop.stop()
        self._record_loop.stop()
        self._settle(self._recorder.flush)
        self._keep_loop.stop()
        # What failed meanwhile and was to be tried again here, and what the keeper was taking.
        self._give_back_unstarted()
        self._settle(self._leave)
        with self._changed:
            self._gone = True
            self._changed.notify_all()
        self._tap.detach()
        for name in self._executors.keys() - self._far.keys():
            self._close(name)
        if self._ticking:
            self._observer.put("scheduler_stopped", node=self.node)
        self._observer.drain(DRAIN_S)

    def _close(self, pool: str) -> None:
        try:
            self._executors[pool].close()
        except Exception:  # noqa: BLE001  # a plugin's: the rest is taken down all the same
            self._log.exception("close_failed", pool=pool)

    def _leave(self) -> None:
        self._keeper.leave()
        if self._kind != "command":
            self._observer.put("node_left", node=self.node)

    def _cut_off(self, why: str) -> None:
        """Interrupt what runs; after a moment do not wait for it any longer."""
        self._interrupter.interrupt_all(why)
        self._wait_for_runs(_KILLING_S if self._interrupter.can_kill else _MOMENT_S)
        self._interrupter.abandon_all(why)
        for run in self._interrupter.strays():  # they end with this process
            self._recorder.release(run)

    def _give_back_unstarted(self) -> None:
        unstarted = self._recorder.close()
        if unstarted:
            self._settle(lambda: self._give_back(unstarted))

    def _give_back(self, unstarted: Sequence[Run]) -> None:
        """Other nodes may take them, but not start-up runs, nor those that somebody here awaits.

        A worker has no runs of its own.
        """
        now = self._clock.now()
        own = [
            run
            for run in unstarted
            if self._kind != "worker"
            and (run.trigger is Trigger.STARTUP or run.id in self._awaited)
        ]
        free = [run for run in unstarted if run not in own]
        with self._store.write() as connection:
            run_rows.give_back(connection, [(run.id, run.fence) for run in free], now)
            ended = run_rows.cancel_unstarted(connection, own, now)
        for run in ended:
            report = cancelled(run, now, run.message)
            self._observer.put("run_cancelled", run=run, report=report)
            if run.attempt:
                self._observer.put("run_finished", run=run, report=report)
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


def _not_taken(run: Run, error: Exception, now: datetime) -> Report:
    types = tuple(error_type_name(kind) for kind in type(error).__mro__[:-1])
    return Report(State.FAILED, now, now, error=_why_not_taken(run, error), error_types=types)


def _why_not_taken(run: Run, error: Exception) -> str:
    return clean(f"the executor {run.pool!r} could not take it: {text_of(error)}")


def _is_tick(run: Run) -> bool:
    """Return whether the run is one of the schedule, and not one by hand that was given a tick."""
    return run.trigger is Trigger.SCHEDULE
