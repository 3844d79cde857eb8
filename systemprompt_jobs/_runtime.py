"""The public `Runtime`: loads plugins and configuration, starts and stops a node, answers."""

from __future__ import annotations

import difflib
import os
import re
from dataclasses import replace
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import structlog

from . import _calendar, _configure, _parameters, hookspecs
from ._clock import SystemClock, boot_id
from ._collect import collect
from .errors import (
    AmbiguousJobError,
    ConfigurationError,
    ParameterError,
    ScheduleError,
    UnknownJobError,
    UsageError,
    text_of,
)
from .model import (
    AttemptOverview,
    Finding,
    Job,
    JobOverview,
    NodeOverview,
    Plan,
    Problem,
    Report,
    Run,
    SchedulerOverview,
    State,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import datetime
    from types import TracebackType

    from sqlalchemy import Connection

    from ._context import Resources
    from ._hand_over import Wanted
    from ._middleware import Middleware
    from ._node import LiveNode
    from ._store import Store
    from .interfaces import Attempt, Clock, Executor, Schedule, Voice

BUILT_IN = ("intervals", "threads", "coroutines", "processes", "logs")

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*:\s", re.ASCII)
_OPEN = (State.PENDING, State.CLAIMED, State.RUNNING)
_TROUBLE = (State.FAILED, State.LOST, State.MISSED, State.SKIPPED, State.CANCELLED)


class Runtime:
    """Plugins collected and configuration applied; several can live in one process.

    - `root`: the project's folder; else `SYSTEMPROMPT_ROOT`, else found upwards from the
      working directory.
    - `plugins`: entry-point names or modules to load, or plugins themselves, such as an object
      with hooks. `no_plugins`: names to keep out.
    - `environ`, `clock`: what to read instead of the process's own.
    - `trace`: print every hook call to standard error.

    Used as a context manager it is a running scheduler. It installs no signal handlers and
    configures no logging.

    Raises UsageError for a plugin in `plugins` that does not exist, and ConfigurationError for
    a `root` that is no folder. Everything else that is wrong with the configuration is raised
    by `plans`, in one ConfigurationError.
    """

    def __init__(
        self,
        root: Path | str | None = None,
        *,
        plugins: Sequence[object] = (),
        no_plugins: Iterable[str] = (),
        environ: Mapping[str, str] = os.environ,
        clock: Clock | None = None,
        trace: bool = False,
    ) -> None:
        self._clock = clock or SystemClock()
        self._manager = _new_manager(trace=trace)
        self.project = _configure.find_project(root, environ, Path.cwd())
        self._origin: dict[str, Any] = {
            "root": str(self.project.root),
            "plugins": [plugin for plugin in plugins if isinstance(plugin, str)],
            "no_plugins": [*no_plugins],
            "environ": dict(environ),
        }
        self.settings = _configure.load_settings(self.project, environ)
        self.collection = collect(
            self._manager,
            modules=plugins,
            files=self.settings.local_plugins,
            blocked=self._origin["no_plugins"],
            allowed=environ.get("SYSTEMPROMPT_PLUGINS"),
        )
        self.warnings = _configure.make_warnings(self.settings, self.collection)
        self._live: LiveNode | None = None
        self._resources: Resources | None = None
        self._opened: Store | None = None
        self._plans: tuple[Plan, ...] | ConfigurationError
        try:
            self._plans = _configure.make_plans(self.settings, self.collection, self.parse)
        except ConfigurationError as error:
            self._plans = error

    @property
    def plans(self) -> tuple[Plan, ...]:
        """One plan per job, degraded and disabled ones included. Raises ConfigurationError."""
        if isinstance(self._plans, ConfigurationError):
            raise self._plans
        return self._plans

    @property
    def degraded(self) -> tuple[Problem, ...]:
        """What is wrong with plugins and jobs; the others work."""
        found = dict(self.collection.degraded)
        if not isinstance(self._plans, ConfigurationError):
            found |= {plan.id: plan.problem for plan in self._plans if plan.problem}
        return tuple(sorted(found.values(), key=_file_order))

    def parse(self, text: str, timezone: str) -> Schedule:
        """Return the schedule of a text: cron, or what a plugin makes of `scheme: text`.

        Raises ScheduleError.
        """
        if not _SCHEME.match(text):
            return _calendar.parse(text, timezone)
        found: Schedule | None = self._manager.hook.parse_schedule(text=text, timezone=timezone)
        if found is None:
            scheme = text.partition(":")[0]
            raise ScheduleError(f"{text!r}: no plugin knows schedules of the form '{scheme}: …'")
        return found

    @staticmethod
    def parse_value(text: str) -> Any:
        """Return what a text of the command line says as a YAML value, else the text itself."""
        return _configure.parse_value(text)

    def find(self, name: str) -> Plan:
        """Return the plan of a job id or of a short name or alias that is unique.

        Raises UnknownJobError or AmbiguousJobError.
        """
        found = [plan for plan in self.plans if name in _names(plan)]
        exact = [plan for plan in found if plan.id == name]
        if len(exact or found) == 1:
            return (exact or found)[0]
        if found:
            raise AmbiguousJobError(
                f"several jobs are called {name!r}: {', '.join(plan.id for plan in found)}"
            )
        known = sorted({known for plan in self.plans for known in (plan.id, plan.job.name)})
        near = difflib.get_close_matches(name, known, 3)
        hint = f"did you mean {' or '.join(near)}?" if near else "see `list` for all jobs"
        raise UnknownJobError(f"there is no job {name!r}; {hint}")

    # --- at work ---

    def start(self) -> None:
        """Start as a scheduler: migrate the database, catch up, run start-up jobs, claim ticks.

        Returns when ticks are being claimed. Raises StoreError; then nothing has started.
        """
        live = self._live_node()
        try:
            live.start_ticking(self.parse, self.degraded)
        except BaseException:
            self.stop(timedelta(0))
            raise

    def stop(self, grace: timedelta | None = None) -> None:
        """Stop: claim nothing, let runs end for `grace` (the setting unless given), cut off."""
        if self._live is not None:
            seconds = (self.settings.shutdown_grace if grace is None else grace).total_seconds()
            self._live.stop(seconds)
            self._live = None
        if self._resources is not None:
            self._resources.close()
            self._resources = None
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def run(
        self,
        *names: str,
        parameters: Mapping[str, Any] | None = None,
        enforce: bool | None = None,
        who: str = "",
    ) -> list[Run]:
        """Run jobs here and now, and return their runs when all have ended.

        They are recorded, gated and take slots like any run; disabled jobs run too.
        `parameters` are laid over the configured ones, `enforce` replaces the configured value.
        Raises UnknownJobError, AmbiguousJobError, ParameterError, UsageError for a degraded
        job, and StoreError; then nothing has run.
        """
        return self._run_here(self._wanted(names, parameters, enforce), who)

    def submit(
        self,
        *names: str,
        parameters: Mapping[str, Any] | None = None,
        enforce: bool | None = None,
        who: str = "",
    ) -> list[Run]:
        """Hand runs to the running schedulers, and return them at once, `pending`.

        Any scheduler that has the job takes its run within about a second; one that nobody
        takes within the job's `catchup_window` becomes `cancelled`. Arguments and errors are
        those of `run`.
        """
        return self._hand_over(self._wanted(names, parameters, enforce), who)

    def retry(self, number: int, *, detach: bool = False, who: str = "") -> Run:
        """Run the job of a run that has ended again, by hand, with the same parameters.

        Here and now, or with `detach` on a running scheduler. Returns the new run, whose
        `parent` is the old one. Raises UsageError if there is no such run or it has not ended,
        and what `run` raises.
        """
        old = self.find_run(number)
        if old.state in _OPEN:
            raise UsageError(f"run {old.id} of {old.job_id} is {old.state}: it has not ended yet")
        plan = self._runnable(old.job_id)
        wanted = [self._one_wanted(plan, old.parameters, old.enforce, old.id)]
        (run,) = self._hand_over(wanted, who) if detach else self._run_here(wanted, who)
        return run

    def _wanted(
        self, names: Iterable[str], parameters: Mapping[str, Any] | None, enforce: bool | None
    ) -> list[Wanted]:
        plans = [self._runnable(name) for name in names]
        return [self._one_wanted(plan, parameters or {}, enforce, None) for plan in plans]

    def _one_wanted(
        self, plan: Plan, parameters: Mapping[str, Any], enforce: bool | None, parent: int | None
    ) -> Wanted:
        from ._hand_over import Wanted

        values = self._checked(plan, parameters)
        return Wanted(plan, values, plan.enforce if enforce is None else enforce, parent)

    def _run_here(self, wanted: Iterable[Wanted], who: str) -> list[Run]:
        live = self._live
        if live is None:
            live = self._live_node()
            live.start_waiting()
        answers = [live.trigger(one, who) for one in wanted]
        return [answer.get() for answer in answers]

    def _hand_over(self, wanted: Sequence[Wanted], who: str) -> list[Run]:
        from ._hand_over import hand_over

        self._store.prepare()
        return hand_over(self._store, self._store.clock(self._clock), wanted, who)

    def _runnable(self, name: str) -> Plan:
        plan = self.find(name)
        if plan.problem is not None:
            raise UsageError(f"the job {plan.id} is degraded: {plan.problem}")
        return plan

    def _checked(self, plan: Plan, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        values = {**plan.parameters, **parameters}
        try:
            _parameters.validate(plan.job, values)
        except ParameterError as error:
            raise ParameterError(f"{plan.id}: {error}") from None
        return values

    def _live_node(self) -> LiveNode:
        from ._node import LiveNode

        if self._live is not None:
            raise UsageError("this runtime is running already")
        executors = self._new_executors()
        self._store.prepare()
        self._live = LiveNode(
            self._store,
            self.plans,
            self._manager,
            self._running_resources(),
            executors,
            self._clock,
            self.settings.lease.total_seconds(),
        )
        return self._live

    def attempt(
        self,
        run: Run,
        ended: Callable[[Report], None] = lambda _: None,
        said: Voice | None = None,
    ) -> Attempt:
        """Return an attempt to call a run's function here, which records nothing.

        For executors whose functions run in other processes: such a process makes a runtime of
        its own. `ended` is for whoever executes it to hand in the report. `said` is what carries
        away what the function says; what it logs with other loggers than its context's goes to
        where this process has configured them. Raises UnknownJobError, and UsageError for a job
        that is degraded here.
        """
        from ._run import Attempt

        return Attempt(
            self._runnable(run.job_id),
            run,
            self._running_resources(),
            self._clock.now,
            ended=ended,
            said=said,
            middleware=self._middleware,
        )

    @cached_property
    def _middleware(self) -> Middleware:
        from ._middleware import Middleware

        return Middleware(self._manager)

    def _running_resources(self) -> Resources:
        if self._resources is None:
            self._resources = self._new_resources()
        return self._resources

    def _new_resources(self) -> Resources:
        from ._context import Resources
        from ._services import ServiceRegistry

        registry = ServiceRegistry()
        plugins = {
            i.plugin: i.plugin_name for i in self._manager.hook.register_services.get_hookimpls()
        }
        for plugin, name in plugins.items():
            others = [other for other in plugins if other is not plugin]
            try:
                self._manager.subset_hook_caller("register_services", others)(registry=registry)
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # one plugin's services, not all
                log = structlog.get_logger("systemprompt_jobs")
                log.exception("services_failed", plugin=name, reason=text_of(error))
        return Resources(self.settings.databases, registry)

    def _new_executors(self) -> Mapping[str, Executor]:
        """Return an executor for each pool that some job uses, by its name."""
        from ._pools import make_executors

        return make_executors(self._manager, self.settings, self.plans, self._origin)

    @property
    def _store(self) -> Store:
        if self._opened is None:
            from ._store import Store

            self._opened = Store(self.settings.database, self.settings.lease.total_seconds())
        return self._opened

    # --- questions ---

    def jobs(self) -> list[JobOverview]:
        """Return every job with its next tick and newest run, in the order of their ids."""
        last = self._last_runs()
        now = self._clock.now()
        return [
            JobOverview(plan, _next_tick(plan, now), last.get(plan.id))
            for plan in sorted(self.plans, key=lambda plan: plan.id)
        ]

    def _last_runs(self) -> Mapping[str, Run]:
        from ._store import queries

        if not self._readable():
            return {}
        with self._store.read() as connection:
            return queries.last_runs(connection)

    def history(
        self,
        *,
        job: str | None = None,
        states: Sequence[str] | None = None,
        limit: int = 20,
    ) -> list[Run]:
        """Return the newest runs, newest first.

        `job` is a job id, also of a job that is gone; the history of its aliases is its own.
        """
        from ._store import queries

        if not self._readable():
            return []
        with self._store.read() as connection:
            return queries.history(connection, self._ids(job), states, limit)

    def _ids(self, job: str | None) -> list[str] | None:
        plan = next((plan for plan in self.plans if plan.id == job), None)
        if plan is None:
            return None if job is None else [job]
        return [plan.id, *(f"{plan.extension.name}:{alias}" for alias in plan.job.aliases)]

    def find_run(self, number: int) -> Run:
        """Return the run of this id. Raises UsageError."""
        from ._store import queries

        found = None
        if self._readable():
            with self._store.read() as connection:
                found = queries.find_run(connection, number)
        if found is None:
            raise UsageError(f"there is no run {number}; see `history` for the newest ones")
        return found

    def attempts(self, run: Run) -> list[AttemptOverview]:
        """Return the attempts of a run, oldest first, with what each has logged so far."""
        from ._said import split_log
        from ._store import said

        with self._store.read() as connection:
            found = said.attempts_of(connection, run.id)
        return [
            replace(attempt, log=log, log_cut=cut)
            for attempt in found
            for cut, log in [split_log(attempt.log)]
        ]

    def examine(self) -> list[Finding]:
        """Look whether all that a scheduler needs is there and well; change nothing."""
        from ._examine import Patient, examine

        resources = self._resources or self._new_resources()
        try:
            return list(examine(Patient(self._store, resources, self._clock, self.schedulers)))
        finally:
            if resources is not self._resources:
                resources.close()

    def traceback(self, run: Run) -> str:
        """Return the traceback of the run's last attempt, empty if there is none."""
        from ._store import queries

        with self._store.read() as connection:
            return queries.traceback_of(connection, run.id)

    def known_ids(self) -> list[str]:
        """Return the ids of all jobs that are installed or in the history."""
        from ._store import queries

        installed = {plan.id for plan in self.plans}
        if not self._readable():
            return sorted(installed)
        with self._store.read() as connection:
            return sorted(installed | queries.next_ticks(connection).keys())

    def status(self) -> SchedulerOverview:
        """Return the scheduler at a glance."""
        running: list[Run] = []
        troubled: list[Run] = []
        nodes: tuple[NodeOverview, ...] = ()
        counts: Mapping[str, int] = {}
        if self._readable():
            running = self.history(states=[State.RUNNING], limit=100)
            troubled = self.history(states=_TROUBLE, limit=5)
            nodes, counts = self._nodes_and_counts()
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
        )

    def schedulers(self, job: str | None = None) -> list[NodeOverview]:
        """Return the live schedulers, or those of them that have the job of this id."""
        from ._store import queries

        if not self._readable():
            return []
        with self._store.read() as connection:
            _, live = self._now_and_live(connection)
            having = None if job is None else queries.sets_with(connection, job)
        return [_node_overview(row) for row in live if having is None or row.job_set in having]

    def _nodes_and_counts(self) -> tuple[tuple[NodeOverview, ...], Mapping[str, int]]:
        from ._store import queries

        with self._store.read() as connection:
            now, live = self._now_and_live(connection)
            counts = queries.counts_since(connection, now - timedelta(days=1))
        return tuple(map(_node_overview, live)), counts

    def _now_and_live(self, connection: Connection) -> tuple[datetime, list[Any]]:
        from ._store import nodes

        clock = self._store.clock(self._clock)
        boot = boot_id() if self._store.one_host else ""
        now = clock.read(connection)
        return now, nodes.live(connection, clock.lease_now(), boot)

    def _readable(self) -> bool:
        """Return whether there is a database yet; raises StoreError if it cannot be used."""
        if not self._store.exists:
            return False
        self._store.check()
        return True


def _node_overview(row: Any) -> NodeOverview:
    return NodeOverview(row.id, row.version, row.workers, row.started, row.heartbeat)


def _file_order(problem: Problem) -> tuple[str, int]:
    return str(problem.place.file or ""), problem.place.line or 0


def _names(plan: Plan) -> set[str]:
    job: Job[..., Any] = plan.job
    aliases = {f"{plan.extension.name}:{alias}" for alias in job.aliases}
    return {plan.id, job.name, *job.aliases, *aliases}


def _next_tick(plan: Plan, now: Any) -> Any:
    if plan.problem is not None or not plan.enabled or plan.schedule is None:
        return None
    return plan.schedule.next(now)


def _new_manager(*, trace: bool) -> Any:
    import importlib
    import sys

    import pluggy

    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    for name in BUILT_IN:
        module = importlib.import_module(f"systemprompt_jobs.builtin.{name}")
        manager.register(module, f"core.{name}")
    if trace:
        manager.trace.root.setwriter(sys.stderr.write)
        manager.enable_tracing()
    return manager
