"""One candidate → a registered plugin, or the reason why not."""

from __future__ import annotations

import difflib
import inspect
import os
import re
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from .. import hookspecs
from .._declare import JobExtension
from .._model import Place, Problem
from ._find import Unusable

if TYPE_CHECKING:
    from collections.abc import Callable

    import pluggy

    from ._find import Candidate

NAME = re.compile(r"[a-z0-9][a-z0-9_-]*", re.ASCII)
NAME_RULE = "names are lower-case letters, digits, - and _, and begin with a letter or digit"

OBSERVERS = hookspecs.names() - {
    "jobs",
    "register_services",
    "parse_schedule",
    "make_executor",
}
"""The hooks that only observe."""

_OURS = str(Path(__file__).parent.parent)


def load(manager: pluggy.PluginManager, candidate: Candidate) -> object:
    """Import the plugin, check its hooks and register it. Raises whatever is wrong with it."""
    if not NAME.fullmatch(candidate.name):
        raise Unusable("the name cannot be used", candidate.place, NAME_RULE)
    plugin = _instance(candidate)
    _check_hooks(manager, plugin)
    manager.register(plugin, candidate.name)
    return plugin


def _instance(candidate: Candidate) -> object:
    loaded = candidate.load()
    if inspect.isclass(loaded):
        return loaded()
    if isinstance(loaded, (ModuleType, JobExtension)) or marked_hooks(loaded):
        return loaded
    raise Unusable(
        f"the entry point {candidate.extension.module} is {loaded!r}, not a plugin",
        remedy="point it at a module of @job functions or at a JobExtension class",
    )


def problem_of(candidate: Candidate, error: BaseException) -> Problem:
    """Return why the plugin is degraded, with the place in its own code."""
    if isinstance(error, Unusable):
        place = error.place if error.place.file else candidate.place
        return Problem(candidate.name, str(error), place, error.remedy)
    return Problem(candidate.name, _in_a_line(error), _place_of(error, candidate.place))


def _in_a_line(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return f"it calls sys.exit({error.code!r})"
    return f"{type(error).__name__}: {str(error).strip() or 'no message'}"


def _place_of(error: BaseException, fallback: Place) -> Place:
    """Return the innermost line of the plugin's own code in a traceback."""
    if isinstance(error, SyntaxError) and error.filename:
        return Place(Path(error.filename), error.lineno)
    found = fallback
    entry = error.__traceback__
    while entry is not None:
        file = entry.tb_frame.f_code.co_filename
        if not file.startswith((_OURS, "<frozen")) and f"{os.sep}importlib{os.sep}" not in file:
            found = Place(Path(file), entry.tb_lineno)
        entry = entry.tb_next
    return found


def function_place(function: object) -> Place:
    """Return where a function is defined."""
    code = getattr(inspect.unwrap(function) if callable(function) else None, "__code__", None)
    return Place(Path(code.co_filename), code.co_firstlineno) if code else Place()


def functions(plugin: object) -> dict[str, Callable[..., object]]:
    """Return the plugin's attributes that are plain functions or methods."""
    names = vars(plugin) if isinstance(plugin, ModuleType) else dir(plugin)
    found = {name: inspect.getattr_static(plugin, name, None) for name in names}
    return {name: value for name, value in found.items() if inspect.isfunction(value)}


def marked_hooks(plugin: object) -> dict[str, dict[str, Any]]:
    """Return the options of each function marked with `hookimpl`."""
    return {
        name: getattr(function, hookspecs.MARKER)
        for name, function in functions(plugin).items()
        if isinstance(getattr(function, hookspecs.MARKER, None), dict)
    }


def defined_in(plugin: object, value: object) -> bool:
    """Return whether a function or job belongs to the plugin and was not merely imported."""
    module = getattr(value, "__module__", "") or ""
    if isinstance(plugin, ModuleType):
        return module == plugin.__name__ or module.startswith(f"{plugin.__name__}.")
    return module != JobExtension.__module__


def _check_hooks(manager: pluggy.PluginManager, plugin: object) -> None:
    known = hookspecs.names()
    marked = marked_hooks(plugin)
    for name, function in functions(plugin).items():
        if name in marked:
            _check_hook(manager, marked[name].get("specname") or name, function, marked[name])
        elif name in known and defined_in(plugin, function):
            raise Unusable(
                f"{name}() bears a hook's name and is not marked",
                function_place(function),
                "put @hookimpl above it, or rename it",
            )


def _check_hook(
    manager: pluggy.PluginManager,
    hook: str,
    function: Callable[..., object],
    options: dict[str, Any],
) -> None:
    place = function_place(function)
    known = hookspecs.names()
    if hook not in known:
        if options.get("optionalhook"):
            return
        near = difflib.get_close_matches(hook, known, 1)
        remedy = f"did you mean {near[0]!r}?" if near else "docs/reference/hooks.md lists all"
        raise Unusable(f"there is no hook {hook!r}", place, remedy)
    if (options.get("wrapper") or options.get("hookwrapper")) and hook in OBSERVERS:
        raise Unusable(f"the hook {hook!r} only observes and takes no wrapper", place)
    takes = getattr(manager.hook, hook).spec.argnames
    wrong = sorted(set(inspect.signature(function).parameters) - {*takes, "self", "cls"})
    if wrong:
        raise Unusable(
            f"the hook {hook!r} has no argument {', '.join(map(repr, wrong))}",
            place,
            f"it takes {', '.join(takes) or 'nothing'}",
        )
