"""A cron schedule in plain English, from what it says and not from how it is spelt.

Libraries that do this were tried: they read `*/7` as "every 7 minutes", `#` with a range as the
range alone, and a list with `L` as "day 1 and L".
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from ._text import Fields

WEEKDAYS = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")
MONTHS = (
    *("January", "February", "March", "April", "May", "June", "July"),
    *("August", "September", "October", "November", "December"),
)
_NTH = ("last", "first", "second", "third", "fourth", "fifth")
_MOST_TIMES = 6  # more times of day than these are not listed


def describe(fields: Fields) -> str:
    """Return when the schedule is due, without its zone."""
    days = _days(fields)
    if len(fields.hours) * len(fields.minutes) * len(fields.seconds) <= _MOST_TIMES:
        return f"{days} at {_join(_clock_times(fields))}"
    often = _often(fields)
    return often if days == "every day" else f"{often}, {days}"


def _clock_times(fields: Fields) -> Iterable[str]:
    times = itertools.product(sorted(fields.hours), sorted(fields.minutes), sorted(fields.seconds))
    return [_clock_time(fields, *time) for time in times]


def _clock_time(fields: Fields, hour: int, minute: int, second: int) -> str:
    return f"{hour:02}:{minute:02}" + (f":{second:02}" if fields.seconds != {0} else "")


def _often(fields: Fields) -> str:
    """Chain seconds, minutes and hours, leaving out what goes without saying."""
    phrases = [
        _unit("second", fields.seconds, 60),
        _unit("minute", fields.minutes, 60),
        _unit("hour", fields.hours, 24),
    ]
    while len(phrases) > 1 and phrases[0] in {"at second 0", "at minute 0"}:
        if phrases[1].startswith("at"):
            break
        del phrases[0]
    said = [phrases[0]]
    for phrase in phrases[1:]:
        whole = phrase in {"every minute", "every hour"}
        if not (whole and said[-1].startswith("every")):
            said.append(phrase)
    return _chained(fields, said)


def _chained(fields: Fields, said: list[str]) -> str:
    hours = sorted(fields.hours)
    run = len(hours) < 24 and hours == list(range(hours[0], hours[-1] + 1))
    if run and len(said) == 2 and said[0].startswith("every") and said[1].startswith("at hour"):
        first = _clock_time(fields, hours[0], min(fields.minutes), min(fields.seconds))
        last = _clock_time(fields, hours[-1], max(fields.minutes), max(fields.seconds))
        return f"{said[0]} from {first} to {last}"
    return " of ".join([said[0], *(phrase.removeprefix("at ") for phrase in said[1:])])


def _unit(name: str, values: frozenset[int], size: int) -> str:
    """Return e.g. `every minute`, `every 5 minutes`, `at minutes 0 and 30`."""
    if len(values) == size:
        return f"every {name}"
    if size % len(values) == 0 and values == set(range(0, size, size // len(values))):
        step = size // len(values)
        return f"every {step} {name}s" if len(values) > 1 else f"at {name} 0"
    return f"at {name}{'s' if len(values) > 1 else ''} {_listed(sorted(values), str)}"
