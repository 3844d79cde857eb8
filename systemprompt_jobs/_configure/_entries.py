"""Match what the files say of jobs and extensions with those that were collected."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .._parameters import near, shown
from ..model import Problem
from ._yaml import path_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ..model import Collection
    from ._layers import Entry
    from ._settings import Settings


@dataclass(frozen=True, slots=True)
class Matches:
    """The entries of each job by its id, lowest layer first, and what matched nothing."""

    entries: Mapping[str, tuple[Entry, ...]]
    problems: tuple[Problem, ...]
    warnings: tuple[Problem, ...]


def match_entries(settings: Settings, collection: Collection) -> Matches:
    """Match entries by `extension:job`, today's names before former ones."""
    ids = _ids_by_name(collection) if settings.entries else {}
    firsts: dict[tuple[str, str], Entry] = {}
    matched: dict[str, tuple[Entry, ...]] = {}
    problems, unknown, warnings = [], _unknown_sections(settings, collection), []
    for entry in settings.entries:
        job_id = ids.get(entry.id, entry.id)
        first = firsts.setdefault((entry.layer, job_id), entry)
        if not entry.extension:
            problems.append(_without_extension(entry, collection))
        elif first is not entry:
            problems.append(_second(entry, first, job_id))
        elif entry.id in ids:
            matched[job_id] = (*matched.get(job_id, ()), entry)
        elif reason := _inert(entry, collection):
            warnings.append(_problem(entry, f"has no effect: {reason}"))
        else:
            unknown.append(_unknown(entry, collection))
    warn = settings.unknown_jobs == "warn"
    return Matches(
        matched,
        tuple(problems if warn else problems + unknown),
        tuple(warnings + unknown if warn else warnings),
    )


def _ids_by_name(collection: Collection) -> dict[str, str]:
    ids = {job.id: job.id for job in collection.jobs}
    for job in collection.jobs:
        for alias in job.job.aliases:
            full = alias if ":" in alias else f"{job.extension.name}:{alias}"
            ids.setdefault(full, job.id)
    return ids


def _inert(entry: Entry, collection: Collection) -> str:
    """Return why an entry of an installed extension may match nothing, empty if it may not."""
    if entry.extension in collection.blocked:
        return f"the extension {entry.extension} is blocked"
    for culprit in (entry.extension, entry.id):
        if culprit in collection.degraded:
            return f"{culprit} is degraded: {collection.degraded[culprit].reason}"
    return ""


def _unknown(entry: Entry, collection: Collection) -> Problem:
    extensions = {extension.name for extension in collection.extensions}
    if entry.extension not in extensions:
        reason = f"no extension {shown(entry.extension)} is installed"
        return _problem(entry, reason, _near_extension(entry.extension, extensions))
    jobs = [job.job.name for job in collection.jobs if job.extension.name == entry.extension]
    reason = f"the extension {entry.extension} has no job {shown(entry.job)}"
    return _problem(entry, reason, near(entry.job, jobs) or _there_is(jobs))


def _unknown_sections(settings: Settings, collection: Collection) -> list[Problem]:
    names = {extension.name for extension in collection.extensions}
    known = names | set(collection.blocked) | set(collection.degraded)
    return [
        Problem(
            path_text(("extensions", name)),
            f"no extension {shown(name)} is installed",
            settings.sources[f"extensions.{name}"][-1].place,
            _near_extension(name, names),
        )
        for name in settings.extensions
        if name not in known
    ]


def _without_extension(entry: Entry, collection: Collection) -> Problem:
    short = entry.job.rpartition(":")[2]
    owners = [job.extension.name for job in collection.jobs if job.job.name == short]
    remedy = " or ".join(f"`extension: {owner}`" for owner in owners) or "`extension: its-plugin`"
    return _problem(entry, f"names no extension for the job {shown(entry.job)}", f"add {remedy}")


def _second(entry: Entry, first: Entry, job_id: str) -> Problem:
    reason = f"is a second entry for {shown(job_id)}, the first is in line {first.place.line}"
    return _problem(entry, reason, "merge them")


def _problem(entry: Entry, reason: str, remedy: str = "") -> Problem:
    return Problem(entry.path, reason, entry.place, remedy)


def _near_extension(name: str, names: set[str]) -> str:
    local = "files of the project's own load where `local_plugins` lists them"
    return near(name, names) or "; ".join(filter(None, (_there_is(names), local)))


def _there_is(names: Iterable[str]) -> str:
    found = ", ".join(sorted(names))
    return f"there is {found}" if found else ""
