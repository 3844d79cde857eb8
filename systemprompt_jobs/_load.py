"""The foundation of a `Runtime`: plugins collected, configuration applied, jobs by name."""

from __future__ import annotations

import difflib
import os
import re
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from . import _calendar, _configure
from ._clock import SystemClock
from ._collect import collect
from .errors import (
    AmbiguousJobError,
    ConfigurationError,
    ScheduleError,
    UnknownJobError,
    UsageError,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ._observe import Hooks
    from ._runtime import Runtime
    from ._store import Store
    from .interfaces import Clock, Executor, Schedule
    from .model import Job, Plan, Problem

BUILT_IN = ("intervals", "threads", "coroutines", "processes", "logs")

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*:\s", re.ASCII)


class Loaded:
    """What plugins and files say; the database is opened when it is first asked."""

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
        self._opening = threading.Lock()
        self._opened: Store | None = None
        self._index: tuple[object, Mapping[str, Plan]] = (None, {})
        self._plans: tuple[Plan, ...] | ConfigurationError
        try:
            self._plans = _configure.make_plans(self.settings, self.collection, self.parse)
        except ConfigurationError as error:
            self._plans = error
        self._heard = _configure.tell_plugins(self._manager, self.settings, cast("Runtime", self))
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
            raise ScheduleError(
                f"schedule {text!r}: no plugin knows the form '{scheme}: …'; built in is 'every: 5m'"
            )
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
        if name in (exact := self._by_id()):
            return exact[name]
        found = [plan for plan in self.plans if name in _names(plan)]
        if len(found) == 1:
            return found[0]
        if found:
            raise AmbiguousJobError(
                f"several jobs are called {name!r}: {', '.join(plan.id for plan in found)}"
            )
        known = sorted({known for plan in self.plans for known in (plan.id, plan.job.name)})
        near = difflib.get_close_matches(name, known, 3)
        hint = f"did you mean {' or '.join(near)}?" if near else "see `list` for all jobs"
        raise UnknownJobError(f"there is no job {name!r}; {hint}")

    def _by_id(self) -> Mapping[str, Plan]:
        """Return the plans by their ids: each attempt of a worker process looks one up."""
        plans, by_id = self._index
        if plans is not self.plans:
            plans = self.plans
            by_id = {plan.id: plan for plan in plans}
            self._index = plans, by_id
        return by_id

    def _runnable(self, name: str) -> Plan:
        plan = self.find(name)
        if plan.problem is not None:
            raise UsageError(f"the job {plan.id} is degraded: {plan.problem}")
        return plan

    def _new_executors(self) -> Mapping[str, Executor]:
        """Return an executor for each pool that some job uses, by its name."""
        from ._pools import make_executors

        return make_executors(self._manager, self.settings, self.plans, self._origin)

    @property
    def _store(self) -> Store:
        with self._opening:
            if self._opened is None:
                self._opened = self._new_store()
            return self._opened

    def _new_store(self) -> Store:
        from ._store import Store

        return Store(self.settings.database, self.settings.lease.total_seconds())

    def _readable(self) -> bool:
        """Return whether there is a database yet; raises StoreError if it cannot be used."""
        return self._store.usable()


def own_ids(plan: Plan) -> list[str]:
    """Return the job's id and those that it had."""
    return [plan.id, *(f"{plan.extension.name}:{alias}" for alias in plan.job.aliases)]


def _names(plan: Plan) -> set[str]:
    job: Job[..., Any] = plan.job
    aliases = {f"{plan.extension.name}:{alias}" for alias in job.aliases}
    return {plan.id, job.name, *job.aliases, *aliases}


def _file_order(problem: Problem) -> tuple[str, int]:
    return str(problem.place.file or ""), problem.place.line or 0


def _new_manager(*, trace: bool) -> Hooks:
    import importlib
    import sys

    from ._observe import Hooks

    manager = Hooks()
    for name in BUILT_IN:
        module = importlib.import_module(f"systemprompt_jobs.builtin.{name}")
        manager.register(module, f"core.{name}")
    if trace:
        from ._trace import trace_hooks

        trace_hooks(manager, lambda line: print(line, file=sys.stderr, flush=True))  # noqa: T201
    return manager
