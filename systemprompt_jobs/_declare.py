"""`@job` turns a plain function into a `Job`; `JobExtension` is for those who prefer a class."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import Enum, StrEnum
from types import MappingProxyType
from typing import Any, Final, ParamSpec, TypeAlias, TypeVar, overload

from . import _durations, hookspecs
from .interfaces import Schedule
from .model import EMPTY, CatchUp, Job, Overlap

P = ParamSpec("P")
R = TypeVar("R")
E = TypeVar("E", bound=StrEnum)

Errors: TypeAlias = type[BaseException] | str | Iterable[type[BaseException] | str]
"""One exception type or its name, or several."""


@overload
def job(function: Callable[P, R], /) -> Job[P, R]: ...


@overload
def job(
    *,
    schedule: str | Schedule = "",
    name: str | None = None,
    description: str | None = None,
    run_on_startup: bool = False,
    tags: Iterable[str] = (),
    timezone: str | None = None,
    enabled: bool = True,
    parameters: Mapping[str, Any] = EMPTY,
    aliases: Iterable[str] = (),
    overlap: str = "skip",
    splay: str | timedelta = "0s",
    catch_up: str = "latest",
    catchup_window: str | timedelta = "24h",
    silence: Iterable[str] = (),
    timeout: str | timedelta = "none",
    max_attempts: int = 1,
    retry_delay: str | timedelta = "10s",
    retry_factor: float = 2.0,
    retry_max_delay: str | timedelta = "1h",
    retry_past_next_tick: bool = False,
    retry_on: Errors = (),
    give_up_on: Errors = (),
    repeatable: bool = False,
    concurrency: Mapping[str, Any] | None = None,
    executor: str | None = None,
) -> Callable[[Callable[P, R]], Job[P, R]]: ...


def job(
    function: Callable[P, R] | None = None,
    /,
    *,
    schedule: str | Schedule = "",
    name: str | None = None,
    description: str | None = None,
    run_on_startup: bool = False,
    tags: Iterable[str] = (),
    timezone: str | None = None,
    enabled: bool = True,
    parameters: Mapping[str, Any] = EMPTY,
    aliases: Iterable[str] = (),
    overlap: str = "skip",
    splay: str | timedelta = "0s",
    catch_up: str = "latest",
    catchup_window: str | timedelta = "24h",
    silence: Iterable[str] = (),
    timeout: str | timedelta = "none",
    max_attempts: int = 1,
    retry_delay: str | timedelta = "10s",
    retry_factor: float = 2.0,
    retry_max_delay: str | timedelta = "1h",
    retry_past_next_tick: bool = False,
    retry_on: Errors = (),
    give_up_on: Errors = (),
    repeatable: bool = False,
    concurrency: Mapping[str, Any] | None = None,
    executor: str | None = None,
) -> Job[P, R] | Callable[[Callable[P, R]], Job[P, R]]:
    """Declare a function as a job.

    The function takes nothing or one positional argument (its `JobContext`); its keyword-only
    arguments are the job's parameters. All values here are the author's defaults, which
    operators override in YAML.

    - `schedule`: six cron fields, seconds first (`"0 */15 * * * *"`), or a `Schedule`; empty
      means by hand or at start-up only.
    - `name`: the function's unless given. `description`: its docstring's first line.
    - `run_on_startup`: also run once when a scheduler starts, provided that the operator lists
      the job in `services/scheduler/config.yaml` with `enabled: true`.
    - `timezone`: an IANA name; the scheduler's unless given.
    - `parameters`: defaults for keyword-only arguments, as plain YAML-like values.
    - `aliases`: former names, whose configuration still applies.
    - `overlap`: `"skip"` a run while the previous one still runs, `"queue"` it (one waits, later
      ones are skipped), or `"allow"` both.
    - `splay`: delay each tick by less than this (`"5m"` or a timedelta), always the same for one
      job and tick, so that jobs of one schedule do not all start together.
    - `catch_up`: which ticks of a downtime still run: the `"latest"`, `"none"` or `"all"`.
    - `catchup_window`: how old they may be, a `timedelta` or text such as `"24h"`.
    - `silence`: codes of what `check` shall not find suspicious in this job, e.g. `"every-second"`.
    - `timeout`: how long one attempt may take (`"5m"` or a timedelta); `"none"`: as long as it
      likes. A thread cannot be stopped: its run is `timed_out`, and it goes on as a stray.
    - `max_attempts`: how often one run is started, at most, when it fails or its node dies.
    - `retry_delay`, `retry_factor`, `retry_max_delay`: how long it waits after the first failure,
      how many times longer after each further one, and at most.
    - `retry_past_next_tick`: try again even when the job's next tick comes first.
    - `retry_on`, `give_up_on`: exception types or their names; only these are tried again, and
      these never.
    - `repeatable`: the function tolerates being called again for a run, also when it had done some
      of its work or all of it. Retries need that; `check` asks for the word.
    - `concurrency`: `{"key": "api", "limit": 2}`: at most so many runs of all jobs with this key.
    - `executor`: the pool it runs in, of `executors:`; unless given, `"asyncio"` for an
      `async def` function and `"default"` (threads) for others.

    Raises TypeError for an argument of the wrong type and for methods. Wrong values (a schedule
    that does not parse, say) degrade this one job when plugins are collected.
    """

    def declare(function: Callable[P, R]) -> Job[P, R]:
        _refuse_non_function(function)
        return Job(
            function=function,
            name=_typed("name", name, str) if name is not None else function.__name__,
            description=_typed("description", description, str)
            if description is not None
            else _first_line(function.__doc__),
            schedule=_typed("schedule", schedule, (str, Schedule)),
            run_on_startup=_typed("run_on_startup", run_on_startup, bool),
            tags=_strings("tags", tags),
            timezone=_typed("timezone", timezone, str) if timezone is not None else None,
            enabled=_typed("enabled", enabled, bool),
            parameters=_mapping("parameters", parameters),
            aliases=_strings("aliases", aliases),
            overlap=_choice("overlap", overlap, Overlap),
            splay=_typed("splay", splay, (str, timedelta)),
            catch_up=_choice("catch_up", catch_up, CatchUp),
            catchup_window=_typed("catchup_window", catchup_window, (str, timedelta)),
            silence=_strings("silence", silence),
            timeout=_typed("timeout", timeout, (str, timedelta)),
            max_attempts=_number("max_attempts", max_attempts, int),
            retry_delay=_typed("retry_delay", retry_delay, (str, timedelta)),
            retry_factor=_number("retry_factor", retry_factor, (int, float)),
            retry_max_delay=_typed("retry_max_delay", retry_max_delay, (str, timedelta)),
            retry_past_next_tick=_typed("retry_past_next_tick", retry_past_next_tick, bool),
            retry_on=_error_names("retry_on", retry_on),
            give_up_on=_error_names("give_up_on", give_up_on),
            repeatable=_typed("repeatable", repeatable, bool),
            concurrency=None if concurrency is None else _mapping("concurrency", concurrency),
            executor=_typed("executor", executor, str) if executor is not None else None,
        )

    return declare if function is None else declare(function)


def _refuse_non_function(function: object) -> None:
    if isinstance(function, Job):
        raise TypeError(f"@job is applied twice: {function!r}")
    if inspect.isclass(function) or not (callable(function) and hasattr(function, "__qualname__")):
        hint = f": write @job(schedule={function!r})" if isinstance(function, str) else ""
        raise TypeError(f"@job takes a plain function, got {function!r}{hint}")
    owner = function.__qualname__.rpartition(".")[0]
    if owner and not owner.endswith("<locals>"):
        raise TypeError(
            f"@job cannot be used on the method {function.__qualname__}(): "
            "move it to the module's top level"
        )


def _typed(argument: str, value: Any, types: type | tuple[type, ...]) -> Any:
    if not isinstance(value, types):
        names = [t.__name__ for t in (types if isinstance(types, tuple) else (types,))]
        raise TypeError(f"@job({argument}=…) takes {' or '.join(names)}, got {value!r}")
    return value


def _mapping(argument: str, values: object) -> Mapping[str, Any]:
    """Return a copy that nobody can change; nearly all are empty and share one."""
    return MappingProxyType(dict(_typed(argument, values, Mapping))) if values != EMPTY else EMPTY


def _number(argument: str, value: Any, types: type | tuple[type, ...]) -> Any:
    if isinstance(value, bool):
        raise TypeError(f"@job({argument}=…) takes a number, got {value!r}")
    return _typed(argument, value, types)


def _error_names(argument: str, errors: Errors) -> tuple[str, ...]:
    several = (errors,) if isinstance(errors, str | type) else _typed(argument, errors, Iterable)
    return tuple(_error_name(argument, error) for error in several)


def _error_name(argument: str, error: object) -> str:
    if isinstance(error, type) and issubclass(error, BaseException):
        return error_type_name(error)
    if not isinstance(error, str):
        raise TypeError(f"@job({argument}=…) takes exception types or names, got {error!r}")
    return error


def error_type_name(error: type) -> str:
    """Return `module.Type`, or `Type` alone of a built-in one."""
    name = error.__qualname__
    return name if error.__module__ == "builtins" else f"{error.__module__}.{name}"


def _strings(argument: str, values: Iterable[str]) -> tuple[str, ...]:
    values = (values,) if isinstance(values, str) else tuple(_typed(argument, values, Iterable))
    for value in values:
        _typed(argument, value, str)
    return values


def _choice(argument: str, value: object, kind: type[E]) -> E:
    try:
        return kind(_typed(argument, value, str))
    except ValueError:
        choices = " or ".join(repr(str(choice)) for choice in kind)
        raise TypeError(f"@job({argument}=…) takes {choices}, got {value!r}") from None


def _first_line(doc: str | None) -> str:
    return (doc or "").strip().partition("\n")[0].rstrip()


class JobExtension:
    """Base class for a plugin written as a class.

    Point the entry point at the subclass; it is instantiated without arguments. Methods that
    bear a hook's name are hook implementations without being marked.

    Example::

        class MyExtension(JobExtension):
            def jobs(self):
                return [cleanup, sync]
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name in hookspecs.names():  # inherited ones too: a mixin need not be a JobExtension
            method = getattr(cls, name, None)
            function = getattr(method, "__func__", method)  # under a classmethod
            if inspect.isfunction(function) and not hasattr(function, hookspecs.MARKER):
                hookspecs.hookimpl(function)

    @hookspecs.hookimpl
    def jobs(self) -> Iterable[Job[..., Any]]:
        """Return the jobs of this extension."""
        return ()


@dataclass(frozen=True, slots=True)
class JobResult:
    """What a job may return to say more than "it worked".

    Example::

        return JobResult.success().with_message(f"{n} rows").with_stats(processed=n)
    """

    ok: bool = True
    message: str = ""
    processed: int | None = None
    failed: int | None = None

    @classmethod
    def success(cls) -> JobResult:
        """Return the result of a job that did what it should."""
        return cls()

    @classmethod
    def failure(cls, message: str) -> JobResult:
        """Return the result of a job that did not do what it should; `message` says why."""
        return cls(ok=False, message=str(message))

    def with_message(self, message: str) -> JobResult:
        """Return a copy with a message for people."""
        return replace(self, message=str(message))

    def with_stats(self, processed: int | None = None, failed: int | None = None) -> JobResult:
        """Return a copy with counts of items; a failed item does not make the run fail."""
        return replace(self, processed=processed, failed=failed)


class Retry(Exception):  # noqa: N818  # it asks for something
    """Raised by a job to be tried again, whatever its `retry_on` and `give_up_on` say.

    `after` is how long to wait first, a timedelta, seconds or text such as `"5m"`; without it the
    job's `retry_delay` counts. A run is started `max_attempts` times all the same, so with 1 it
    fails. Raises ValueError for an `after` that is no duration.

    Example::

        raise Retry("the service is busy", after="5m")
    """

    __module__ = "systemprompt_jobs"

    def __init__(self, message: str = "", *, after: timedelta | float | str | None = None) -> None:
        super().__init__(message or "the job asked to be tried again")
        self.after = None if after is None else _durations.parse(after)


class Skip(Exception):  # noqa: N818  # it is no error
    """Raised by a job that has nothing to do: its run ends `skipped`, with the message.

    Example::

        raise Skip("no new files")
    """

    __module__ = "systemprompt_jobs"


class _Advice(Enum):
    GIVE_UP = "GIVE_UP"

    def __repr__(self) -> str:
        return self.value


GIVE_UP: Final = _Advice.GIVE_UP
"""What the hook `retry_delay` returns so that a run is not tried again."""
