"""`Fields` turned into bit tables, once per text; jobs and threads share them."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import ScheduleError
from ._days import Days, length_of
from ._instants import DAY
from ._text import Fields, read
from ._times import Times, below, lowest

if TYPE_CHECKING:
    from collections.abc import Iterable

SUNDAY, SATURDAY = 0, 6
_WEEKLY = sum(1 << 7 * week for week in range(5))


@dataclass(frozen=True, slots=True)
class Tables:
    """All that decides when a cron schedule is due, apart from its zone.

    `wildcard` jobs follow real time through daylight saving, the others keep their times of day.
    """

    times: Times
    days: Days
    wildcard: bool

    def ceil(self, local: int) -> int | None:
        """Return the first match that is not before `local`; None if 40 years have none.

        Local times are in seconds, as if the epoch had been at local midnight.
        """
        day, time = divmod(local, DAY)
        found = self.days.ceil(day)
        if found == day:
            later = self.times.ceil(time)
            if later is not None:
                return day * DAY + later
            found = self.days.ceil(day + 1)
        return None if found is None else found * DAY + self.times.first

    def floor(self, local: int) -> int | None:
        """Return the last match that is not after `local`; None if 40 years have none."""
        day, time = divmod(local, DAY)
        found = self.days.floor(day)
        if found == day:
            earlier = self.times.floor(time)
            if earlier is not None:
                return day * DAY + earlier
            found = self.days.floor(day - 1)
        return None if found is None else found * DAY + self.times.last

    def count(self, start: int, end: int) -> int:
        """Return how many matches have `start` <= local < `end`; a month costs one step."""
        return self._rank(start, end) if start < end else 0

    def _rank(self, start: int, end: int) -> int:
        (first, early), (last, late) = divmod(start, DAY), divmod(end, DAY)
        total = self.days.count(first, last) * self.times.rank(DAY)
        total -= self.days.count(first, first + 1) * self.times.rank(early)
        return total + self.days.count(last, last + 1) * self.times.rank(late)


def tables(text: object) -> Tables:
    """Return the tables of a cron text. Raises ScheduleError."""
    read(text)  # refuses what cannot be hashed
    return _tables(text)


@functools.lru_cache(maxsize=4096)
def _tables(text: str) -> Tables:
    fields = read(text)
    times = Times(_mask(fields.hours), _mask(fields.minutes), _mask(fields.seconds))
    days = Days.of(_mask(fields.months), functools.partial(_days_of, fields, _mask(fields.days)))
    if not days.months:
        raise ScheduleError(
            f"schedule {text[:60]!r}: day of month {fields.texts[3]!r} never occurs in "
            f"month {fields.texts[4]!r}; L is the last day of a month"
        )
    return Tables(times, days, fields.wildcard)


def _mask(numbers: Iterable[int]) -> int:
    return sum(1 << number for number in numbers)


def _days_of(fields: Fields, numbered: int, shape: int) -> int:
    """Return the days of a month of this shape as a mask; two restricted fields are OR-ed.

    `numbered` is the mask of the days of month that are given as numbers.
    """
    of_month, of_week = _by_day_of_month(fields, numbered, shape), _by_weekday(fields, shape)
    either = fields.day_restricted and fields.weekday_restricted
    return of_month | of_week if either else of_month & of_week


def _by_day_of_month(fields: Fields, numbered: int, shape: int) -> int:
    days = below(numbered, length_of(shape) + 1)
    if fields.last_day:
        days |= 1 << length_of(shape)
    if fields.nearest is not None:
        days |= 1 << _nearest_weekday(shape, fields.nearest)
    return days


def _nearest_weekday(shape: int, day: int) -> int:
    """Return the day from Monday to Friday that is nearest to `day` within the month."""
    day = min(day, length_of(shape))
    weekday = (shape // 4 + day - 1) % 7
    if weekday == SATURDAY:
        return day - 1 if day > 1 else 3
    if weekday == SUNDAY:
        return day + 1 if day < length_of(shape) else day - 2
    return day


def _by_weekday(fields: Fields, shape: int) -> int:
    days = 0
    for weekday in fields.weekdays:
        days |= _on(shape, weekday)
    for weekday, nth in fields.nth:
        on = _on(shape, weekday)
        days |= on & (1 << lowest(on) + 7 * (nth - 1)) if nth else 1 << on.bit_length() - 1
    return days


def _on(shape: int, weekday: int) -> int:
    """Return the days of a month of this shape that fall on `weekday`."""
    return below(_WEEKLY << 1 + (weekday - shape // 4) % 7, length_of(shape) + 1)
