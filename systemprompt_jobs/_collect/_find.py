"""Where plugins come from: installed distributions, local files, the command line."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
import sys
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .. import hookspecs
from .._parameters import near
from ..errors import UsageError
from ..model import Extension, Place, Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from importlib.metadata import EntryPoint
    from pathlib import Path
    from types import ModuleType


class Unusable(Exception):  # noqa: N818  # it says what a plugin or a job is
    """A plugin or a job that cannot be used."""

    def __init__(self, reason: str, place: Place | None = None, remedy: str = "") -> None:
        super().__init__(reason)
        self.place = place or Place()
        self.remedy = remedy


@dataclass(frozen=True, slots=True)
class Candidate:
    """A plugin found and not yet loaded."""

    extension: Extension
    load: Callable[[], object]
    place: Place = field(default_factory=Place)

    @property
    def name(self) -> str:
        """The extension's name."""
        return self.extension.name


def installed() -> Iterator[Candidate]:
    """Yield what installed distributions declare, by name."""
    from importlib.metadata import entry_points

    for entry_point in sorted(entry_points(group=hookspecs.PROJECT), key=lambda e: e.name):
        yield Candidate(_extension_of(entry_point), entry_point.load)


def _extension_of(entry_point: EntryPoint) -> Extension:
    return Extension(
        name=entry_point.name,
        module=entry_point.value,
        distribution=_metadata(entry_point, "Name"),
        version=_metadata(entry_point, "Version"),
    )


def _metadata(entry_point: EntryPoint, field: str) -> str:
    """Return a field of the distribution's metadata, empty where it is half uninstalled."""
    metadata = entry_point.dist.metadata if entry_point.dist else None
    return metadata[field] if metadata is not None and field in metadata else ""


def local(file: Path) -> Candidate:
    """Return the plugin in one of the project's files or package folders."""
    extension = Extension(file.stem.lower(), str(file), source="local")
    return Candidate(extension, lambda: _import_file(file), Place(file))


def _import_file(file: Path) -> ModuleType:
    # The path's digest: submodules of two projects' plugins must not be taken for each other.
    name = f"systemprompt_local_{file.stem}_{zlib.crc32(str(file).encode()):08x}"
    package = file.is_dir()
    spec = importlib.util.spec_from_file_location(
        name,
        file / "__init__.py" if package else file,
        submodule_search_locations=[str(file)] if package else None,
    )
    if spec is None or spec.loader is None:
        raise Unusable("is no Python file", Place(file))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # before it runs, as import does: dataclasses look it up
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def named(plugin: object, candidates: Sequence[Candidate]) -> Candidate:
    """Return the plugin that `--plugin` names: an entry point, or else a module.

    Whatever is no text is the plugin itself. Raises UsageError for a name that nothing has.
    """
    if not isinstance(plugin, str):
        named_itself = inspect.isclass(plugin) or inspect.ismodule(plugin)
        own_name: str = getattr(plugin if named_itself else type(plugin), "__name__", "")
        name = own_name.rpartition(".")[2].strip("_").lower()
        return Candidate(Extension(name, own_name, source="given"), lambda: plugin)
    for candidate in candidates:
        if plugin in {candidate.name, candidate.extension.module}:
            return candidate
    if not _is_module(plugin):
        hint = near(plugin, [candidate.name for candidate in candidates])
        hint = f"; {hint}" if hint else ""
        raise UsageError(f"--plugin {plugin}: no plugin or module has this name{hint}")
    name = plugin.rpartition(".")[2].lower()
    extension = Extension(name, plugin, source="command line")
    return Candidate(extension, lambda: importlib.import_module(plugin))


def _is_module(text: str) -> bool:
    """Return whether there is such a module; a broken parent package counts as one."""
    try:
        return importlib.util.find_spec(text) is not None
    except ModuleNotFoundError as error:
        return not text.startswith(f"{error.name}.") and error.name != text
    except ValueError:
        return False
    except BaseException:  # noqa: BLE001  # the parent's own failure: loading it will tell
        return True


def choose(
    candidates: Sequence[Candidate],
    wanted: Sequence[Candidate],
    blocked: frozenset[str],
    allowed: str | None,
) -> tuple[list[Candidate], list[str]]:
    """Return the plugins to load, and the names of those that are kept out."""
    selected = [c for c in candidates if c in wanted or _auto_loads(c, allowed)]
    selected += [c for c in dict.fromkeys(wanted) if c not in candidates]
    chosen = [c for c in selected if c.name not in blocked]
    kept_out = {c.name for c in (*candidates, *wanted)} - {c.name for c in chosen}
    return chosen, sorted(kept_out)


def _auto_loads(candidate: Candidate, allowed: str | None) -> bool:
    extension = candidate.extension
    if allowed is None or extension.source != "installed":
        return True
    return bool({extension.name, extension.distribution} & set(_split(allowed)))


def _split(allowed: str) -> list[str]:
    return [name for name in re.split(r"[,\s]+", allowed) if name]


def unknown_allowed(allowed: str | None, candidates: Iterable[Candidate]) -> Iterator[Problem]:
    """Yield a problem for each name in SYSTEMPROMPT_PLUGINS that nothing installed has."""
    known = {n for c in candidates for n in (c.name, c.extension.distribution)}
    return _unknown(_split(allowed or ""), known, "SYSTEMPROMPT_PLUGINS")


def unknown_blocked(blocked: Iterable[str], candidates: Iterable[Candidate]) -> Iterator[Problem]:
    """Yield a problem for each name of --no-plugin that nothing has."""
    return _unknown(sorted(blocked), {c.name for c in candidates}, "--no-plugin")


def _unknown(names: Iterable[str], known: set[str], who: str) -> Iterator[Problem]:
    for name in names:
        if name not in known:
            reason = f"{who} names a plugin that is not installed"
            yield Problem(name, reason, remedy=near(name, known) or "install it or drop the name")
