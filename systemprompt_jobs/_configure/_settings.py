"""Lay the layers over each other: one value per setting, and who set it."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from ..model import Place, Problem
from . import _local, _urls
from ._layers import (
    DEFAULTS,
    Entry,
    Layer,
    default_layer,
    environment_layer,
    file_layer,
)
from ._project import CONFIG, PROFILE
from ._yaml import path_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from datetime import timedelta
    from pathlib import Path

    from ..model import Source
    from ._project import Project


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Every setting of the scheduler with all file and environment layers applied.

    `database` and `databases` are SQLAlchemy URLs whose relative SQLite paths are resolved
    against `root`; `local_plugins` are existing, trustworthy files or package folders.
    `executors` maps a pool's name to its kind and settings, `extensions` an extension's name to
    its own section. `sources` maps each setting, and each `databases.<name>`, `executors.<name>`
    and `extensions.<name>`, to its layers, lowest first, as they were written (passwords masked).
    `problems` is all that is wrong so far, in file order: the values it concerns are left at the
    layer below.
    """

    root: Path
    enabled: bool
    timezone: str
    database: str = field(repr=False)  # passwords
    databases: Mapping[str, str] = field(repr=False)
    local_plugins: tuple[Path, ...]
    workers: int
    executors: Mapping[str, Mapping[str, Any]]
    shutdown_grace: timedelta
    lease: timedelta
    health_address: str
    retention: timedelta
    retention_runs: int
    unknown_jobs: Literal["error", "warn"]
    unlisted_jobs: Literal["run", "ignore"]
    extensions: Mapping[str, Mapping[str, Any]]
    entries: tuple[Entry, ...]
    sources: Mapping[str, tuple[Source, ...]]
    problems: tuple[Problem, ...]
    warnings: tuple[Problem, ...]


def load_settings(project: Project, environ: Mapping[str, str]) -> Settings:
    """Return the settings of `project` and `environ`.

    Wrong content never raises: it is collected in `problems`.
    """
    files = ((project.config, False), (project.profile, True))
    given = [
        file_layer(path, project.root, environ, shared=shared) for path, shared in files if path
    ]
    layers = [default_layer(), *given, environment_layer(environ)]
    values = {key: layer.given[key] for layer in layers for key in DEFAULTS if key in layer.given}
    plugins, refused = _local_plugins(project.root, layers)
    pools, sources = _pools(layers, values["workers"]), _sources(layers)
    values |= {
        "database": _urls.resolve(values["database"], project.root),
        "databases": MappingProxyType(
            {name: _urls.resolve(url, project.root) for name, url in _named("databases", layers)}
        ),
        "local_plugins": plugins,
        "executors": pools,
        "extensions": _sections("extensions", layers),
    }
    return Settings(
        root=project.root,
        **values,
        entries=tuple(entry for layer in layers for entry in layer.entries),
        sources=sources,
        problems=in_file_order(
            [p for layer in layers for p in layer.problems]
            + refused
            + _without_kind(pools, sources)
        ),
        warnings=tuple(_misnamed(project.root)),
    )


def in_file_order(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """Return problems by file (config.yaml first) and line; those without a file last."""

    def position(problem: Problem) -> tuple[bool, bool, int]:
        file = problem.place.file
        return file is None, file is not None and file.name == PROFILE.name, problem.place.line or 0

    return tuple(sorted(problems, key=position))


def _named(key: str, layers: Sequence[Layer]) -> Iterator[tuple[str, Any]]:
    for layer in layers:
        yield from layer.given.get(key, {}).items()


def _sections(key: str, layers: Sequence[Layer]) -> Mapping[str, Mapping[str, Any]]:
    sections: dict[str, dict[str, Any]] = {}
    for name, section in _named(key, layers):
        sections[name] = sections.get(name, {}) | section
    return MappingProxyType({name: MappingProxyType(own) for name, own in sections.items()})


def _pools(layers: Sequence[Layer], workers: int) -> Mapping[str, Mapping[str, Any]]:
    """Return the built-in pools with what the files say of them, and the files' own."""
    pools: dict[str, Mapping[str, Any]] = {
        "default": {"kind": "threads", "size": workers},
        "asyncio": {"kind": "asyncio"},
        "processes": {"kind": "processes"},
    }
    for name, section in _sections("executors", layers).items():
        pools[name] = MappingProxyType({**pools.get(name, {}), **section})
    return MappingProxyType(pools)


def _without_kind(
    pools: Mapping[str, Mapping[str, Any]], sources: Mapping[str, tuple[Source, ...]]
) -> list[Problem]:
    remedy = "add `kind: threads`, `kind: processes` or `kind: asyncio`"
    return [
        Problem(
            path_text(("executors", name)),
            "names no kind",
            sources[f"executors.{name}"][0].place,
            remedy,
        )
        for name, pool in pools.items()
        if "kind" not in pool
    ]


def _sources(layers: Sequence[Layer]) -> Mapping[str, tuple[Source, ...]]:
    sources: dict[str, tuple[Source, ...]] = {}
    for layer in layers:
        for key in (key for key in DEFAULTS if key in layer.given):
            sources[key] = (*sources.get(key, ()), layer.source(key))
        for key in ("databases", "executors", "extensions"):
            for name in layer.given.get(key, ()):
                path = f"{key}.{name}"
                sources[path] = (*sources.get(path, ()), layer.source(key, name))
    return MappingProxyType(sources)


def _local_plugins(root: Path, layers: Sequence[Layer]) -> tuple[tuple[Path, ...], list[Problem]]:
    """Return what may load of the highest layer's list, and a problem for each that may not."""
    layer = next(layer for layer in reversed(layers) if "local_plugins" in layer.given)
    usable: list[Path] = []
    problems = []
    for index, text in enumerate(layer.given["local_plugins"]):
        loc = ("local_plugins", index)
        if reason := _local.refusal(root, text):
            problems.append(Problem(path_text(loc), reason, layer.document.place(loc)))
        elif root / text not in usable:
            usable.append(root / text)
    return tuple(usable), problems


def _misnamed(root: Path) -> Iterator[Problem]:
    for right in (CONFIG, PROFILE):
        wrong = root / right.with_suffix(".yml")
        if wrong.exists():
            yield Problem(wrong.name, "is not read", Place(wrong), f"call it {right.name}")
