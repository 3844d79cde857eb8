"""The days a schedule names: which months, and which days of a month of each shape.

A month has one of 28 shapes: the weekday of its first day (0 is Sunday) times its length (28 to
31). A year's months repeat their shapes every 400 years. Days are counted from 1970-01-01.
"""

from __future__ import annotations

import calendar
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

from ._times import below, lowest

if TYPE_CHECKING:
    from collections.abc import Callable

EPOCH_DAY = date(1970, 1, 1).toordinal()
# 29 February falls on one given weekday every 28 years, and every 40 around 2100.
HORIZON_YEARS = 41
LAST_YEAR = 9999
ALL_MONTHS = below(-1, 13) & ~1


def _shapes_of_all_months() -> bytes:
    """Return the shape of month m of year y, at index y % 400 * 12 + m - 1."""
    weekday, shapes = 6, bytearray()  # 1 January of year 400, like that of 2000, is a Saturday
    for year in range(400, 800):
        for month in range(1, 13):
            length = _length(year, month)
            shapes.append(weekday * 4 + length - 28)
            weekday = (weekday + length) % 7
    return bytes(shapes)


def _length(year: int, month: int) -> int:
    return 29 if month == 2 and calendar.isleap(year) else calendar.mdays[month]


SHAPES = _shapes_of_all_months()


def length_of(shape: int) -> int:
    """Return how many days a month of this shape has."""
    return 28 + shape % 4


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
        by_length = {
            length: sum(
                1 << month
                for month in range(1, 13)
                if length in ((28, 29) if month == 2 else (calendar.mdays[month],))
            )
            for length in range(28, 32)
        }
        shapes = tuple(
            days_of(shape) if months & by_length[length_of(shape)] else 0 for shape in range(28)
        )
        occurring = 0
        for shape, days in enumerate(shapes):
            occurring |= by_length[length_of(shape)] if days else 0
        whole = all(days == below(-2, length_of(shape) + 1) for shape, days in enumerate(shapes))
        return cls(months & occurring, shapes, whole and months == ALL_MONTHS)

    def ceil(self, day: int) -> int | None:
        """Return the first one that is not before `day`; None if there is none in 40 years."""
        if self.every:
            return day
        try:
            start = date.fromordinal(day + EPOCH_DAY)
        except (ValueError, OverflowError):
            return None
        year, month = start.year, start.month
        if self.months >> month & 1:
            bits = self.shapes[SHAPES[year % 400 * 12 + month - 1]] >> start.day
            if bits:
                return day + (bits & -bits).bit_length() - 1
        return self._first_after(year, month)

    def _first_after(self, year: int, month: int) -> int | None:
        end = min(year + HORIZON_YEARS, LAST_YEAR)
        while True:
            bits = self.months >> (month + 1)
            if bits:
                month += (bits & -bits).bit_length()
            elif year == end:
                return None
            else:
                year, month = year + 1, lowest(self.months)
            days = self.shapes[SHAPES[year % 400 * 12 + month - 1]]
            if days:
                return date(year, month, lowest(days)).toordinal() - EPOCH_DAY

    def floor(self, day: int) -> int | None:
        """Return the last one that is not after `day`; None if there is none in 40 years."""
        if self.every:
            return day
        try:
            start = date.fromordinal(day + EPOCH_DAY)
        except (ValueError, OverflowError):
            return None
        year, month = start.year, start.month
        if self.months >> month & 1:
            bits = below(self.shapes[SHAPES[year % 400 * 12 + month - 1]], start.day + 1)
            if bits:
                return day - start.day + bits.bit_length() - 1
        return self._last_before(year, month)

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
            days = self.shapes[SHAPES[year % 400 * 12 + month - 1]]
            if days:
                return date(year, month, days.bit_length() - 1).toordinal() - EPOCH_DAY

    def count(self, start: int, end: int) -> int:
        """Return how many there are with `start` <= day < `end`; a month costs one step."""
        if self.every or start >= end:
            return max(0, end - start)
        first, last = (date.fromordinal(day + EPOCH_DAY) for day in (start, end - 1))
        low, high = (day.year * 12 + day.month - 1 for day in (first, last))
        total = sum(self._of_month(month).bit_count() for month in range(low, high + 1))
        total -= below(self._of_month(low), first.day).bit_count()
        return total - (self._of_month(high) >> (last.day + 1)).bit_count()

    def _of_month(self, month: int) -> int:
        if not self.months >> (month % 12 + 1) & 1:
            return 0
        return self.shapes[SHAPES[month % 4800]]
