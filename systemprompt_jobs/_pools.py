"""The executors of the named pools, made by plugins from `scheduler.executors`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .errors import ConfigurationError
from .model import Place, Problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import pluggy

    from ._configure import Settings
    from .interfaces import Executor
    from .model import Plan


def make_executors(
    manager: pluggy.PluginManager,
    settings: Settings,
    plans: Iterable[Plan],
    origin: Mapping[str, Any],
) -> Mapping[str, Executor]:
    """Return an executor for each pool that some job uses, by its name.

    Raises ConfigurationError for kinds that no plugin provides, for settings that a plugin
    refuses, and for jobs that their pool cannot run.
    """
    users: dict[str, list[Plan]] = {}
    for plan in plans:
        if plan.problem is None:
            users.setdefault(plan.executor, []).append(plan)
    executors, problems = {}, []
    for name, jobs in users.items():
        made = _make(manager, settings, name, origin)
        if isinstance(made, Problem):
            problems.append(made)
            continue
        executors[name] = made
        if made.capabilities.by_name:
            problems += _without_name(name, jobs)
    if problems:
        for executor in executors.values():
            executor.close()
        raise ConfigurationError(problems)
    return executors


def unused(
    manager: pluggy.PluginManager,
    settings: Settings,
    plans: Iterable[Plan],
    origin: Mapping[str, Any],
) -> list[Problem]:
    """Return what is wrong with the pools that the files define and no job uses."""
    used, problems = {plan.executor for plan in plans if plan.problem is None}, []
    for name in settings.executors:
        if name not in used and f"executors.{name}" in settings.sources:
            made = _make(manager, settings, name, origin)
            if isinstance(made, Problem):
                problems.append(made)
            else:
                made.close()
    return problems


def make_worker_executors(
    manager: pluggy.PluginManager, settings: Settings, origin: Mapping[str, Any]
) -> Mapping[str, Executor]:
    """Return the executors of a worker, one for each pool that `settings` has.

    Raises ConfigurationError.
    """
    made = {name: _make(manager, settings, name, origin) for name in settings.executors}
    executors = {n: executor for n, executor in made.items() if not isinstance(executor, Problem)}
    if problems := [found for found in made.values() if isinstance(found, Problem)]:
        for executor in executors.values():
            executor.close()
        raise ConfigurationError(problems)
    return executors


def _make(
    manager: pluggy.PluginManager, settings: Settings, name: str, origin: Mapping[str, Any]
) -> Executor | Problem:
    pool = dict(settings.executors[name])
    kind = pool.pop("kind")
    sources = settings.sources.get(f"executors.{name}", ())
    place = sources[-1].place if sources else Place()
    try:
        executor: Executor | None = manager.hook.make_executor(
            kind=kind, settings=pool, origin=origin
        )
    except (TypeError, ValueError) as error:
        return Problem(f"scheduler.executors.{name}", str(error), place)
    if executor is None:
        reason = f"no plugin provides executors of kind {kind!r}"
        remedy = "built in are threads, processes and asyncio"
        return Problem(f"scheduler.executors.{name}", reason, place, remedy)
    return executor


def _without_name(pool: str, plans: Iterable[Plan]) -> list[Problem]:
    return [
        Problem(
            plan.id,
            f"runs in the pool {pool!r}, in another process, which cannot find its plugin: "
            "it was given to Runtime(plugins=[…]) as an object",
            plan.job.place,
            "give the name of its module or entry point, or name another executor",
        )
        for plan in plans
        if plan.extension.source == "given"
    ]
