"""What goes between a scheduler and its worker processes: one JSON text a line, no pickles."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import Any

from systemprompt_jobs import model

LOGGED = re.compile(r"[-\d]{10} [:\d]{8} (debug|info|warning|error|critical) ")
"""How a line begins that was logged, among those that a function has printed."""


def line(value: object) -> bytes:
    """Return the line that says `value`: plain data, instants, durations, values of `model`."""
    return json.dumps(_plain(value)).encode() + b"\n"


def value_of(text: bytes) -> Any:
    """Return what a line says."""
    return json.loads(text, object_hook=_restored)


def _plain(value: object) -> object:
    """Return what JSON can say. A mapping of one key with a `$` is something else in disguise."""
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
    if is_dataclass(value):
        own = {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
        return {f"${type(value).__name__}": own}
    return value


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
