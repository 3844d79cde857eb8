"""One candidate → a registered plugin, or the reason why not."""

from __future__ import annotations

import importlib
import inspect
import os
import re
from collections.abc import Hashable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pluggy

from .. import hookspecs
from .._declare import JobExtension
from .._parameters import near
from ..errors import text_of
from ..model import Place, Problem
from ._find import Unusable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ._find import Candidate

NAME = re.compile(r"[a-z0-9][a-z0-9_-]*", re.ASCII)
NAME_RULE = "names are lower-case letters, digits, - and _, and begin with a letter or digit"

_MACHINERY = (
    "<frozen ",
    *(
        f"{Path(file).parent}{os.sep}"
        for file in (hookspecs.__file__, importlib.__file__, pluggy.__file__)
    ),
)
"""Where the files begin that stand between a plugin's code and us in a traceback."""


def load(manager: pluggy.PluginManager, candidate: Candidate) -> object:
    """Import the plugin, check its hooks and register it. Raises whatever is wrong with it."""
    if not NAME.fullmatch(candidate.name):
        raise Unusable("the name cannot be used", candidate.place, NAME_RULE)
    plugin = _instance(candidate)
    if not isinstance(plugin, Hashable):  # pluggy would blame others for it
        raise Unusable("it cannot be hashed", candidate.place, "try @dataclass(eq=False)")
    if manager.is_registered(plugin):
        raise Unusable(f"it is the same plugin as {manager.get_name(plugin)!r}", candidate.place)
    _check_hooks(manager, plugin)
    manager.register(plugin, candidate.name)
    return plugin


def _instance(candidate: Candidate) -> object:
    loaded = candidate.load()
    if inspect.isclass(loaded):
        return loaded()
    if isinstance(loaded, (ModuleType, JobExtension)) or any(
        map(_options, functions(loaded).values())
    ):
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
    return Problem(candidate.name, text_of(error), _place_of(error, candidate.place))


def _place_of(error: BaseException, fallback: Place) -> Place:
    """Return the innermost line of the plugin's own code in a traceback."""
    if isinstance(error, SyntaxError) and error.filename and Path(error.filename).is_file():
        return Place(Path(error.filename), error.lineno)
    places = list(_places(error))
    if not places:
        return fallback
    entered = places[0][0]
    package = entered.parent if entered.name == "__init__.py" else entered
    return [Place(*place) for place in places if place[0].is_relative_to(package)][-1]


def _places(error: BaseException) -> Iterator[tuple[Path, int]]:
    """Yield file and line of each call, outermost first, from where plugin code was entered."""
    entry = error.__traceback__
    while entry is not None:
        file = entry.tb_frame.f_code.co_filename
        if not file.startswith(_MACHINERY):
            yield Path(file), entry.tb_lineno
        entry = entry.tb_next


def function_place(function: object) -> Place:
    """Return where a function is defined."""
    code = getattr(inspect.unwrap(function) if callable(function) else None, "__code__", None)
    return Place(Path(code.co_filename), code.co_firstlineno) if code else Place()


def functions(plugin: object) -> dict[str, Callable[..., object]]:
    """Return the plugin's attributes that are plain functions or methods of any kind."""
    names = vars(plugin) if isinstance(plugin, ModuleType) else dir(plugin)
    found = {name: inspect.getattr_static(plugin, name, None) for name in names}
    kinds = (staticmethod, classmethod)
    plain = {n: v.__func__ if isinstance(v, kinds) else v for n, v in found.items()}
    return {name: value for name, value in plain.items() if inspect.isfunction(value)}


def _options(function: object) -> dict[str, Any]:
    """Return what `hookimpl` was told about a function, empty if it is not marked."""
    options = getattr(function, hookspecs.MARKER, None)
    return options if isinstance(options, dict) else {}


def defined_in(plugin: object, value: object) -> bool:
    """Return whether a function or job belongs to the plugin and was not merely imported."""
    module = getattr(value, "__module__", "") or ""
    if isinstance(plugin, ModuleType):
        return module == plugin.__name__ or module.startswith(f"{plugin.__name__}.")
    return module != JobExtension.__module__


def _check_hooks(manager: pluggy.PluginManager, plugin: object) -> None:
    for name, function in functions(plugin).items():
        options = _options(function)
        if options:
            _check_hook(manager, options.get("specname") or name, function, options)
        elif name in hookspecs.names() and defined_in(plugin, function):
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
        remedy = near(hook, known) or "docs/reference/hooks.md lists all"
        raise Unusable(f"there is no hook {hook!r}", place, remedy)
    spec = getattr(manager.hook, hook).spec
    if (options.get("wrapper") or options.get("hookwrapper")) and not spec.opts["firstresult"]:
        reason = f"the hook {hook!r} is called for each plugin alone and takes no wrapper"
        raise Unusable(reason, place, "make it a plain function")
    if inspect.iscoroutinefunction(function):
        raise Unusable(f"{hook}() is async, and hooks are not awaited", place, "drop the `async`")
    wrong = sorted(set(inspect.signature(function).parameters) - {*spec.argnames, "self", "cls"})
    if wrong:
        raise Unusable(
            f"the hook {hook!r} has no argument {', '.join(map(repr, wrong))}",
            place,
            f"it takes {', '.join(spec.argnames) or 'nothing'}",
        )
