"""Durations as people write them: `30s`, `5m`, `1h30m`, `30d`, `2w`, or a number of seconds."""

from __future__ import annotations

import functools
import re
import reprlib
from datetime import timedelta

_UNITS = {"w": "weeks", "d": "days", "h": "hours", "m": "minutes", "s": "seconds"}
_TEXT = re.compile("".join(rf"(?:(?P<{unit}>[0-9]+(?:\.[0-9]+)?){unit}\s*)?" for unit in _UNITS))
_SECONDS = re.compile(r"[0-9]+(?:\.[0-9]+)?")


def parse(value: object) -> timedelta:
    """Return the duration that `value` says; bare numbers are seconds.

    Raises ValueError for anything else, for negative durations and for ones of over 2,700,000
    years.
    """
    if isinstance(value, timedelta):
        return _not_negative(value, value)
    if isinstance(value, str):
        return _not_negative(_from_text(value.strip()), value)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return _not_negative(_from_parts({"seconds": value}), value)
    raise _error(value)


def parse_timeout(value: object) -> timedelta | None:
    """Return the duration that `value` says, None for the word `none`; raise ValueError."""
    if value == "none":
        return None
    duration = parse(value)
    if not duration:
        raise ValueError("must be longer than 0s; write none for as long as it takes")
    return duration


def text(value: timedelta) -> str:
    """Return a duration as `parse` reads it, e.g. `1h30m`."""
    seconds, parts = value.total_seconds(), []
    for unit, size in (("d", 86_400), ("h", 3600), ("m", 60)):
        whole, seconds = divmod(seconds, size)
        parts += [f"{whole:.0f}{unit}"] if whole else []
    return "".join(parts) + (f"{seconds:g}s" if seconds or not parts else "")


@functools.lru_cache(maxsize=1024)
def _from_text(text: str) -> timedelta | None:
    if _SECONDS.fullmatch(text):
        return _from_parts({"seconds": float(text)})
    match = _TEXT.fullmatch(text)
    if not text or match is None:
        return None
    parts = {_UNITS[unit]: float(n) for unit, n in match.groupdict().items() if n is not None}
    return _from_parts(parts)


def _from_parts(parts: dict[str, float]) -> timedelta | None:
    try:
        return timedelta(**parts)
    except (OverflowError, ValueError):  # too long; not a number
        return None


def _not_negative(duration: timedelta | None, value: object) -> timedelta:
    if duration is None or duration < timedelta(0):
        raise _error(value)
    return duration


def _error(value: object) -> ValueError:
    return ValueError(f"{reprlib.repr(value)} is no duration: write 30s, 5m, 1h30m, 30d or 2w")
