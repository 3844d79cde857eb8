"""Plugins → (extension, Job). One broken plugin is degraded with its reason; the others load.

A plugin is loaded whole or not at all. pluggy's own loader stops at the first broken entry
point, lets SystemExit through and drops the second plugin of a name in silence, so each is
loaded here one at a time.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
import json
import os
import re
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from . import hookspecs
from ._declare import JobExtension
from ._model import CollectedJob, Collection, Extension, Job, Place, Problem
from ._parameters import check_signature
from .errors import ParameterError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from importlib.metadata import EntryPoint

    import pluggy

NAME = re.compile(r"[a-z0-9][a-z0-9_-]*", re.ASCII)
_NAME_RULE = "names are lower-case letters, digits, - and _, and start with a letter or digit"


class _Broken(Exception):
    """A plugin or a job that cannot be used."""

    def __init__(self, reason: str, place: Place | None = None, remedy: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.place = place or Place()
        self.remedy = remedy


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A plugin found and not yet loaded."""

    extension: Extension
    load: Callable[[], object]
    place: Place = Place()


@dataclass(slots=True)
class _Result:
    extensions: list[Extension] = field(default_factory=list)
    jobs: list[CollectedJob] = field(default_factory=list)
    degraded: dict[str, Problem] = field(default_factory=dict)


def collect(
    manager: pluggy.PluginManager,
    *,
    modules: Sequence[str] = (),
    files: Sequence[Path] = (),
    blocked: Iterable[str] = (),
    allowed: str | None = None,
) -> Collection:
    """Load every plugin into `manager` and return what they brought.

    - `modules`: entry-point names or modules of `--plugin`; raises UsageError for one that
      does not exist.
    - `files`: the project's `local_plugins`.
    - `blocked`: names of `--no-plugin`.
    - `allowed`: the text of `SYSTEMPROMPT_PLUGINS`, which limits auto-loading of installed
      plugins to these comma-separated names; None loads all, empty none.
    """
    blocked = frozenset(blocked)
    candidates = [*_installed(), *map(_local, files)]
    named = [_named(module, candidates) for module in modules]
    result = _Result()
    chosen, kept_out = _choose(candidates, named, blocked, allowed, result)
    taken = Counter(c.extension.name for c in chosen)
    for candidate in chosen:
        if taken[candidate.extension.name] > 1:
            _degrade_name_clash(candidate, chosen, result)
        else:
            _load(manager, candidate, result)
    return Collection(
        tuple(result.extensions), tuple(result.jobs), tuple(kept_out), result.degraded
    )


# --- finding ---


def _installed() -> Iterator[_Candidate]:
    from importlib.metadata import entry_points

    for entry_point in sorted(entry_points(group=hookspecs.PROJECT)):
        yield _Candidate(_extension_of(entry_point), entry_point.load)


def _extension_of(entry_point: EntryPoint) -> Extension:
    distribution = entry_point.dist
    return Extension(
        name=entry_point.name,
        module=entry_point.value,
        distribution=distribution.name if distribution else "",
        version=distribution.version if distribution else "",
    )


def _local(file: Path) -> _Candidate:
    name = file.stem.lower()
    return _Candidate(
        Extension(name, str(file), source="local"),
        lambda: _import_file(file),
        Place(file),
    )


def _import_file(file: Path) -> ModuleType:
    name = f"systemprompt_local_{file.stem}"
    package = file.is_dir()
    spec = importlib.util.spec_from_file_location(
        name,
        file / "__init__.py" if package else file,
        submodule_search_locations=[str(file)] if package else None,
    )
    if spec is None or spec.loader is None:
        raise _Broken("is no Python file", Place(file))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # before it runs, as import does: dataclasses look it up
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _named(text: str, candidates: Sequence[_Candidate]) -> _Candidate:
    """Return the plugin that `--plugin` names: an entry point, or else a module."""
    for candidate in candidates:
        if text in {candidate.extension.name, candidate.extension.module}:
            return candidate
    try:
        found = importlib.util.find_spec(text) is not None
    except (ImportError, ValueError):
        found = False
    if not found:
        near = difflib.get_close_matches(text, [c.extension.name for c in candidates], 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise UsageError(f"--plugin {text}: no plugin or module of this name{hint}")
    name = text.rpartition(".")[2].lower()
    extension = Extension(name, text, source="command line")
    return _Candidate(extension, lambda: importlib.import_module(text))


def _choose(
    candidates: Sequence[_Candidate],
    named: Sequence[_Candidate],
    blocked: frozenset[str],
    allowed: str | None,
    result: _Result,
) -> tuple[list[_Candidate], list[str]]:
    """Return the plugins to load, and the names of those that were kept out."""
    auto = {c for c in candidates if _auto_loads(c, allowed)}
    _report_unknown_allowed(allowed, candidates, result)
    wanted = [c for c in candidates if c in auto or c in named]
    wanted += [c for c in dict.fromkeys(named) if c not in candidates]
    chosen = [c for c in wanted if c.extension.name not in blocked]
    kept_out = {c.extension.name for c in candidates} - {c.extension.name for c in chosen}
    return chosen, sorted(kept_out)


def _allowed_names(allowed: str) -> list[str]:
    return [name for name in re.split(r"[,\s]+", allowed) if name]


def _auto_loads(candidate: _Candidate, allowed: str | None) -> bool:
    extension = candidate.extension
    if allowed is None or extension.source != "installed":
        return True
    return bool({extension.name, extension.distribution} & set(_allowed_names(allowed)))


def _report_unknown_allowed(
    allowed: str | None, candidates: Sequence[_Candidate], result: _Result
) -> None:
    known = {n for c in candidates for n in (c.extension.name, c.extension.distribution)}
    for name in _allowed_names(allowed or ""):
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            result.degraded[name] = Problem(
                name,
                "SYSTEMPROMPT_PLUGINS names a plugin that is not installed",
                remedy=f"did you mean {near[0]!r}?" if near else "install it or remove the name",
            )


def _degrade_name_clash(
    candidate: _Candidate, chosen: Sequence[_Candidate], result: _Result
) -> None:
    name = candidate.extension.name
    owners = sorted(
        (c.extension.distribution or c.extension.module) for c in chosen if c.extension.name == name
    )
    result.extensions.append(candidate.extension)
    result.degraded[name] = Problem(
        name,
        f"the name is taken by several plugins: {', '.join(owners)}",
        candidate.place,
        "uninstall or block all but one, or rename one",
    )


# --- loading ---


def _load(manager: pluggy.PluginManager, candidate: _Candidate, result: _Result) -> None:
    extension = candidate.extension
    result.extensions.append(extension)
    try:
        if not NAME.fullmatch(extension.name):
            raise _Broken("the name cannot be used", candidate.place, _NAME_RULE)
        plugin = _plugin(candidate)
        _check_hooks(manager, plugin)
        manager.register(plugin, extension.name)
        jobs = _jobs(manager, plugin)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001  # SystemExit at import must not end us
        if manager.has_plugin(extension.name):
            manager.unregister(name=extension.name)
        result.degraded[extension.name] = _problem(candidate, error)
    else:
        _add_jobs(extension, jobs, result)


def _problem(candidate: _Candidate, error: BaseException) -> Problem:
    name = candidate.extension.name
    if isinstance(error, _Broken):
        place = error.place if error.place.file else candidate.place
        return Problem(name, error.reason, place, error.remedy)
    return Problem(name, describe_error(error), _place_of(error, candidate.place))


def describe_error(error: BaseException) -> str:
    """Return an exception in one line of plain text."""
    if isinstance(error, SystemExit):
        return f"calls sys.exit({error.code!r})"
    text = str(error).strip() or "no message"
    return f"{type(error).__name__}: {text}"


def _place_of(error: BaseException, fallback: Place) -> Place:
    """Return the innermost line of the plugin's own code in a traceback."""
    if isinstance(error, SyntaxError) and error.filename:
        return Place(Path(error.filename), error.lineno)
    ours = str(Path(__file__).parent)
    found = fallback
    entry = error.__traceback__
    while entry is not None:
        file = entry.tb_frame.f_code.co_filename
        if not file.startswith((ours, "<frozen")) and f"{os.sep}importlib{os.sep}" not in file:
            found = Place(Path(file), entry.tb_lineno)
        entry = entry.tb_next
    return found


def _plugin(candidate: _Candidate) -> object:
    loaded = candidate.load()
    if inspect.isclass(loaded):
        return loaded()
    if isinstance(loaded, (ModuleType, JobExtension)):
        return loaded
    if _marked_hooks(loaded):
        return loaded
    raise _Broken(
        f"the entry point {candidate.extension.module} is {loaded!r}, not a plugin",
        remedy="point it at a module of @job functions or at a JobExtension class",
    )


def _members(plugin: object) -> dict[str, object]:
    """Return the public attributes that may be hooks, defined by the plugin itself."""
    names = vars(plugin) if isinstance(plugin, ModuleType) else dir(plugin)
    found = {name: inspect.getattr_static(plugin, name, None) for name in names}
    return {name: value for name, value in found.items() if inspect.isfunction(value)}


def _marked_hooks(plugin: object) -> dict[str, dict[str, Any]]:
    return {
        name: getattr(value, hookspecs.MARKER)
        for name, value in _members(plugin).items()
        if isinstance(getattr(value, hookspecs.MARKER, None), dict)
    }


def _check_hooks(manager: pluggy.PluginManager, plugin: object) -> None:
    known = hookspecs.names()
    marked = _marked_hooks(plugin)
    members = _members(plugin)
    for name, options in marked.items():
        place = _function_place(members[name])
        hook = options.get("specname") or name
        if hook not in known and not options.get("optionalhook"):
            near = difflib.get_close_matches(hook, known, 1)
            remedy = f"did you mean {near[0]!r}?" if near else "see docs/reference/hooks.md"
            raise _Broken(f"there is no hook {hook!r}", place, remedy)
        if (options.get("wrapper") or options.get("hookwrapper")) and hook in observers():
            raise _Broken(f"the hook {hook!r} only observes and takes no wrapper", place)
        _check_arguments(manager, hook, members[name], place)
    for name, member in members.items():
        if name in known and name not in marked and _defined_in(plugin, member):
            raise _Broken(
                f"{name}() bears a hook's name and is not marked",
                _function_place(member),
                "put @hookimpl above it, or rename it",
            )


def _check_arguments(
    manager: pluggy.PluginManager, hook: str, member: object, place: Place
) -> None:
    caller = getattr(manager.hook, hook, None)
    if caller is None or caller.spec is None or not callable(member):
        return
    wrong = set(inspect.signature(member).parameters) - {*caller.spec.argnames, "self", "cls"}
    if wrong:
        takes = ", ".join(caller.spec.argnames) or "nothing"
        raise _Broken(
            f"the hook {hook!r} has no argument {', '.join(map(repr, sorted(wrong)))}",
            place,
            f"it takes {takes}",
        )


def observers() -> frozenset[str]:
    """Return the names of the hooks that only observe."""
    return hookspecs.names() - {"jobs", "register_services", "parse_schedule", "make_executor"}


def _function_place(value: object) -> Place:
    code = getattr(inspect.unwrap(value) if callable(value) else None, "__code__", None)
    return Place(Path(code.co_filename), code.co_firstlineno) if code else Place()


def _defined_in(plugin: object, value: object) -> bool:
    module = getattr(value, "__module__", "") or ""
    if isinstance(plugin, ModuleType):
        return module == plugin.__name__ or module.startswith(f"{plugin.__name__}.")
    return module != JobExtension.__module__


# --- jobs ---


def _jobs(manager: pluggy.PluginManager, plugin: object) -> list[Job[..., Any]]:
    """Return the plugin's jobs: those of its `jobs()` hook, else those defined in its module."""
    if "jobs" in _marked_hooks(plugin):
        others = [p for p in manager.get_plugins() if p is not plugin]
        return _checked(manager.subset_hook_caller("jobs", others)(), plugin)
    if not isinstance(plugin, ModuleType):
        return []
    return list(
        dict.fromkeys(
            value
            for value in vars(plugin).values()
            if isinstance(value, Job) and _defined_in(plugin, value)
        )
    ) or _warn_about_submodule(plugin)


def _checked(answers: Sequence[object], plugin: object) -> list[Job[..., Any]]:
    place = _function_place(getattr(plugin, "jobs", None))
    if not answers:
        raise _Broken("jobs() returned None", place, "return a list of @job functions")
    try:
        found = list(answers[0])  # type: ignore[call-overload]
    except TypeError:
        raise _Broken(
            f"jobs() returned {answers[0]!r}", place, "return a list of @job functions"
        ) from None
    for item in found:
        if not isinstance(item, Job):
            raise _Broken(f"jobs() returned {item!r}, which is no job", place, "decorate it: @job")
    return found


def _warn_about_submodule(plugin: ModuleType) -> list[Job[..., Any]]:
    """A submodule named `jobs` looks like the hook and is not: say so where nothing else is."""
    submodule = vars(plugin).get("jobs")
    if isinstance(submodule, ModuleType) and not _marked_hooks(plugin):
        raise _Broken(
            f"the module has no jobs of its own, and its submodule {submodule.__name__} "
            "is not looked into",
            Place(Path(plugin.__file__)) if plugin.__file__ else Place(),
            f"import the jobs into {plugin.__name__} or point the entry point at "
            f"{submodule.__name__}",
        )
    return []


def _add_jobs(extension: Extension, jobs: Sequence[Job[..., Any]], result: _Result) -> None:
    taken = Counter(name for job in jobs for name in {job.name, *job.aliases})
    for job in jobs:
        collected = CollectedJob(extension, job)
        try:
            _check_job(job, taken)
        except (_Broken, ParameterError) as error:
            remedy = error.remedy if isinstance(error, _Broken) else ""
            result.degraded[collected.id] = Problem(collected.id, str(error), job.place, remedy)
        if collected.id not in {known.id for known in result.jobs}:
            result.jobs.append(collected)


def _check_job(job: Job[..., Any], taken: Counter[str]) -> None:
    for name in (job.name, *job.aliases):
        if not NAME.fullmatch(name):
            raise _Broken(f"the name {name!r} cannot be used", remedy=_NAME_RULE)
        if taken[name] > 1:
            raise _Broken(
                f"the name {name!r} is taken by {taken[name]} jobs of this extension",
                remedy="rename all but one: @job(name=…)",
            )
    check_signature(job)
    try:
        json.dumps(dict(job.parameters))
    except (TypeError, ValueError) as error:
        raise _Broken(
            f"its parameters= cannot be stored: {error}", remedy="use plain values"
        ) from None
