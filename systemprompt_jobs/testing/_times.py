"""Durations and instants as tests write them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

_UNITS = {"year": 31_536_000, "week": 604_800, "day": 86_400, "hour": 3_600, "minute": 60}
_NAMES = {**_UNITS, "second": 1, "y": 31_536_000, "w": 604_800, "d": 86_400, "h": 3_600, "m": 60}
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(years?|weeks?|days?|hours?|minutes?|seconds?|[ywdhms])\s*")

Time = str | float | timedelta
"""A duration: `1 day`, `1h30m`, `2 weeks`, seconds, or a timedelta. A year has 365 days."""


def seconds_of(duration: Time) -> float:
    """Return the seconds of a duration; a minus sign goes back. Raises ValueError."""
    if isinstance(duration, timedelta):
        return duration.total_seconds()
    if isinstance(duration, int | float):
        return duration
    text = duration.strip().removeprefix("-")
    parts = _PART.findall(text)
    if not parts or _PART.sub("", text):
        raise ValueError(f"{duration!r} is no duration: write 90s, 1h30m, 1 day or 2 weeks")
    sign = -1 if duration.strip().startswith("-") else 1
    return sign * sum(float(n) * _NAMES.get(unit, _NAMES.get(unit[:-1], 1)) for n, unit in parts)


def instant_of(when: str | datetime, zone: str) -> datetime:
    """Return an instant as UTC; a text, or a datetime without a zone, is read in `zone`."""
    at = datetime.fromisoformat(when) if isinstance(when, str) else when
    if at.tzinfo is None:
        at = at.replace(tzinfo=ZoneInfo(zone))
    return at.astimezone(UTC)
