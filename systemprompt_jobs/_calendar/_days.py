"""The days a schedule names: which months, and which days of a month of each shape.

A month has one of 28 shapes: the weekday of its first day (0 is Sunday) times its length (28 to
31). A year's months repeat their shapes every 400 years. Days are counted from 1970-01-01.
"""

from __future__ import annotations

import calendar
import functools
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

from ._times import below, lowest

if TYPE_CHECKING:
    from collections.abc import Callable

EPOCH_DAY = date(1970, 1, 1).toordinal()
FIRST_DAY, LAST_DAY = (day.toordinal() - EPOCH_DAY for day in (date.min, date.max))
FEBRUARY = 2
SHORT = {4, 6, 9, 11}
MONTHS_OF_LENGTH = {
    28: 1 << FEBRUARY,
    29: 1 << FEBRUARY,
    30: sum(1 << month for month in SHORT),
    31: sum(1 << month for month in range(1, 13) if month not in {FEBRUARY, *SHORT}),
}
# 29 February falls on one given weekday every 28 years, and every 40 around 2100.
HORIZON_YEARS = 41
LAST_YEAR = 9999
ALL_MONTHS = below(-1, 13) & ~1


def _shapes_of_all_months() -> bytes:
    """Return the shape of month m of year y, at index y % 400 * 12 + m - 1."""
    weekday, years = 6, []  # 1 January of year 400, like that of 2000, is a Saturday
    for year in range(400, 800):
        leap = calendar.isleap(year)
        years.append(_shapes_of_a_year(weekday, leap))
        weekday = (weekday + 365 + leap) % 7
    return b"".join(years)


@functools.cache
def _shapes_of_a_year(weekday: int, leap: bool) -> bytes:
    shapes = bytearray()
    for month in range(1, 13):
        length = calendar.monthrange(2000 if leap else 2001, month)[1]
        shapes.append(weekday * 4 + length - 28)
        weekday = (weekday + length) % 7
    return bytes(shapes)


SHAPES = _shapes_of_all_months()


def length_of(shape: int) -> int:
    """Return how many days a month of this shape has."""
    return 28 + shape % 4


def _date_of(day: int) -> date | None:
    """Return the date of a day since the epoch; None beyond the calendar's ends."""
    try:
        return date.fromordinal(day + EPOCH_DAY)
    except (ValueError, OverflowError):
        return None


@dataclass(frozen=True, slots=True)
class Days:
    """Bit m of `months` for month m; bit d of `shapes[shape]` for day d of such a month.

    `every` says that all days match. Made by `Days.of`, so that equal days are equal values.
    """

    months: int
    shapes: tuple[int, ...]
    every: bool

    @classmethod
    def of(cls, months: int, days_of: Callable[[int], int]) -> Days:
        """Return the days that `days_of(shape)` names in `months`; none if they never occur."""
        shapes, occurring = [], 0
        for shape in range(28):
            of_this_length = MONTHS_OF_LENGTH[length_of(shape)]
            days = days_of(shape) if months & of_this_length else 0
            occurring |= of_this_length if days else 0
            shapes.append(days)
        every = months == ALL_MONTHS and all(
            days.bit_count() == length_of(shape) for shape, days in enumerate(shapes)
        )
        return cls(months & occurring, tuple(shapes), every)

    def ceil(self, day: int) -> int | None:
        """Return the first one that is not before `day`; None if there is none in 40 years."""
        if self.every:
            return day
        start = _date_of(day)
        if start is None:
            return None
        bits = self._of_month(start.year * 12 + start.month - 1) >> start.day
        return day + lowest(bits) if bits else self._first_after(start.year, start.month)

    def _first_after(self, year: int, month: int) -> int | None:
        end = min(year + HORIZON_YEARS, LAST_YEAR)
        while True:
            bits = self.months >> (month + 1)
            if bits:
                month += 1 + lowest(bits)
            elif year == end:
                return None
            else:
                year, month = year + 1, lowest(self.months)
            days = self._of_month(year * 12 + month - 1)
            if days:
                return date(year, month, lowest(days)).toordinal() - EPOCH_DAY

    def floor(self, day: int) -> int | None:
        """Return the last one that is not after `day`; None if there is none in 40 years."""
        if self.every:
            return day
        start = _date_of(day)
        if start is None:
            return None
        bits = below(self._of_month(start.year * 12 + start.month - 1), start.day + 1)
        if bits:
            return day - start.day + bits.bit_length() - 1
        return self._last_before(start.year, start.month)

    def _last_before(self, year: int, month: int) -> int | None:
        end = max(year - HORIZON_YEARS, 1)
        while True:
            bits = below(self.months, month)
            if bits:
                month = bits.bit_length() - 1
            elif year == end:
                return None
            else:
                year, month = year - 1, self.months.bit_length() - 1
            days = self._of_month(year * 12 + month - 1)
            if days:
                return date(year, month, days.bit_length() - 1).toordinal() - EPOCH_DAY

    def count(self, start: int, end: int) -> int:
        """Return how many there are with `start` <= day < `end`; a month costs one step."""
        start, end = max(start, FIRST_DAY), min(end, LAST_DAY + 1)
        if self.every or start >= end:
            return max(0, end - start)
        first, last = (date.fromordinal(day + EPOCH_DAY) for day in (start, end - 1))
        low, high = (day.year * 12 + day.month - 1 for day in (first, last))
        total = sum(self._of_month(month).bit_count() for month in range(low, high + 1))
        total -= below(self._of_month(low), first.day).bit_count()
        return total - (self._of_month(high) >> (last.day + 1)).bit_count()

    def _of_month(self, month: int) -> int:
        """Return the matching days of a month, counted from January of year 0."""
        if not self.months >> (month % 12 + 1) & 1:
            return 0
        return self.shapes[SHAPES[month % 4800]]
