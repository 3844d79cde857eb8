"""A job's parameters: the keyword-only arguments of its function, typed by annotation."""

from __future__ import annotations

import difflib
import inspect
import json
import os
import re
import reprlib
import types
import typing
import weakref
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

from .errors import ParameterError
from .secrets import is_secret, reveal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from pydantic import TypeAdapter

    from .model import Job

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
_SHOWN = 60


@dataclass(frozen=True, slots=True)
class _Parameter:
    annotation: Any
    adapter: TypeAdapter[Any]
    default: Any  # inspect.Parameter.empty where the function has none


@dataclass(frozen=True, slots=True)
class _Signature:
    takes_context: bool
    parameters: Mapping[str, _Parameter]


_signatures: weakref.WeakKeyDictionary[Callable[..., Any], _Signature] = weakref.WeakKeyDictionary()
"""By function: many jobs may have one."""


def takes_context(job: Job[..., Any]) -> bool:
    """Return whether the function takes the context as its one positional argument."""
    return _signature(job).takes_context


def check_signature(job: Job[..., Any]) -> None:
    """Raise ParameterError for a function that no run could call.

    It may take at most one positional argument, and keyword-only ones whose annotations can be
    resolved and validated.
    """
    _signature(job)


def names(job: Job[..., Any]) -> tuple[str, ...]:
    """Return the names of the job's parameters, in the function's order."""
    return tuple(_signature(job).parameters)


def defaults(job: Job[..., Any]) -> dict[str, Any]:
    """Return the function's own defaults, as they are."""
    parameters = _signature(job).parameters.items()
    return {name: p.default for name, p in parameters if p.default is not inspect.Parameter.empty}


def validate(
    job: Job[..., Any], values: Mapping[str, Any], *, partial: bool = False
) -> dict[str, Any]:
    """Return `values` converted by the function's annotations, with its defaults filled in.

    What a reference such as `{env: NAME}` stands for is read now. With `partial`, only what is
    in `values`. Defaults are the function's own and not checked.
    Raises one ParameterError that names every unknown, missing and unfitting parameter.
    """
    parameters = _signature(job).parameters
    if not parameters and not values:
        return {}
    complaints = [_unknown(name, parameters) for name in values if name not in parameters]
    result = {}
    for name, parameter in parameters.items():
        if name in values:
            try:
                value = reveal(values[name], os.environ)
                result[name] = parameter.adapter.validate_python(value)
            except Exception as error:  # noqa: BLE001 - the annotation may bring a plugin's code
                complaints.append(_unfit(name, parameter, values[name], error))
        elif partial:
            continue
        elif parameter.default is inspect.Parameter.empty:
            complaints.append(f"{name} has no value and no default: it takes {_kind(parameter)}")
        else:
            result[name] = parameter.default
    if complaints:
        raise ParameterError("; ".join(complaints))
    return result


def shown(value: object) -> str:
    """Return `value` as YAML writes it, for an error message: cut, and passwords masked."""
    try:
        text = json.dumps(value, ensure_ascii=False, default=repr)
    except (TypeError, ValueError, RecursionError):  # keys that are no text, cycles
        text = reprlib.repr(value)
    text = masked(text)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def masked(text: str) -> str:
    """Return `text` with the passwords of URLs replaced by `***`; rather too much than too little."""
    head, at, tail = text.rpartition("@")
    if at and (user := re.search(r"://[^\s:/@\"']*:", head)):
        text = f"{head[: user.end()]}***@{tail}"
    values = r"((?:password|[_-]key|token|secret)=)[^&\s\"']*"
    return re.sub(values, r"\1***", text, flags=re.IGNORECASE)


def near(name: str, candidates: Iterable[str]) -> str:
    """Return `did you mean 'x'?` for the candidate nearest to `name`, empty if none is near."""
    matches = difflib.get_close_matches(name[:100], list(candidates), n=1)
    return f"did you mean {matches[0]!r}?" if matches else ""


def _signature(job: Job[..., Any]) -> _Signature:
    known = _signatures.get(job.function)
    if known is None:
        known = _signatures[job.function] = _inspect(job)
    return known


def _inspect(job: Job[..., Any]) -> _Signature:
    try:
        arguments = inspect.signature(job.function).parameters
    except (TypeError, ValueError) as error:
        raise ParameterError(f"its signature cannot be read: {error}") from error
    positional = [name for name, a in arguments.items() if a.kind in _POSITIONAL]
    variadic = [str(a) for a in arguments.values() if a.kind in _VARIADIC]
    if len(positional) > 1 or variadic:
        raise ParameterError(
            f"it takes {', '.join(positional[1:] + variadic)}, which no run could pass: a job "
            "takes nothing or its context, and parameters behind a `*`"
        )
    keywords = {n: a for n, a in arguments.items() if a.kind is inspect.Parameter.KEYWORD_ONLY}
    return _Signature(bool(positional), _parameters(job, keywords))


def _parameters(
    job: Job[..., Any], arguments: Mapping[str, inspect.Parameter]
) -> Mapping[str, _Parameter]:
    function = inspect.unwrap(job.function)
    namespace = getattr(function, "__globals__", {})
    return {name: _parameter(argument, namespace) for name, argument in arguments.items()}


def _parameter(argument: inspect.Parameter, namespace: dict[str, Any]) -> _Parameter:
    from pydantic import TypeAdapter

    annotation = Any if argument.annotation is inspect.Parameter.empty else argument.annotation
    # Only this annotation: the context's type is often imported for type checkers alone.
    holder = types.SimpleNamespace(__annotations__={argument.name: annotation})
    try:
        annotation = typing.get_type_hints(holder, namespace, include_extras=True)[argument.name]
        return _Parameter(annotation, TypeAdapter(_with_durations(annotation)), argument.default)
    except Exception as error:
        raise ParameterError(
            f"the annotation of its parameter {argument.name} cannot be used: "
            f"{type(error).__name__}: {str(error).partition('. ')[0]}"
        ) from error


def _with_durations(annotation: Any) -> Any:
    """Let every `timedelta` inside `annotation` accept texts such as `30d`."""
    from ._types import Duration

    if annotation is timedelta:
        return Duration
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is None or origin is Literal or not arguments:
        return annotation
    if origin is Annotated:
        return Annotated[(_with_durations(arguments[0]), *annotation.__metadata__)]
    changed = tuple(_with_durations(argument) for argument in arguments)
    if changed == arguments:
        return annotation
    return Union[changed] if origin is types.UnionType else origin[changed]  # noqa: UP007


def _unknown(name: str, parameters: Mapping[str, _Parameter]) -> str:
    if not parameters:
        return f"{shown(name)} is no parameter: the job takes none"
    hint = near(name, parameters) or f"the job takes {', '.join(parameters)}"
    return f"{shown(name)} is no parameter: {hint}"


def _unfit(name: str, parameter: _Parameter, value: object, error: Exception) -> str:
    from pydantic import ValidationError

    text = "***" if is_secret(name) else shown(value)
    if not isinstance(error, ValidationError):
        return f"{name}: {text}: {error}"
    reasons = list(dict.fromkeys(map(_reason, error.errors(include_url=False))))
    return f"{name}: {text} does not fit {_kind(parameter)}: {', '.join(reasons[:3])}"


def _reason(detail: Mapping[str, Any]) -> str:
    if detail["type"] == "value_error":
        return str(detail["ctx"]["error"])
    message: str = detail["msg"]
    quote = (
        ", written in quotes"
        if detail["type"] == "string_type" and detail["input"] is not None
        else ""
    )
    return message[:1].lower() + message[1:] + quote


def _kind(parameter: _Parameter) -> str:
    return inspect.formatannotation(parameter.annotation).replace("datetime.", "")
