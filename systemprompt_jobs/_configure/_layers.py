"""What each layer gives: the defaults, config.yaml, profile.yaml and the environment."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from .._parameters import near, shown
from ..model import EMPTY, Place, Problem, Source
from ..secrets import anchored, masked, masked_section, reveal
from ._schema import RETRY, JobEntry, Scheduler, check
from ._yaml import Document, Loc, path_text, read

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

PREFIX = "SYSTEMPROMPT_JOBS__"
DEFAULTS = MappingProxyType(
    {
        "enabled": True,
        "timezone": "UTC",
        "database": "sqlite:///var/jobs.db",
        "databases": {},
        "local_plugins": [],
        "workers": 10,
        "executors": {},
        "shutdown_grace": "30s",
        "lease": "30s",
        "health_address": "",
        "retention": "30d",
        "retention_runs": 100,
        "unknown_jobs": "error",
        "unlisted_jobs": "run",
        "extensions": {},
    }
)
_REFERRING = ("database", "databases", "extensions")
"""Settings in which `{env: NAME}` and `{file: path}` are read with the configuration."""

_SCALARS = [name for name, value in DEFAULTS.items() if not isinstance(value, (dict, list))]
_FIELDS = Scheduler.model_fields
_PLAIN_VALUES = (
    "enabled",
    "schedule",
    "timezone",
    "enforce",
    "overlap",
    "splay",
    "catch_up",
    "catchup_window",
    "silence",
    "timeout",
    *RETRY,
    "concurrency",
    "executor",
)


@dataclass(frozen=True, slots=True)
class Entry:
    """One item of `scheduler.jobs` in one file.

    `path` is like `scheduler.jobs[2]`; `extension` is empty where the file does not say it.
    `values` maps the other keys of the entry and `parameters.<name>` to what the file gives, and
    holds only what it gives.
    """

    layer: str
    path: str
    place: Place
    extension: str
    job: str
    values: Mapping[str, Source] = field(default_factory=lambda: EMPTY)

    @property
    def id(self) -> str:
        """`extension:job`, as written in the file."""
        return f"{self.extension}:{self.job}"


@dataclass(frozen=True, slots=True)
class Layer:
    """`given` holds the checked values; the document, how they were written and where."""

    name: str
    given: Mapping[str, Any]
    document: Document
    entries: tuple[Entry, ...] = ()
    problems: tuple[Problem, ...] = ()

    def source(self, *loc: str) -> Source:
        """Return the layer's word on the setting at `loc`, as written, secrets masked."""
        value: Any = self.document.data
        for key in loc:
            value = value[key]
        shown = masked_section(value) if loc[0] == "extensions" else masked(value, loc[-1])
        return Source(shown, self.name, self.document.place(loc))


def default_layer() -> Layer:
    """Return what holds where nobody says anything."""
    document = Document(DEFAULTS)
    given, _ = check(Scheduler, dict(DEFAULTS), document.place)
    return Layer("default", given, document)


def file_layer(path: Path, root: Path, environ: Mapping[str, str], *, shared: bool) -> Layer:
    """Return what a file gives; a `shared` one has sections of others, which are ignored."""
    document = read(path, shared=shared)
    data, unread = _revealed(document, root, environ)
    given, problems = check(Scheduler, data, document.place)
    problems += unread
    entries: list[Entry] = []
    for index, item in enumerate(anchored(given.get("jobs", []), root)):
        entry, wrong = _entry(path.name, document, item, ("jobs", index))
        entries += entry
        problems += wrong
    return Layer(path.name, given, document, tuple(entries), (*document.problems, *problems))


def _revealed(
    document: Document, root: Path, environ: Mapping[str, str]
) -> tuple[Any, list[Problem]]:
    """Return a file's data with what its references stand for; those of jobs are read later."""
    if not isinstance(document.data, dict):
        return document.data, []
    data, problems = {}, []
    for key, value in document.data.items():
        try:
            read_now = key in _REFERRING
            data[key] = reveal(anchored(value, root), environ) if read_now else value
        except ValueError as error:
            problems.append(Problem(path_text((key,)), str(error), document.place((key,))))
    return data, problems


def environment_layer(environ: Mapping[str, str]) -> Layer:
    """Return what the variables `SYSTEMPROMPT_JOBS__KEY` give."""
    names = {f"{PREFIX}{name.upper()}": name for name in _SCALARS}
    problems, data = [], {}
    for variable in (name for name in environ if name.startswith(PREFIX)):
        text = environ[variable]
        if variable not in names:
            problems.append(_unknown_variable(variable, names))
        elif not text.isprintable():
            problems.append(Problem(variable, f"is {ascii(text)[:60]}, not plain text"))
        else:
            data[names[variable]] = text
    document = Document(data)
    given, wrong = check(Scheduler, data, document.place, lambda loc: f"{PREFIX}{loc[0]}".upper())
    return Layer("environment", given, document, problems=(*problems, *wrong))


def _unknown_variable(variable: str, names: Mapping[str, str]) -> Problem:
    if variable.upper() not in names and variable.removeprefix(PREFIX).lower() in _FIELDS:
        return Problem(variable, "cannot be set here", remedy="set it in a file")
    remedy = near(variable.upper(), names) or f"known are {', '.join(names)}"
    return Problem(variable, "unknown setting", remedy=remedy)


def _entry(layer: str, document: Document, item: Any, at: Loc) -> tuple[list[Entry], list[Problem]]:
    """Return the entry, unless it is useless without what is wrong with it, and its problems."""
    given, problems = check(JobEntry, item, document.place, at=at)
    if not isinstance(item, dict):
        return [], problems
    place = document.place(at)
    if not {"job", "name"} & item.keys():
        problems.append(Problem(path_text(at), "names no job", place, "add `job: its-name`"))
    if len(both := {given[key] for key in ("job", "name") if key in given}) > 1:
        reason = f"has job: {shown(given['job'])} and name: {shown(given['name'])}"
        problems.append(Problem(path_text(at), reason, place, "remove the wrong one"))
    if len(both) != 1 or ("extension" in item and "extension" not in given):
        return [], problems
    values = MappingProxyType(_values(layer, document, given, at))
    entry = Entry(layer, path_text(at), place, given.get("extension", ""), both.pop(), values)
    return [entry], problems


def _values(layer: str, document: Document, given: Mapping[str, Any], at: Loc) -> dict[str, Source]:
    values = {
        key: Source(given[key], layer, document.place((*at, key)))
        for key in _PLAIN_VALUES
        if key in given
    }
    for name, value in given.get("parameters", EMPTY).items():
        place = document.place((*at, "parameters", name))
        values[f"parameters.{name}"] = Source(value, layer, place)
    return values
