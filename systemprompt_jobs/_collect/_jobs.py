"""One plugin → its jobs, each one checked."""

from __future__ import annotations

import functools
import inspect
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from .._parameters import check_signature
from ..errors import ParameterError
from ..model import CollectedJob, Job, Place, Problem
from ._find import Unusable
from ._load import NAME, NAME_RULE, defined_in, function_place

if TYPE_CHECKING:
    import pluggy

Jobs = list[Job[..., Any]]


def jobs_of(manager: pluggy.PluginManager, plugin: object) -> Jobs:
    """Return what the plugin's `jobs()` hook says, else the jobs defined in its module."""
    for implementation in manager.hook.jobs.get_hookimpls():
        if implementation.plugin is plugin:
            others = [p for p in manager.get_plugins() if p is not plugin]
            answers = manager.subset_hook_caller("jobs", others)() or [None]
            place = function_place(implementation.function)
            return [job for answer in answers for job in _listed(answer, place)]
    if not isinstance(plugin, ModuleType):
        return []
    values = list(vars(plugin).values())
    jobs = [value for value in values if isinstance(value, Job) and defined_in(plugin, value)]
    if not jobs and not manager.get_hookcallers(plugin):
        _refuse_unseen_submodule(plugin)
    return jobs


def _listed(answer: object, place: Place) -> Jobs:
    remedy = "return a list of @job functions"
    if not isinstance(answer, Iterable):
        raise Unusable(f"jobs() returned {answer!r}", place, remedy)
    jobs = list(answer)
    for item in jobs:
        if not isinstance(item, Job):
            raise Unusable(f"jobs() returned {item!r}, which is no job", place, remedy)
    return jobs


def _refuse_unseen_submodule(plugin: ModuleType) -> None:
    """Refuse a module whose submodule `jobs` looks like the hook: its jobs are not seen."""
    submodule = vars(plugin).get("jobs")
    if isinstance(submodule, ModuleType):
        raise Unusable(
            f"it has no jobs of its own, and its submodule {submodule.__name__} is not searched",
            Place(Path(plugin.__file__)) if plugin.__file__ else Place(),
            f"import the jobs into {plugin.__name__}, or point the entry point at "
            f"{submodule.__name__}",
        )


def names_taken(jobs: Iterable[Job[..., Any]]) -> Counter[str]:
    """Return how many jobs of an extension lay claim to each name or alias."""
    return Counter(name for job in jobs for name in {job.name, *job.aliases})


def check_job(collected: CollectedJob, taken: Counter[str]) -> Problem | None:
    """Return what is wrong with a job, if anything."""
    job = collected.job
    try:
        for name in (job.name, *job.aliases):
            _check_name(name, taken[name])
        _refuse_generator(job)
        check_signature(job)
        if job.parameters:
            json.dumps(dict(job.parameters))
    except Unusable as error:
        return Problem(collected.id, str(error), job.place, error.remedy)
    except ParameterError as error:
        return Problem(collected.id, str(error), job.place)
    except (TypeError, ValueError, RecursionError) as error:
        reason = f"its parameters= cannot be stored: {error}"
        return Problem(collected.id, reason, job.place, "use text, numbers, lists and mappings")
    return None


def _check_name(name: str, owners: int) -> None:
    if not NAME.fullmatch(name):
        raise Unusable(f"the name {name!r} cannot be used", remedy=NAME_RULE)
    if owners > 1:
        raise Unusable(
            f"the name {name!r} is taken by {owners} jobs of this extension",
            remedy="rename all but one: @job(name=…)",
        )


def _refuse_generator(job: Job[..., Any]) -> None:
    """Refuse a function that would "succeed" without running a line of it."""
    if _yields(job.function):
        raise Unusable("it yields, so calling it runs nothing", remedy="return instead of yield")


@functools.lru_cache(maxsize=16)  # thousands of jobs may have one function
def _yields(function: object) -> bool:
    return inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)
