"""Decide for each job: every effective value, and the layers that set it."""

from __future__ import annotations

import functools
import json
import operator
from collections.abc import Hashable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from enum import Enum
from pathlib import PurePath
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from .. import _durations, _parameters
from .._calendar import check_zone
from ..errors import ConfigurationError, ParameterError, ScheduleError
from ..model import EMPTY, CatchUp, Concurrency, Job, Overlap, Plan, Problem, RetryPolicy, Source
from ._entries import match_entries
from ._project import CONFIG
from ._schema import RETRY, JobEntry, check
from ._settings import in_file_order
from ._yaml import key_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..interfaces import Schedule
    from ..model import CollectedJob, Collection
    from ._layers import Entry
    from ._settings import Settings

    Parse = Callable[[str, str], Schedule]

_PARAMETER = "parameters."
_POLICIES = (
    *("overlap", "splay", "catch_up", "catchup_window", "silence", "timeout"),
    *RETRY,
    "repeatable",
    "concurrency",
)

_SHORTEST_WINDOW = timedelta(seconds=1)
_LONGEST_WINDOW = timedelta(days=36_500)
"""Longer ones mean the same, and instants would leave the calendar."""


def make_plans(settings: Settings, collection: Collection, parse: Parse) -> tuple[Plan, ...]:
    """Return one plan per collected job, in the collection's order.

    `parse(text, timezone)` reads a schedule and raises ScheduleError. What a plugin's author did
    wrong is the plan's `problem`; what is wrong in the files raises ConfigurationError, with all
    of `settings.problems` and of the entries, in file order.
    """
    matches = match_entries(settings, collection)
    mistakes: list[Problem] = []
    plans: list[Plan] = []
    alike: dict[Hashable, Mapping[str, Any]] = {}
    for job in collection.jobs:
        id_ = job.id
        kind = None if id_ in matches.entries or id_ in collection.degraded else _kind(job)
        if like := alike.get(kind):
            plans.append(Plan(id=id_, job=job.job, **like))
            continue
        draft = _Draft(job, settings, matches.entries.get(id_, ()), parse)
        plans.append(draft.plan(collection.degraded.get(id_)))
        mistakes += draft.mistakes
        if kind is not None and not (draft.flaws or draft.mistakes):
            alike[kind] = {name: getattr(plans[-1], name) for name in _ALIKE}
    if problems := (*settings.problems, *matches.problems, *mistakes):
        raise ConfigurationError(in_file_order(problems))
    return tuple(plans)


_ALIKE = tuple(name for name in Plan.__dataclass_fields__ if name not in {"id", "job"})

_OWN = frozenset({"name", "description", "tags", "aliases", "parameters", "concurrency"})
_shared = operator.attrgetter(*(name for name in Job.__dataclass_fields__ if name not in _OWN))


def _kind(collected: CollectedJob) -> Hashable:
    """Return what is the same for jobs whose plans differ in id and job alone, None if unknown.

    Where one function stands behind ten thousand jobs, they are planned once.
    """
    job = collected.job
    kind = (collected.extension.name, repr(job.parameters), repr(job.concurrency), _shared(job))
    try:
        hash(kind)
    except TypeError:  # a schedule of a plugin's, say
        return None
    return kind


def make_warnings(settings: Settings, collection: Collection) -> tuple[Problem, ...]:
    """Return `settings.warnings` and the entries that forgivably have no effect."""
    return (*settings.warnings, *match_entries(settings, collection).warnings)


class _Draft:
    """One job's plan in the making.

    `mistakes` are the operator's, in the files; `flaws` are the author's, in the plugin, and
    degrade this job alone.
    """

    def __init__(
        self,
        collected: CollectedJob,
        settings: Settings,
        entries: tuple[Entry, ...],
        parse: Parse,
    ) -> None:
        self.id = collected.id
        self.mistakes: list[Problem] = []
        self.flaws: list[str] = []
        self._collected, self._job = collected, collected.job
        self._settings, self._entries, self._parse = settings, entries, parse
        self._sources: dict[str, tuple[Source, ...]] = dict(self._declared())
        for entry in entries:
            for key, source in entry.values.items():
                self._add(key, source)
        self._switch_off()

    def plan(self, degraded: Problem | None) -> Plan:
        """Return the plan; `degraded` is what collection found wrong with the job."""
        zone = self._zone()
        schedule = self._schedule(zone)
        enabled = self._last("enabled")
        starts_up = self._job.run_on_startup and enabled and self._enabled_by_operations()
        parameters = self._parameters(needed=enabled and (schedule is not None or starts_up))
        splay = self._duration("splay")
        window = self._catchup_window()
        timeout = self._timeout()
        retry, concurrency = self._retry(), self._concurrency()
        executor = self._executor()
        own = [Problem(self.id, flaw, self._job.place) for flaw in self.flaws]
        return Plan(
            id=self.id,
            extension=self._collected.extension,
            job=self._job,
            enabled=enabled,
            schedule=schedule,
            timezone=zone,
            starts_up=starts_up,
            overlap=Overlap(self._last("overlap")),
            splay=splay,
            enforce=self._last("enforce"),
            parameters=MappingProxyType(parameters),
            config=self._settings.extensions.get(self._collected.extension.name, EMPTY),
            listed=bool(self._entries),
            catch_up=CatchUp(self._last("catch_up")),
            catchup_window=window,
            silence=tuple(self._last("silence")),
            timeout=timeout,
            retry=retry,
            concurrency=concurrency,
            executor=executor,
            sources=MappingProxyType(self._sources),
            problem=degraded or next(iter(own), None),
        )

    def _declared(self) -> Iterator[tuple[str, tuple[Source, ...]]]:
        """Yield what holds without any entry: the decorator's word, and the defaults."""
        job, (text, zone) = self._job, self._declared_schedule()
        zones = (self._declare(name) for name in (zone, job.timezone) if name is not None)
        yield "enabled", (self._policy("enabled"),)
        yield "schedule", (self._declare(text),)
        yield "timezone", (*self._settings.sources["timezone"], *zones)
        yield "enforce", (Source(value=False, layer="default"),)
        for name in _POLICIES:
            yield name, (self._policy(name),)
        pool = "asyncio" if job.is_async else "default"
        yield (
            "executor",
            (self._declare(job.executor) if job.executor else Source(pool, "default"),),
        )
        for name, value in job.parameters.items():
            yield f"{_PARAMETER}{name}", (self._declare(value),)

    def _declared_schedule(self) -> tuple[str, str | None]:
        schedule = self._job.schedule
        if isinstance(schedule, str):
            return schedule, None
        try:
            return schedule.text, schedule.timezone
        except Exception as error:  # noqa: BLE001 - a plugin's own schedule
            self._flaw("schedule", error)
            return "", None

    def _policy(self, name: str) -> Source:
        """Return the author's word, or the default that he left alone."""
        value = getattr(self._job, name)
        if value == Job.__dataclass_fields__[name].default:
            return _default(name)
        return self._declare(_as_in_yaml(value))

    def _declare(self, value: Any) -> Source:
        return Source(value, "job", self._job.place)

    def _add(self, key: str, source: Source) -> None:
        self._sources[key] = (*self._sources.get(key, ()), source)

    def _switch_off(self) -> None:
        sources = self._settings.sources
        if not self._entries and self._settings.unlisted_jobs == "ignore":
            self._add("enabled", replace(sources["unlisted_jobs"][-1], value=False))
        if not self._settings.enabled:
            self._add("enabled", replace(sources["enabled"][-1], value=False))

    def _last(self, key: str) -> Any:
        return self._sources[key][-1].value

    def _duration(self, key: str) -> timedelta:
        try:
            return _durations.parse(self._last(key))
        except ValueError as error:
            self._flaw(key, error)
            return timedelta()

    def _retry(self) -> RetryPolicy:
        values = {key: self._checked(key) for key in RETRY}
        given = {key.removeprefix("retry_"): value for key, value in values.items()}
        given["retry_on"] = given.pop("on")
        return RetryPolicy(**{key: value for key, value in given.items() if value is not None})

    def _concurrency(self) -> Concurrency | None:
        limit = self._checked("concurrency")
        return None if limit is None else Concurrency(**limit)

    def _checked(self, key: str) -> Any:
        """Return the value in force; the author's is checked as if it stood in an entry."""
        source = self._sources[key][-1]
        if source.layer not in {"job", "default"} or source.value is None:
            return source.value  # what the files say was checked when they were read
        given, problems = check(JobEntry, {key: source.value}, lambda _: source.place)
        for problem in problems:
            path = problem.culprit.removeprefix("scheduler.")
            self.flaws.append(
                f"{path}: {problem.reason}" + (problem.remedy and f" ({problem.remedy})")
            )
        return given.get(key)

    def _enabled_by_operations(self) -> bool:
        return any(
            entry.layer == CONFIG.name
            and "enabled" in entry.values
            and entry.values["enabled"].value
            for entry in self._entries
        )

    def _zone(self) -> str:
        source = self._sources["timezone"][-1]
        zone: str = source.value
        if source.layer != "job":  # what the files say was checked when they were read
            return zone
        try:
            return check_zone(zone)
        except ValueError as error:
            self._flaw("timezone", error)
            return self._settings.timezone

    def _catchup_window(self) -> timedelta:
        try:
            window = _durations.parse(self._last("catchup_window"))
        except ValueError as error:  # the author's: the files' values were checked when read
            self._flaw("catchup_window", error)
            return _LONGEST_WINDOW
        if window < _SHORTEST_WINDOW:
            self._flaw("catchup_window", ValueError("must be at least 1s"))
        return min(max(window, _SHORTEST_WINDOW), _LONGEST_WINDOW)

    def _timeout(self) -> timedelta | None:
        try:
            return _durations.parse_timeout(self._last("timeout"))
        except ValueError as error:
            self._flaw("timeout", error)
            return None

    def _executor(self) -> str:
        """Return the pool; one of kind `asyncio` takes `async def` functions only."""
        source, pools = self._sources["executor"][-1], self._settings.executors
        name: str = source.value
        if name not in pools:
            if any(p.culprit.startswith("scheduler.executors") for p in self._settings.problems):
                return name  # it may be one of those that are wrong
            hint = _parameters.near(name, pools) or f"there is {', '.join(sorted(pools))}"
            reason = (
                f"no pool {_parameters.shown(name)} is defined under scheduler.executors: {hint}"
            )
            self._blame(source, "executor", ValueError(reason))
        elif pools[name].get("kind") == "asyncio" and not self._job.is_async:
            reason = (
                f"the pool {name!r} is of kind asyncio, and {self.id} is no `async def` function"
            )
            self._blame(source, "executor", ValueError(reason))
        return name

    def _schedule(self, zone: str) -> Schedule | None:
        """Read every file's schedule, so that a wrong one is found even below a right one."""
        declared, *overrides = self._sources["schedule"]
        schedules = [self._read_schedule(s, zone) for s in (overrides or [declared])]
        return schedules[-1]

    def _read_schedule(self, source: Source, zone: str) -> Schedule | None:
        own = self._job.schedule
        try:
            if source.layer == "job" and not isinstance(own, str):
                return _probed(own if own.timezone == zone else own.in_timezone(zone))
            return _probed(self._parse(source.value, zone)) if source.value.strip() else None
        except ScheduleError as error:
            self._blame(source, "schedule", error)
        except Exception as error:  # noqa: BLE001 - a plugin's own schedule or syntax
            self._flaw("schedule", error)
        return None

    def _parameters(self, *, needed: bool) -> dict[str, Any]:
        """Return the merged values; `needed` where the scheduler itself will start the job."""
        given = {k.removeprefix(_PARAMETER): k for k in self._sources if k.startswith(_PARAMETER)}
        try:
            names, defaults = _parameters.names(self._job), _parameters.defaults(self._job)
        except ParameterError as error:
            self.flaws.append(str(error))
            return {}
        for name, key in given.items():
            for source in self._sources[key]:
                self._check_parameter(name, key, source)
        missing = [name for name in names if name not in defaults and name not in given]
        if needed and missing:
            self.flaws.append(
                f"parameters without a value: {', '.join(missing)}; set them in {CONFIG.name}"
            )
        for name, default in defaults.items():
            key = f"{_PARAMETER}{name}"
            self._sources[key] = (self._declare(_as_in_yaml(default)), *self._sources.get(key, ()))
        return {name: self._last(key) for name, key in given.items()}

    def _check_parameter(self, name: str, key: str, source: Source) -> None:
        try:
            _require_plain(name, source.value)
            _parameters.validate(self._job, {name: source.value}, partial=True)
        except ParameterError as error:
            self._blame(source, key, error)

    def _blame(self, source: Source, key: str, error: Exception) -> None:
        """Note a mistake of the layer that gave the value."""
        entry = next((entry for entry in self._entries if entry.layer == source.layer), None)
        if entry is None:
            self._flaw(key, error)
            return
        path = ".".join([entry.path, *map(key_text, key.split(".", 1))])
        self.mistakes.append(Problem(path, str(error), source.place))

    def _flaw(self, key: str, error: Exception) -> None:
        if isinstance(error, ScheduleError | ParameterError):
            self.flaws.append(str(error))  # it names what it is about
        else:
            self.flaws.append(f"{key}: {error if isinstance(error, ValueError) else repr(error)}")


@functools.cache
def _default(name: str) -> Source:
    """Return what is in force where nobody says a word, one for all jobs."""
    return Source(_as_in_yaml(Job.__dataclass_fields__[name].default), "default")


def _as_in_yaml(value: Any) -> Any:
    """Return a value of the code as a file would say it, where there is such a way."""
    if isinstance(value, timedelta):
        return _durations.text(value)
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return dict(value)
    return list(value) if isinstance(value, tuple) else value


def _require_plain(name: str, value: object) -> None:
    try:
        json.dumps(value)  # the history keeps it
    except (TypeError, ValueError, RecursionError):
        reason = f"{name}: {_parameters.shown(value)} is no plain value: write it as in YAML"
        raise ParameterError(reason) from None


def _probed(schedule: Schedule) -> Schedule:
    """Return the schedule if it can say its next tick: what raises now would raise at work."""
    schedule.next(datetime.now(UTC))
    return schedule
