"""The public `Runtime`: starts and stops a node, and runs jobs here or elsewhere."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import structlog

from . import _configure
from ._operate import Operations
from .errors import ConfigurationError, StoreError, UsageError, text_of
from .model import Finding, Health, Observers, Plan, Problem, Report, Run, State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from types import TracebackType

    from ._context import Resources
    from ._hand_over import Wanted
    from ._middleware import Middleware
    from ._node import LiveNode, Threads
    from .interfaces import Attempt, Executor, Pages, Voice

AT_START = (
    "database",
    "databases",
    "executors",
    "health_address",
    "lease",
    "local_plugins",
    "retention",
    "retention_runs",
    "workers",
)
"""Settings that a reload leaves as they are."""

_OPEN = (State.PENDING, State.CLAIMED, State.DISPATCHED, State.RUNNING)


class Runtime(Operations):
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

    _crew: Threads | None = None
    """What gives a node's parts their turns: threads, but on virtual time."""

    _resources: Resources | None = None

    _not_started = ""
    """Why the last try to start failed."""

    def start(self) -> None:
        """Start as a scheduler: migrate the database, catch up, run start-up jobs, claim ticks.

        Returns when ticks are being claimed. Raises StoreError; then nothing has started.
        """
        try:
            self._start()
        except StoreError as error:
            self._not_started = str(error)
            raise
        self._not_started = ""

    def _start(self) -> None:
        live = self._live_node()
        try:
            live.start_ticking(self.parse, self.degraded)
        except BaseException:
            self.stop(timedelta(0))
            raise

    def work(self, pools: Mapping[str, Mapping[str, Any]]) -> None:
        """Start as a worker: run what `take` is told, and claim nothing.

        For plugins whose executors are `remote`. `pools` names the executor here of each pool
        that runs come from, as `scheduler.executors` does: `{"big": {"kind": "processes"}}`.
        Raises ConfigurationError and StoreError; then nothing has started.
        """
        from ._pools import make_worker_executors

        local = dataclasses.replace(self.settings, executors=pools)
        live = self._live_node(make_worker_executors(self._manager, local, self._origin))
        try:
            live.start_working()
        except BaseException:
            self.stop(timedelta(0))
            raise

    def take(self, run: int, fence: int, pool: str, settled: Callable[[], None]) -> None:
        """Have a worker run what was sent to it as (run, fence), by its executor for `pool`.

        Returns at once; any thread may call. `settled` is called, on some thread, when the
        message is done with: the function has started, or will not start here, because the run
        was cancelled, sent again, or begun by another worker.
        Raises UsageError where `work` was not called.
        """
        if self._live is None:
            raise UsageError("this runtime is no worker")
        self._live.take(run, fence, pool, settled)

    def reload(self) -> tuple[Problem, ...]:
        """Read the configuration again and go on by it, in this process; running runs go on.

        Returns what is wrong with it: then all stays as it was, and `degraded` says so. Plugins
        are not loaded anew, and what belongs to a start (`database`, `workers` …) waits for one.
        """
        settings = _configure.load_settings(self.project, self._environ)
        try:
            plans = _configure.make_plans(settings, self.collection, self.parse)
            problems = self._live.not_startable(plans) if self._live is not None else ()
        except ConfigurationError as error:
            problems = tuple(error.problems)
        if problems:
            self._refused = problems
            self._tell_refused(problems)
            return problems
        kept = {name: getattr(self.settings, name) for name in AT_START}
        waiting = [name for name, value in kept.items() if getattr(settings, name) != value]
        if waiting:
            structlog.get_logger("systemprompt_jobs").warning("reload_needs_restart", of=waiting)
        self.settings = dataclasses.replace(settings, **kept)
        self._plans, self._refused = plans, ()
        self.warnings = _configure.make_warnings(settings, self.collection)
        if self._live is not None:
            self._live.reload(plans)
        return ()

    def _tell_refused(self, problems: tuple[Problem, ...]) -> None:
        if self._live is not None:
            self._live.refuse(problems)

    def stop(self, grace: timedelta | None = None) -> None:
        """Stop: claim nothing, let runs end for `grace` (the setting unless given), cut off."""
        if self._live is not None:
            seconds = (self.settings.shutdown_grace if grace is None else grace).total_seconds()
            self._live.stop(seconds)
            self._live = None
        if self._resources is not None:
            self._resources.close()
            self._resources = None
        with self._opening:
            opened, self._opened = self._opened, None
        if opened is not None:
            opened.close()

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
        at: datetime | None = None,
        who: str = "",
    ) -> list[Run]:
        """Run jobs here and now, and return their runs when all have ended.

        They are recorded, gated and take slots like any run; disabled jobs run too.
        `parameters` are laid over the configured ones, `enforce` replaces the configured value.
        `at`, an aware datetime, is the tick that the functions are told; they run now all the same.
        Raises UnknownJobError, AmbiguousJobError, ParameterError, UsageError for a degraded
        job, and StoreError; then nothing has run here. Only if the connection broke twice while
        the run was being recorded, it may be on record, and other schedulers run it in the end.
        They also run what could not be sent to a worker: it is returned as it is, `pending`.
        """
        return self._run_here(self._wanted(names, parameters, enforce, at), who)

    def submit(
        self,
        *names: str,
        parameters: Mapping[str, Any] | None = None,
        enforce: bool | None = None,
        at: datetime | None = None,
        who: str = "",
    ) -> list[Run]:
        """Hand runs to the running schedulers, and return them at once, `pending`.

        Any scheduler that has the job takes its run within about a second; one that nobody
        takes within the job's `catchup_window` becomes `cancelled`. Arguments and errors are
        those of `run`.
        """
        return self._hand_over(self._wanted(names, parameters, enforce, at), who)

    def retry(self, number: int, *, detach: bool = False, who: str = "") -> Run:
        """Run the job of a run that has ended again, by hand, with the same parameters and tick.

        Of a stretch of ticks it is the last. Here and now, or with `detach` on a running
        scheduler. Returns the new run, whose `parent` is the old one. Raises UsageError if there
        is no such run or it has not ended, and what `run` raises.
        """
        old = self.find_run(number)
        if old.state in _OPEN:
            raise UsageError(f"run {old.id} of {old.job_id} is {old.state}: it has not ended yet")
        plan = self._runnable(old.job_id)
        one = self._one_wanted(plan, old.parameters, old.enforce, old.id)
        wanted = [replace(one, tick=old.last_tick or old.tick)]
        (run,) = self._hand_over(wanted, who) if detach else self._run_here(wanted, who)
        return run

    def _wanted(
        self,
        names: Iterable[str],
        parameters: Mapping[str, Any] | None,
        enforce: bool | None,
        at: datetime | None,
    ) -> list[Wanted]:
        if at is not None and at.tzinfo is None:
            raise UsageError(f"at={at.isoformat()} is naive: give it a time zone")
        plans = [self._runnable(name) for name in names]
        found = [self._one_wanted(plan, parameters or {}, enforce, None) for plan in plans]
        return [replace(one, tick=at and at.astimezone(UTC)) for one in found]

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
        return [live.result(answer) for answer in answers]

    def _hand_over(self, wanted: Sequence[Wanted], who: str) -> list[Run]:
        from ._hand_over import hand_over

        self._store.prepare()
        return hand_over(self._store, self._store.clock(self._clock), wanted, who)

    def _live_node(self, executors: Mapping[str, Executor] | None = None) -> LiveNode:
        from ._node import LiveNode
        from ._prune import Retention

        if self._live is not None:
            raise UsageError("this runtime is running already")
        executors = self._new_executors() if executors is None else executors
        self._store.prepare()
        self._live = LiveNode(
            self._store,
            self.plans,
            self._manager,
            self._running_resources(),
            executors,
            self._clock,
            self.settings.lease.total_seconds(),
            Retention(self.settings.retention, self.settings.retention_runs),
            reload_asked=self.reload,
            crew=self._crew,
        )
        return self._live

    def attempt(
        self,
        run: Run,
        ended: Callable[[Report], None] = lambda _: None,
        said: Voice | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> Attempt:
        """Return an attempt to call a run's function here, which records nothing.

        For executors whose functions run in other processes: such a process makes a runtime of
        its own. `ended` is for whoever executes it to hand in the report. `said` is what carries
        away what the function says; what it logs with other loggers than its context's goes to
        where this process has configured them. `config` is the extension's section as the
        scheduler has it, where that may be newer than what this runtime has read. Raises
        UnknownJobError, and UsageError for a job that is degraded here.
        """
        from ._run import Attempt

        plan = self._runnable(run.job_id)
        return Attempt(
            plan if config in (None, plan.config) else replace(plan, config=config),
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

    def health(self) -> Health:
        """Return whether this runtime works and can start runs. Touches no database."""
        if self._live is None:
            why = ("the scheduler is not running", self._not_started)
            return Health(live=True, ready=False, reasons=tuple(filter(None, why)))
        return self._live.health()

    def observers(self) -> Observers:
        """Return how far the thread of lifecycle hooks is. Touches no database."""
        return Observers() if self._live is None else self._live.observer.load()

    def page(self, path: str) -> tuple[str, bytes] | None:
        """Return the content type and body that a plugin's `health_page` hook has for a path."""
        found: tuple[str, bytes] | None = self._manager.hook.health_page(path=path, runtime=self)
        return found

    def open_pages(self) -> Pages:
        """Have a plugin's `open_pages` hook serve pages for people. Raises UsageError."""
        found: Pages | None = self._manager.hook.open_pages(runtime=self)
        if found is None:
            raise UsageError(
                "no plugin serves pages: pip install systemprompt-jobs-dashboard, or let it load "
                "if it is kept out"
            )
        return found

    def examine(self) -> list[Finding]:
        """Look whether all that a scheduler needs is there and well; change nothing."""
        from ._examine import Patient, examine

        resources = self._resources or self._new_resources()
        patient = Patient(
            *(self._store, resources, self._clock, self.schedulers, self.orphans),
            lease=self.settings.lease,
            configuration=[
                self.project.root / file for file in (_configure.CONFIG, _configure.PROFILE)
            ],
        )
        try:
            return list(examine(patient))
        finally:
            if resources is not self._resources:
                resources.close()
