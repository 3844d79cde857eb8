"""A cron schedule in plain English, from what it says and not from how it is spelt.

cron-descriptor was tried: it reads `*/7` as "every 7 minutes", `5-5` as a range, `MON-WED#1` as
the days without the `#1`, and `1,L` as "day 1 and L".
"""

# ruff: noqa: PLR2004 - 24 hours, 12 months, 7 days
from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from ._text import HOUR, MINUTE, SECOND

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ._text import Field, Fields

WEEKDAYS = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")
MONTHS = (
    *("January", "February", "March", "April", "May", "June", "July"),
    *("August", "September", "October", "November", "December"),
)
_NTH = ("last", "first", "second", "third", "fourth", "fifth")
_MOST_TIMES = 6  # more times of day than these are not listed one by one


def describe(fields: Fields, *, every_day: bool) -> str:
    """Return when it is due, without the zone; `every_day` says that no day is left out."""
    days = "every day" if every_day else _days(fields)
    if len(fields.hours) * len(fields.minutes) * len(fields.seconds) <= _MOST_TIMES:
        times = itertools.product(*map(sorted, (fields.hours, fields.minutes, fields.seconds)))
        return f"{days} at {_join([_clock(fields, *time) for time in times])}"
    often = _often(fields)
    return often if every_day else f"{often}, {days}"


def _clock(fields: Fields, hour: int, minute: int, second: int) -> str:
    return f"{hour:02}:{minute:02}" + (f":{second:02}" if fields.seconds != {0} else "")


def _often(fields: Fields) -> str:
    """Chain seconds, minutes and hours, leaving out what goes without saying."""
    hours, window = _hours(fields)
    units = [(SECOND, fields.seconds), (MINUTE, fields.minutes), (HOUR, hours)]
    if fields.seconds == {0}:
        del units[0]
        if fields.minutes == {0} and _step(HOUR, hours):
            del units[0]
    said = [_unit(*units[0])]
    for field, values in units[1:]:
        if not (_step(field, values) == 1 and said[-1].startswith("every")):
            said.append(_of_unit(field, values))
    return " of ".join(said) + window


def _hours(fields: Fields) -> tuple[frozenset[int], str]:
    """Take an unbroken run of hours as all hours within a window of time."""
    low, high = min(fields.hours), max(fields.hours)
    if not 1 < len(fields.hours) == high - low + 1 < 24:
        return fields.hours, ""
    first = _clock(fields, low, min(fields.minutes), min(fields.seconds))
    last = _clock(fields, high, max(fields.minutes), max(fields.seconds))
    return frozenset(range(24)), f" from {first} to {last}"


def _step(field: Field, values: frozenset[int]) -> int:
    """Return n if the values are every n-th from 0 and go on so across the field's end, else 0."""
    size = field.high + 1
    step = size // len(values)
    return (
        step if len(values) > 1 and values == set(range(0, size, step)) and size % step == 0 else 0
    )


def _unit(field: Field, values: frozenset[int]) -> str:
    """Return e.g. `every minute`, `every 5 minutes`, `at minutes 0 and 31`."""
    step = _step(field, values)
    if step > 1:
        return f"every {step} {field.name}s"
    return f"every {field.name}" if step else f"at {_numbered(field, values)}"


def _of_unit(field: Field, values: frozenset[int]) -> str:
    """Return the same as it reads after "of"."""
    step = _step(field, values)
    if step > 1:
        return f"every {_ordinal(step)} {field.name}"
    return f"every {field.name}" if step else _numbered(field, values)


def _numbered(field: Field, values: frozenset[int]) -> str:
    return f"{field.name}{'s' if len(values) > 1 else ''} {_listed(values, str)}"


def _days(fields: Fields) -> str:
    of_month, of_week = _days_of_month(fields), _days_of_week(fields)
    nth = " of the month" if fields.nth and len(fields.months) == 12 else ""
    months = _months(fields)
    if not fields.day_restricted:
        return f"{of_week or 'every day'}{nth or (months and f' in {months}')}"
    of_month += f" of {months or 'every month'}"
    if not fields.weekday_restricted:
        return of_month
    return f"{of_month} and {of_week or 'every day'}{nth or (months and f' in {months}')}"


def _days_of_month(fields: Fields) -> str:
    days = [f"the {_listed(fields.days, _ordinal)}"] if fields.days else []
    if fields.last_day:
        days.append("the last day")
    if fields.nearest is not None:
        days.append(f"the weekday nearest to the {_ordinal(fields.nearest)}")
    return f"on {_join(days)}"


def _days_of_week(fields: Fields) -> str:
    if fields.nth:
        return f"on the {_join([f'{_NTH[n]} {WEEKDAYS[day]}' for day, n in sorted(fields.nth)])}"
    days = sorted(fields.weekdays, key=lambda day: (day - 1) % 7)  # Sunday comes last in a week
    starts = [day for day in days if (day - 1) % 7 not in fields.weekdays]
    if not starts:
        return ""
    if len(starts) == 1 and len(days) > 2:
        return f"{WEEKDAYS[starts[0]]} to {WEEKDAYS[(starts[0] + len(days) - 1) % 7]}"
    return f"every {_join([WEEKDAYS[day] for day in days])}"


def _months(fields: Fields) -> str:
    return "" if len(fields.months) == 12 else _listed(fields.months, lambda n: MONTHS[n - 1])


def _listed(values: Iterable[int], word: Callable[[int], str]) -> str:
    """Return a list in words; three in a row are a range, five at one distance are abridged."""
    numbers = sorted(values)
    steps = {after - before for before, after in itertools.pairwise(numbers)}
    if len(numbers) > 2 and steps == {1}:
        return f"{word(numbers[0])} to {word(numbers[-1])}"
    if len(numbers) > 4 and len(steps) == 1:
        return f"{', '.join(map(word, numbers[:3]))} … {word(numbers[-1])}"
    return _join([word(number) for number in numbers])


def _join(words: list[str]) -> str:
    return f"{', '.join(words[:-1])} and {words[-1]}" if len(words) > 1 else words[0]


def _ordinal(number: int) -> str:
    ending = {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th") if number // 10 != 1 else "th"
    return f"{number}{ending}"
