"""What may stand under `scheduler:` and in its jobs, as pydantic models, and their errors."""

from __future__ import annotations

import builtins
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    StrictStr,
    ValidationError,
    WithJsonSchema,
)

from .. import _durations
from .._calendar import check_zone
from .._parameters import near, shown
from ..model import LintCode, Problem
from ._urls import check_own_url, check_url
from ._yaml import Loc, path_text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ..model import Place

_WORDS = {"true": True, "yes": True, "on": True, "1": True} | {
    "false": False, "no": False, "off": False, "0": False,
}  # fmt: skip
_WRONG = {
    "string_type": "not text",
    "model_type": "not a mapping such as `extension: my-extension`",
    "dict_type": "not a mapping",
    "list_type": "not a list",
    "int_type": "not a whole number",
    "int_parsing": "not a whole number",
    "int_from_float": "not a whole number",
    "float_type": "not a number",
    "float_parsing": "not a number",
    "finite_number": "not a number",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "literal_error": "not {expected}",
    "string_too_short": "must not be empty",
}


def _flag(value: object) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in _WORDS:
        return _WORDS[value.lower()]
    raise ValueError(f"is {shown(value)}, not true or false")


def _no_flag(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError(f"is {shown(value)}, not a whole number")  # noqa: TRY004 - for pydantic
    return value


def _lease(value: timedelta) -> timedelta:
    if value < timedelta(seconds=1):
        raise ValueError("must be at least 1s")
    return value


def _address(text: str) -> str:
    host, colon, port = text.rpartition(":")
    if not text or (colon and host and port.isascii() and port.isdecimal() and int(port) < 65536):  # noqa: PLR2004
        return text
    raise ValueError(f"is {shown(text)}, not an address such as 127.0.0.1:8080")


def _timeout(value: object) -> timedelta | Literal["none"]:
    return _durations.parse_timeout(value) or "none"


def _error_names(value: object) -> tuple[str, ...]:
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"is {shown(value)}, not the name of an exception type or a list of such")
    for name in names:
        if not all(part.isidentifier() for part in name.split(".")):
            raise ValueError(f"{shown(name)} is no name of an exception type")
        if "." not in name and name not in _BUILT_IN:
            hint = near(name, _BUILT_IN) or "write module.Type"
            raise ValueError(f"{shown(name)} is no built-in exception type: {hint}")
    return tuple(names)


def _limit(value: object) -> dict[str, Any]:
    match value:
        case {"key": str(key), "limit": int(limit), **rest}:
            if key and 1 <= limit <= _MOST_AT_ONCE and limit is not True and not rest:
                return {"key": key, "limit": limit}
    raise ValueError(f"is {shown(value)}: write {{key: api, limit: 2}}, a limit of 1 to 1000")


_MOST_AT_ONCE = 1000
_BUILT_IN = {
    name
    for name, value in vars(builtins).items()
    if isinstance(value, type) and issubclass(value, BaseException)
}

Flag = Annotated[bool, PlainValidator(_flag), WithJsonSchema({"type": "boolean"})]
Name = Annotated[StrictStr, Field(min_length=1)]
Zone = Annotated[StrictStr, AfterValidator(check_zone)]
Duration = Annotated[
    timedelta,
    PlainValidator(_durations.parse),
    WithJsonSchema({"type": ["string", "number"], "examples": ["30s", "5m", "24h", "30d"]}),
]


Attempts = Annotated[int, BeforeValidator(_no_flag), Field(ge=1, le=1000)]
Factor = Annotated[
    float, BeforeValidator(_no_flag), Field(ge=1, le=1000, allow_inf_nan=False, strict=True)
]
ErrorNames = Annotated[tuple[str, ...], PlainValidator(_error_names)]
Limit = Annotated[dict[str, Any], PlainValidator(_limit)]
Size = Annotated[int, Field(ge=1, le=1000), BeforeValidator(_no_flag)]


class Pool(BaseModel):
    """One of `scheduler.executors`; what else it says is for the plugin that makes it."""

    model_config = ConfigDict(extra="allow")

    kind: Name | None = None
    size: Size | None = None


def _as_given(pool: Pool) -> dict[str, Any]:
    return pool.model_dump(exclude_unset=True)


class Scheduler(BaseModel):
    """`scheduler:`, one layer of it: what is not set was not given."""

    model_config = ConfigDict(extra="forbid")

    enabled: Flag | None = None
    timezone: Zone | None = None
    database: Annotated[StrictStr, AfterValidator(check_own_url)] | None = None
    databases: dict[str, Annotated[StrictStr, AfterValidator(check_url)]] | None = None
    local_plugins: list[Any] | None = None  # each is checked with its file
    workers: Size | None = None
    executors: dict[str, Annotated[Pool, AfterValidator(_as_given)]] | None = None
    shutdown_grace: Duration | None = None
    lease: Annotated[Duration, AfterValidator(_lease)] | None = None
    health_address: Annotated[StrictStr, AfterValidator(_address)] | None = None
    retention: Duration | None = None
    retention_runs: Annotated[int, BeforeValidator(_no_flag), Field(ge=0)] | None = None
    unknown_jobs: Literal["error", "warn"] | None = None
    unlisted_jobs: Literal["run", "ignore"] | None = None
    extensions: dict[str, dict[str, Any]] | None = None
    jobs: list[Any] | None = None


class JobEntry(BaseModel):
    """One item of `scheduler.jobs`: what is not set was not given."""

    model_config = ConfigDict(extra="forbid")

    extension: Name | None = None
    job: Name | None = None
    name: Name | None = None
    enabled: Flag | None = None
    schedule: StrictStr | None = None
    timezone: Zone | None = None
    parameters: dict[str, Any] | None = None
    enforce: Flag | None = None
    overlap: Literal["skip", "queue", "allow"] | None = None
    splay: Duration | None = None
    catch_up: Literal["latest", "none", "all"] | None = None
    catchup_window: Annotated[Duration, AfterValidator(_lease)] | None = None
    silence: list[LintCode] | None = None
    timeout: Annotated[timedelta | Literal["none"], PlainValidator(_timeout)] | None = None
    max_attempts: Attempts | None = None
    retry_delay: Duration | None = None
    retry_factor: Factor | None = None
    retry_max_delay: Duration | None = None
    retry_past_next_tick: Flag | None = None
    retry_on: ErrorNames | None = None
    give_up_on: ErrorNames | None = None
    repeatable: Flag | None = None
    concurrency: Limit | None = None
    executor: Name | None = None


RETRY = (
    "max_attempts",
    "retry_delay",
    "retry_factor",
    "retry_max_delay",
    "retry_past_next_tick",
    "retry_on",
    "give_up_on",
)
"""The keys of an entry that make its `RetryPolicy`."""


def check(
    model: type[BaseModel],
    data: Any,
    place: Callable[[Loc], Place],
    culprit: Callable[[Loc], str] = path_text,
    at: Loc = (),
) -> tuple[dict[str, Any], list[Problem]]:
    """Return the values of `data` that fit `model`, by name, and a problem for each other.

    `at` is where in the document `data` stands; `place` and `culprit` name places in it.
    """
    try:
        return _given(model.model_validate(data)), []
    except ValidationError as error:
        details = error.errors(include_url=False)
    problems = []
    for detail in details:
        loc: Loc = (*at, *detail["loc"])
        reason, remedy = _explain(detail, model)
        problems.append(Problem(culprit(loc), reason, place(loc), remedy))
    if not isinstance(data, dict):
        return {}, problems
    wrong = {detail["loc"][0] for detail in details}
    sound = {key: value for key, value in data.items() if key not in wrong}
    return _given(model.model_validate(sound)), problems


def _given(model: BaseModel) -> dict[str, Any]:
    return {name: getattr(model, name) for name in model.model_fields_set}


def _explain(detail: Mapping[str, Any], model: type[BaseModel]) -> tuple[str, str]:
    kind, value, context = detail["type"], detail["input"], detail.get("ctx", {})
    if kind == "extra_forbidden":
        fields = list(model.model_fields)
        return "unknown key", near(detail["loc"][0], fields) or f"known are {', '.join(fields)}"
    if kind == "value_error":
        return str(context["error"]), ""
    if kind not in _WRONG:
        return f"is {shown(value)}: {detail['msg']}", ""
    quote = kind == "string_type" and isinstance(value, (bool, int, float))
    remedy = "put it in quotes" if quote else ""
    return f"is {shown(value)}, {_WRONG[kind].format(**context)}", remedy
