"""What goes between a scheduler and its worker processes: one JSON text a line, no pickles."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from datetime import datetime, timedelta
from enum import Enum
from functools import cache
from typing import TYPE_CHECKING, Any

from systemprompt_jobs import model

if TYPE_CHECKING:
    from collections.abc import Iterator
    from dataclasses import Field

    from _typeshed import DataclassInstance

LOGGED = re.compile(r"[-\d]{10} [:\d]{8} (debug|info|warning|error|critical) ")
"""How a line begins that was logged, among those that a function has printed."""


_AS_THEY_ARE = frozenset({str, int, float, bool, type(None)})


def line(value: object) -> bytes:
    """Return the line that says `value`: plain data, instants, durations, values of `model`."""
    return _text_of(_plain(value)).encode() + b"\n"


def value_of(text: bytes) -> Any:
    """Return what a line says."""
    return _data_of(text.decode())


def _plain(value: object) -> object:
    """Return what JSON can say. A mapping of one key with a `$` is something else in disguise."""
    if type(value) in _AS_THEY_ARE:
        return value
    if isinstance(value, Mapping):
        plain = {str(key): _plain(item) for key, item in value.items()}
        return {"$": list(plain.items())} if any(key[:1] == "$" for key in plain) else plain
    if isinstance(value, list | tuple):
        items = [_plain(item) for item in value]
        return {"$tuple": items} if isinstance(value, tuple) else items
    return _named(value)


def _named(value: object) -> object:
    if isinstance(value, Enum):
        return {f"${type(value).__name__}": value.value}
    if isinstance(value, datetime):
        return {"$instant": value.isoformat()}
    if isinstance(value, timedelta):
        return {"$seconds": value.total_seconds()}
    if is_dataclass(value) and not isinstance(value, type):
        return {f"${type(value).__name__}": dict(_told(value))}
    return value


def _told(value: DataclassInstance) -> Iterator[tuple[str, object]]:
    """Yield the fields that are not as a new value has them: of a run's these are the fewest."""
    for name, usual in _usual(type(value)):
        own = getattr(value, name)
        if own is not usual and own != usual:
            yield name, _plain(own)


@cache
def _usual(kind: type[DataclassInstance]) -> tuple[tuple[str, object], ...]:
    return tuple((field.name, _default(field)) for field in fields(kind))


def _default(field: Field[Any]) -> object:
    return field.default if field.default_factory is MISSING else field.default_factory()


def _restored(data: dict[str, Any]) -> Any:
    kind = next(iter(data), "")
    if kind[:1] != "$":
        return data
    value = data[kind]
    if kind == "$":
        return dict(value)
    if kind == "$instant":
        return datetime.fromisoformat(value)
    if kind == "$seconds":
        return timedelta(seconds=value)
    if kind == "$tuple":
        return tuple(value)
    made = getattr(model, kind[1:])
    return made(**value) if isinstance(value, dict) else made(value)


_text_of = json.JSONEncoder().encode
_data_of = json.JSONDecoder(object_hook=_restored).decode
