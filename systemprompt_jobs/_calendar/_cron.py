"""Cron: the bit tables of a text, walked over the stretches of a time zone.

Within a stretch, local time is UTC plus one number, so a tick is a matching local time. At its
start, Debian's rule decides what becomes of the local times that a transition left out or
repeats: see `_resume`.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from . import _zones
from ._instants import DAY, as_datetime, at_or_before, strictly_before
from ._tables import Tables, tables
from ._text import read

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from ._zones import Stretch

# A larger change is no daylight saving but a correction of the clock: nothing is made up for it.
LARGEST_SHIFT = 3 * 3600


def cron(text: str, timezone: str | None = None) -> Cron:
    """Return the schedule of a cron text: six fields, seconds first, or an alias like `@daily`.

    `timezone` is an IANA name; None leaves it to the scheduler's (and is UTC until that is
    known). Raises ScheduleError.
    """
    if timezone is not None:
        _zones.check_zone(timezone)
    shared = tables(text)
    return _cron(" ".join(text.split()), timezone, shared)


@functools.lru_cache(maxsize=4096)
def _cron(text: str, timezone: str | None, shared: Tables) -> Cron:
    return Cron(text, timezone, shared)


def parse(text: str, timezone: str | None = None) -> Cron:
    """Return the schedule of a plain text, which is always cron. Raises ScheduleError."""
    return cron(text, timezone)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Cron:
    """A cron schedule in a zone. All arithmetic is in whole seconds since the epoch.

    Jobs of one schedule share it, and mostly ask for the same next tick one after the other.
    "Local" below is local time in seconds, as if the epoch had been at local midnight.
    """

    text: str
    timezone: str | None
    tables: Tables
    _answered: tuple[object, datetime | None] = field(default=(object(), None), init=False)

    @property
    def zone(self) -> str:
        """The IANA name of the zone it is evaluated in; UTC where none was said yet."""
        return self.timezone or "UTC"

    def in_timezone(self, timezone: str) -> Cron:
        """Return the same schedule evaluated in `timezone`."""
        return _cron(self.text, _zones.check_zone(timezone), self.tables)

    def next(self, after: datetime) -> datetime | None:
        """Return the first tick strictly after `after`; None if there is none in 40 years."""
        asked, tick = self._answered
        if asked != after:
            tick = as_datetime(self._first(at_or_before(after) + 1))
            object.__setattr__(self, "_answered", (after, tick))
        return tick

    def previous(self, before: datetime) -> datetime | None:
        """Return the last tick strictly before `before`; None if there is none in 40 years."""
        return as_datetime(self._last(strictly_before(before)))

    def between(self, start: datetime, end: datetime) -> Iterator[datetime]:
        """Yield the ticks with `start` < tick <= `end`."""
        stop = at_or_before(end)
        tick = self._first(at_or_before(start) + 1)
        while tick is not None and tick <= stop and (moment := as_datetime(tick)):
            yield moment
            tick = self._first(tick + 1)

    def count(self, start: datetime, end: datetime) -> int:
        """Return how many ticks have `start` < tick <= `end`; a month costs one step."""
        first, last, total = at_or_before(start) + 1, at_or_before(end), 0
        while first <= last:
            stretch = _zones.stretch(self.zone, first)
            stop = min(last, stretch.end - 1)
            total += self._count(stretch, first, stop)
            first = stop + 1
        return total

    def describe(self) -> str:
        """Return the schedule in plain English, e.g. `every day at 02:30, Europe/Berlin`."""
        from ._describe import describe

        zone = f", {self.timezone}" if self.timezone else ""
        return describe(read(self.text), every_day=self.tables.days.every) + zone

    def warnings(self, now: datetime | None = None) -> tuple[str, ...]:
        """Return what a reader might not expect, looking at the daylight saving of a year.

        The year starts at `now`, which is the present unless given.
        """
        from ._warn import warnings

        return warnings(self, now)

    def clock_changes(self, now: datetime) -> tuple[str, ...]:
        """Return what becomes of its ticks when the clocks change, in the year from `now` on."""
        from ._warn import clock_changes

        return tuple(clock_changes(self, at_or_before(now)))

    @property
    def fields(self) -> tuple[str, ...]:
        """The six fields as they are written, aliases such as `@daily` spelt out."""
        return read(self.text).texts

    def _resume(self, stretch: Stretch) -> int:
        """Return the local time from which matches count in this stretch.

        A job with fixed times goes on where the last stretch ended: what a gap swallowed is
        still to come, what an overlap repeats was already. Anything else starts afresh.
        """
        start, _, offset, was = stretch
        return start + (was if self.keeps_times_in(stretch) else offset)

    def keeps_times_in(self, stretch: Stretch) -> bool:
        """Whether the change at the start of the stretch is one that fixed times outlive."""
        return not self.tables.wildcard and abs(stretch.offset - stretch.before) <= LARGEST_SHIFT

    def _first(self, instant: int) -> int | None:
        """Return the first tick that is not before `instant`."""
        while True:
            stretch = start, end, offset, _ = _zones.stretch(self.zone, instant)
            local = self._resume(stretch)
            if instant > start:
                local = max(local, instant + offset)
            found = self.tables.ceil(local)
            if found is None:
                return None
            tick = max(found - offset, start)
            if tick < end:
                return tick
            # What an overlap repeats lies within two days; past that, skip what has no match.
            instant = end if end - instant < 2 * DAY else max(end, found - DAY)

    def _last(self, instant: int) -> int | None:
        """Return the last tick that is not after `instant`."""
        while True:
            stretch = start, _, offset, _ = _zones.stretch(self.zone, instant)
            found = self.tables.floor(instant + offset)
            if found is None:
                return None
            if found >= self._resume(stretch):
                return max(found - offset, start)
            instant = start - 1 if instant - start < 2 * DAY else min(start - 1, found + DAY)

    def _count(self, stretch: Stretch, first: int, last: int) -> int:
        """Return how many ticks are in `first`..`last`, both within the stretch."""
        start, _, offset, _ = stretch
        resume, late = self._resume(stretch), 0
        if first == start and resume < start + offset:
            # All that the gap swallowed is one tick, merged with one that is due then.
            late = min(1, self.tables.count(resume, start + offset + 1))
            resume = start + offset + 1
        return late + self.tables.count(max(resume, first + offset), last + offset + 1)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Cron):
            return NotImplemented
        return (self.tables, self.timezone) == (other.tables, other.timezone)

    def __hash__(self) -> int:
        return hash((self.tables, self.timezone))

    def __reduce__(self) -> tuple[object, ...]:
        return cron, (self.text, self.timezone)

    def __repr__(self) -> str:
        zone = f", timezone={self.timezone!r}" if self.timezone else ""
        return f"cron({self.text!r}{zone})"
