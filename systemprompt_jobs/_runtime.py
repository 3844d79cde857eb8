"""The public `Runtime`: loads plugins and configuration, starts and stops a node, answers."""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from itertools import chain
from operator import attrgetter
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
    StoreUnusableError,
    UnknownJobError,
    UsageError,
    text_of,
)
from .model import (
    RETRYING,
    AttemptOverview,
    AuditEntry,
    Backfill,
    Backlog,
    Change,
    Explanation,
    Finding,
    Glance,
    Health,
    Job,
    JobOverview,
    JobStats,
    NodeOverview,
    Observers,
    Orphan,
    PauseOverview,
    Plan,
    Problem,
    Pruned,
    Report,
    Run,
    SchedulerOverview,
    State,
    Superseding,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
    from datetime import datetime
    from types import TracebackType

    from sqlalchemy import Connection

    from ._context import Resources
    from ._control import Control
    from ._explain import Evidence
    from ._hand_over import Wanted
    from ._middleware import Middleware
    from ._node import LiveNode, Threads
    from ._observe import Observer
    from ._store import Store
    from ._store.plans import Standing
    from .interfaces import Attempt, Clock, Executor, Pages, Schedule, Voice

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

BUILT_IN = ("intervals", "threads", "coroutines", "processes", "logs")

_number = attrgetter("id")
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*:\s", re.ASCII)
_OPEN = (State.PENDING, State.CLAIMED, State.RUNNING)
_TROUBLE = (State.FAILED, State.TIMED_OUT, State.LOST, State.MISSED, State.SKIPPED, State.CANCELLED)


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

    _crew: Threads | None = None
    """What gives a node's parts their turns: threads, but on virtual time."""

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
        self._environ = environ
        self._refused: tuple[Problem, ...] = ()
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
        self._heard = _configure.tell_plugins(self._manager, self.settings, self)
        if self._heard.mistakes:
            earlier = self._plans.problems if isinstance(self._plans, ConfigurationError) else ()
            mistakes = _configure.in_file_order([*earlier, *self._heard.mistakes])
            self._plans = ConfigurationError(mistakes)

    @property
    def plans(self) -> tuple[Plan, ...]:
        """One plan per job, degraded and disabled ones included. Raises ConfigurationError."""
        if isinstance(self._plans, ConfigurationError):
            raise self._plans
        return self._plans

    @property
    def degraded(self) -> tuple[Problem, ...]:
        """What is wrong with plugins and jobs; the others work."""
        found = {**self._heard.degraded, **self.collection.degraded}
        if not isinstance(self._plans, ConfigurationError):
            found |= {plan.id: plan.problem for plan in self._plans if plan.problem}
        return tuple(sorted((*found.values(), *self._refused), key=_file_order))

    def lint(self) -> list[Problem]:
        """Return what is valid and yet looks like a mistake, each with a `code`.

        A job's `silence` leaves codes out. So are pools that would not work and that no job uses,
        without a code. Raises ConfigurationError, also for pools that jobs use.
        """
        from . import _pools

        for executor in self._new_executors().values():  # as a start would, and nothing runs there
            executor.close()
        idle = _pools.unused(self._manager, self.settings, self.plans, self._origin)
        return idle + _configure.lint(self.plans, self.settings.workers, self._clock.now())

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

    @staticmethod
    def json_schema(*, shared: bool = False) -> dict[str, Any]:
        """Return the JSON Schema of config.yaml; of profile.yaml where `shared`."""
        return _configure.json_schema(shared=shared)

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

    def ask_reload(self, *, note: str = "", who: str = "") -> None:
        """Have every scheduler of the database read its own configuration again, within a second.

        Raises StoreError.
        """
        from ._store import jobs as job_rows
        from ._store.control import RELOAD

        self._store.prepare()
        clock = self._store.clock(self._clock)
        with self._store.write() as connection:
            job_rows.add_audit(connection, clock.read(connection), who, RELOAD, "", note)

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

    def backfill(
        self,
        name: str,
        start: datetime,
        end: datetime | None = None,
        *,
        limit: int = 100,
        dry_run: bool = False,
        who: str = "",
    ) -> Backfill:
        """Hand a job's ticks from `start` to `end` (else now) that never ran to the schedulers.

        Only those that were `missed`, or that no row covers, and that lie within `retention`; of
        them the `limit` oldest. Each is run like any tick of the job, by the present parameters;
        where runs must not overlap, one after the other. With `dry_run` nothing is changed.
        Raises UnknownJobError, AmbiguousJobError, ParameterError, StoreError, and UsageError for
        a job that is degraded, paused or without a schedule, or that has another plan in force.
        """
        from . import _backfill

        plan, until = self._runnable(name), self._clock.now() if end is None else end
        self._checked(plan, {})
        wanted = _backfill.Wanted(plan, _own_ids(plan), start, until, limit)
        if not self._readable():
            raise UsageError(f"nothing is recorded of {plan.id} yet: there is nothing to make up")
        clock, retention = self._store.clock(self._clock), self.settings.retention
        if dry_run:
            return _backfill.preview(self._store, clock, wanted, retention)
        self._store.prepare()
        return _backfill.backfill(self._store, clock, wanted, retention, who)

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

    def prune(
        self,
        *,
        older_than: timedelta | None = None,
        keep: int | None = None,
        dry_run: bool = False,
        who: str = "",
    ) -> Pruned:
        """Forget what ended longer ago than `older_than`, but the `keep` newest runs of each job.

        Both are as configured unless given; with `dry_run` nothing is deleted. Schedulers go on
        meanwhile. Raises StoreError; what was deleted before stays so.
        """
        from . import _prune

        retention = _prune.Retention(
            self.settings.retention if older_than is None else older_than,
            self.settings.retention_runs if keep is None else keep,
        )
        clock = self._store.clock(self._clock)
        if not self._readable():
            return Pruned(clock.now())
        if dry_run:
            return _prune.count_old(self._store, clock, retention)
        pruned = _prune.delete_old(self._store, clock, retention, who)
        if pruned:
            with self._observing() as observer:
                _prune.observe(observer, pruned)
        return pruned

    @contextmanager
    def _observing(self) -> Iterator[Observer]:
        """Enter with the observer of what runs here, or with one for this alone."""
        from ._observe import DRAIN_S, Observer

        if self._live is not None:
            yield self._live.observer
            return
        observer = Observer(self._manager)
        observer.start()
        try:
            yield observer
        finally:
            observer.drain(DRAIN_S)

    def cancel(self, run_id: int, *, note: str = "", who: str = "") -> Run:
        """Cancel a run on whatever node it is; return it as it is now.

        One that waits is `cancelled` at once. One that runs is told to end: its node hears of it
        within a second, and it is `cancelled` when its function has ended without success.
        Raises UsageError if there is no such run or it has ended, and StoreError.
        """
        from ._cancel import cancel, report_of

        if not self._readable():
            raise UsageError(f"there is no run {run_id}: nothing has run yet")
        run = cancel(self._store, self._store.clock(self._clock), run_id, note, who)
        if run.state is State.CANCELLED:
            hooks = ("run_cancelled", "run_finished") if run.attempt else ("run_cancelled",)
            with self._observing() as observer:
                for hook in hooks:
                    observer.put(hook, run=run, report=report_of(run))
        return run

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
        from ._prune import Retention

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
        scheduler has it, where that may be newer than what this runtime has read. Raises UnknownJobError, and UsageError for a job
        that is degraded here.
        """
        from ._run import Attempt

        plan = self._runnable(run.job_id)
        return Attempt(
            plan if config is None else replace(plan, config=config),
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

    # --- the database itself ---

    @property
    def database(self) -> str:
        """The URL of the scheduler's database, its password masked."""
        return self._store.label

    def revisions(self) -> tuple[str | None, str]:
        """Return the schema that the database has (None: none yet) and the newest one."""
        from ._store import REVISION

        return self._store.revision(), REVISION

    def upgrade(self) -> None:
        """Create or migrate the database, as a start does. Raises StoreError."""
        self._store.prepare()

    def export(self) -> Iterator[str]:
        """Yield all that is recorded as JSON lines, one snapshot. Raises StoreError."""
        from ._store import REVISION, transfer

        if not self._readable():
            raise StoreUnusableError(f"there is no database {self.database} to export")
        with self._store.read() as connection:
            yield from transfer.export(connection, REVISION)

    def load(self, lines: Iterable[str]) -> dict[str, int]:
        """Insert what `export` yielded into an empty database, all or nothing.

        Returns the number of rows by table. Raises UsageError and StoreError.
        """
        from ._store import REVISION, transfer

        self._store.prepare()
        with self._store.write() as connection:
            return transfer.load(connection, lines, REVISION)

    # --- changes ---

    def pause(
        self,
        *names: str,
        until: datetime | timedelta | None = None,
        note: str = "",
        who: str = "",
    ) -> list[PauseOverview]:
        """Pause jobs: their ticks and unstarted runs are `skipped: paused`, running ones go on.

        `until` is an aware instant or a duration; without it the pause lasts until `resume()`.
        A job that is paused already gets the new end and note. A job that is not installed can
        be paused by its id while the database knows it.
        Raises UnknownJobError, AmbiguousJobError, UsageError for an end that has passed, and
        StoreError; then nothing is paused.
        """
        ids = self._writable_ids(names)
        plans = [plan for plan in sorted(self.plans, key=lambda plan: plan.id) if plan.id in ids]
        with self._control() as control:
            return control.pause(ids, plans, until, note, who)

    def resume(self, *names: str, note: str = "", who: str = "") -> list[str]:
        """End the pauses of jobs; return the ids of those that were paused.

        What the pause has covered is one row once a scheduler that owns the job goes on with it.
        Raises UnknownJobError, AmbiguousJobError and StoreError.
        """
        with self._control() as control:
            return control.resume(self._writable_ids(names), note, who)

    def reset_clock(self, *names: str, who: str = "") -> dict[str, datetime]:
        """Let jobs go on that are settled beyond now, because a clock was wrong.

        Returns the jobs that were, with the time they waited for. Their ticks from now on come
        again, also where the wrong clock has run them.
        Raises UnknownJobError, AmbiguousJobError, UsageError for a schedule of a syntax that no
        plugin here knows, and StoreError; then nothing is changed.
        """
        with self._control() as control:
            return control.reset_clock(self._writable_ids(names), self.parse, who)

    def _writable_ids(self, names: Iterable[str]) -> list[str]:
        _ = self.plans  # raises what is wrong with the configuration before anything is made
        self._store.prepare()
        known = set(self.known_ids())
        return sorted({self._known_id(name, known) for name in names})

    def _known_id(self, name: str, known: Collection[str]) -> str:
        try:
            return self.find(name).id
        except UnknownJobError:
            if name not in known:
                raise
            return name

    @contextmanager
    def _control(self) -> Iterator[Control]:
        from ._control import Control

        with self._observing() as observer:
            yield Control(self._store, self._store.clock(self._clock), observer)

    # --- questions ---

    def health(self) -> Health:
        """Return whether this runtime works and can start runs. Touches no database."""
        if self._live is None:
            return Health(live=True, ready=False, reasons=("the scheduler is not running",))
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

    def jobs(self, *ids: str) -> list[JobOverview]:
        """Return these jobs, else all, with next tick and newest run, in the order of their ids."""
        chosen = set(ids)
        plans = [plan for plan in self.plans if not ids or plan.id in chosen]
        own = {plan.id: _own_ids(plan) for plan in plans}
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

    def orphans(self) -> list[Orphan]:
        """Return the jobs of the database that neither a live node nor this machine has."""
        from ._store import plans as plan_rows
        from ._store import queries

        if not self._readable():
            return []
        mine = {id_ for plan in self.plans for id_ in _own_ids(plan)}
        with self._store.read() as connection:
            known = queries.job_ids(connection) - mine
            if known:
                known -= plan_rows.provided(connection, *self._lease_now(connection))
            last = queries.last_runs(connection) if known else {}
        return [Orphan(id_, last.get(id_)) for id_ in sorted(known)]

    def _lease_now(self, connection: Connection) -> tuple[int, str]:
        """Return what tells whether a lease has run out: the time, and this host's boot."""
        clock = self._store.clock(self._clock)
        clock.read(connection)
        return clock.lease_now(), boot_id() if self._store.one_host else ""

    def _last_runs(self) -> Mapping[str, Run]:
        from ._store import queries

        if not self._readable():
            return {}
        with self._store.read() as connection:
            return queries.last_runs(connection)

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
        from ._store import evidence

        if not self._readable():
            return Evidence()
        clock = self._store.clock(self._clock)
        boot = boot_id() if self._store.one_host else ""
        with self._store.read() as connection:
            clock.read(connection)
            row = evidence.job_row(connection, plan.id)
            live = evidence.live_nodes(connection, plan.id, clock.lease_now(), boot)
            if at is None:
                other = evidence.run_now(connection, plan.id)
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

    def history(
        self,
        *,
        job: str | None = None,
        states: Sequence[str] | None = None,
        tag: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        node: str | None = None,
        text: str | None = None,
        before: int | None = None,
        limit: int = 20,
    ) -> list[Run]:
        """Return the newest runs, newest first.

        `job` is the name of a job as `find` takes it, or the id of one that is gone; the history
        of its aliases is its own. Raises UnknownJobError, AmbiguousJobError and StoreError.
        `tag`: of installed jobs with it. `since`, `until`: those whose time, from the tick to
        the end, overlaps. `node`: of nodes whose id begins so. `text`: that say this in error or
        message, in small or capital letters. `before`: older than the run of this id.
        """
        from ._store import queries

        ids = self._ids(job)
        if not self._readable():
            return []
        if tag is not None:
            tagged = {id_ for p in self.plans if tag in p.job.tags for id_ in _own_ids(p)}
            ids = sorted(tagged if ids is None else tagged & {*ids})
        wanted = queries.Wanted(since, until, node, text, before)
        with self._store.read() as connection:
            return queries.history(connection, ids, states, limit, wanted)

    def nodes(self, gone: timedelta = timedelta(days=1)) -> list[NodeOverview]:
        """Return the live schedulers, oldest first, and those that went within `gone`."""
        from . import _look

        if not self._readable():
            return []
        return _look.nodes(self._store, self._store.clock(self._clock), gone)

    def backlog(self) -> list[Backlog]:
        """Return what has not ended, for each job that has such runs, by id. One statement."""
        from . import _look

        if not self._readable():
            return []
        return _look.backlog(self._store, self._store.clock(self._clock))

    def audit(self, limit: int = 20, before: int | None = None) -> list[AuditEntry]:
        """Return who did what by hand, newest first; `before` is the id of an entry."""
        from . import _look

        return _look.audit(self._store, before, limit) if self._readable() else []

    def stats(self, *jobs: str, since: timedelta = timedelta(days=7)) -> list[JobStats]:
        """Return how jobs did: these ids, else all that are in the history, by id."""
        from . import _look

        if not self._readable():
            return []
        ids = [id_ for job in jobs for id_ in self._ids(job) or ()] if jobs else None
        return _look.stats(self._store, self._store.clock(self._clock), ids, since)

    def newest(self, *jobs: str, limit: int = 40) -> dict[str, list[Run]]:
        """Return the newest runs of these jobs by id, oldest first; those without any are left out."""
        from ._store import statistics

        if not self._readable():
            return {}
        with self._store.read() as connection:
            return statistics.newest(connection, jobs, limit)

    def glances(self, *jobs: str, limit: int = 40) -> dict[str, list[Glance]]:
        """Return the newest runs of these jobs as strips and charts show them, oldest first."""
        from ._store import statistics

        if not self._readable():
            return {}
        with self._store.read() as connection:
            return statistics.glances(connection, jobs, limit)

    def activity(
        self, *jobs: str, since: datetime, width: timedelta
    ) -> dict[str, dict[int, dict[str, int]]]:
        """Return how many runs and ticks of these jobs came to which end in each stretch of time.

        By job, by the number of the stretch from `since` on, by state; `retried` is one that
        succeeded at a later attempt.
        """
        from . import _look

        return _look.activity(self._store, jobs, since, width) if self._readable() else {}

    def begun(self, *, since: datetime, width: timedelta) -> dict[int, int]:
        """Return in how many jobs something happened in each stretch of time from `since` on."""
        from ._store import statistics

        if not self._readable():
            return {}
        with self._store.read() as connection:
            return statistics.begun(connection, since, width)

    def _ids(self, job: str | None) -> list[str] | None:
        """Return the id of a job with its former ones. Raises as `find` what nobody knows."""
        if job is None:
            return None
        exact = next((plan for plan in self.plans if plan.id == job), None)
        try:
            return _own_ids(exact or self.find(job))
        except UnknownJobError:
            if not self._recorded(job):
                raise
            return [job]

    def _recorded(self, job_id: str) -> bool:
        from ._store import queries

        if not self._readable():
            return False
        with self._store.read() as connection:
            return queries.knows(connection, job_id)

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

        if not self._readable():
            return []
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
            return sorted(installed | queries.job_ids(connection))

    def status(self) -> SchedulerOverview:
        """Return the scheduler at a glance."""
        running: list[Run] = []
        troubled: list[Run] = []
        nodes: tuple[NodeOverview, ...] = ()
        counts: Mapping[str, int] = {}
        waiting: Sequence[datetime] = ()
        if self._readable():
            running = self.history(states=[State.RUNNING, RETRYING], limit=100)
            troubled = self.history(states=_TROUBLE, limit=5)
            nodes, counts, waiting = tuple(self.schedulers()), self.counts(), self._waiting()
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
        )

    def schedulers(self, job: str | None = None) -> list[NodeOverview]:
        """Return the live schedulers, or those of them that have the job of this id."""
        from ._store import nodes, queries

        if not self._readable():
            return []
        with self._store.read() as connection:
            live = nodes.live(connection, *self._lease_now(connection))
            having = None if job is None else queries.sets_with(connection, job)
        return [_node_overview(row) for row in live if having is None or row.job_set in having]

    def counts(self, since: timedelta = timedelta(days=1)) -> Mapping[str, int]:
        """Return how many runs and ticks were recorded within this time, by state."""
        from ._store import queries

        if not self._readable():
            return {}
        clock = self._store.clock(self._clock)
        with self._store.read() as connection:
            return queries.counts_since(connection, clock.read(connection) - since)

    def _waiting(self) -> Sequence[datetime]:
        """Return since when what is due waits, of jobs that this configuration has."""
        from ._store import queries

        mine = {plan.id for plan in self.plans if plan.enabled and plan.problem is None}
        clock = self._store.clock(self._clock)
        with self._store.read() as connection:
            return queries.waiting(connection, clock.read(connection), mine)

    def last_in(self, *states: str) -> set[str]:
        """Return the jobs whose newest run is in one of these states."""
        from ._store import queries

        if not self._readable():
            return set()
        with self._store.read() as connection:
            return queries.last_in(connection, states)

    def _readable(self) -> bool:
        """Return whether there is a database yet; raises StoreError if it cannot be used."""
        return self._store.usable()


def _node_overview(row: Any) -> NodeOverview:
    return NodeOverview(
        row.id,
        row.version,
        row.workers,
        row.started,
        row.heartbeat,
        strays=row.strays,
        problem=row.problem,
    )


def _file_order(problem: Problem) -> tuple[str, int]:
    return str(problem.place.file or ""), problem.place.line or 0


def _own_ids(plan: Plan) -> list[str]:
    """Return the job's id and those that it had."""
    return [plan.id, *(f"{plan.extension.name}:{alias}" for alias in plan.job.aliases)]


def _names(plan: Plan) -> set[str]:
    job: Job[..., Any] = plan.job
    aliases = {f"{plan.extension.name}:{alias}" for alias in job.aliases}
    return {plan.id, job.name, *job.aliases, *aliases}


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
        from ._trace import trace_hooks

        trace_hooks(manager, lambda line: print(line, file=sys.stderr, flush=True))  # noqa: T201
    return manager
