"""Intervals: a tick every so many seconds, counted from an anchor."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from ..errors import ScheduleError
from ._instants import EPOCH, SECOND, as_datetime, at_or_before, strictly_before
from ._zones import check_zone

if TYPE_CHECKING:
    from collections.abc import Iterator

_UNITS = (("hour", 3600), ("minute", 60), ("second", 1))


def every(
    *, hours: float = 0, minutes: float = 0, seconds: float = 0, anchor: datetime | None = None
) -> Interval:
    """Return a schedule with a tick at `anchor` and every so often before and after it.

    The anchor is the Unix epoch unless given, so that restarts and nodes agree. The interval is
    a whole number of seconds, at least one; it is real time, whatever clocks on walls do.
    Raises ScheduleError.
    """
    given = f"every(hours={hours!r:.20}, minutes={minutes!r:.20}, seconds={seconds!r:.20})"
    try:
        interval = timedelta(hours=hours, minutes=minutes, seconds=seconds)
    except (TypeError, ValueError, OverflowError):
        raise ScheduleError(f"{given}: numbers are needed, e.g. every(minutes=5)") from None
    if interval < SECOND or interval % SECOND:
        raise ScheduleError(f"{given}: at least one second and whole seconds are needed")
    return Interval(interval // SECOND, _anchor(anchor))


def _anchor(anchor: object) -> datetime | None:
    if anchor is None:
        return None
    if not isinstance(anchor, datetime) or anchor.utcoffset() is None:
        raise ScheduleError(
            f"anchor {anchor!r:.80}: an aware datetime is needed, "
            "e.g. datetime(2026, 1, 1, tzinfo=timezone.utc)"
        )
    if anchor.microsecond:
        raise ScheduleError(f"anchor {anchor!r:.80}: whole seconds are needed; drop the rest")
    try:
        return anchor.astimezone(UTC)
    except OverflowError:
        raise ScheduleError(f"anchor {anchor!r:.80}: out of range; take a nearer one") from None


def _shown(anchor: datetime, separator: str = "T") -> str:
    return anchor.replace(tzinfo=None).isoformat(separator)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Interval:
    """A tick every `seconds`, one of them at `anchor` (aware UTC; None is the epoch)."""

    seconds: int
    anchor: datetime | None = None

    @property
    def text(self) -> str:
        """As the `every:` syntax reads it."""
        start = f" from {_shown(self.anchor)}Z" if self.anchor else ""
        unit, number = self._measure
        return f"every: {number}{unit[0]}{start}"

    @property
    def timezone(self) -> None:
        """None: an interval is the same in every zone."""

    @property
    def _measure(self) -> tuple[str, int]:
        """The longest unit that fits, and how many of it."""
        unit, size = next(unit for unit in _UNITS if self.seconds % unit[1] == 0)
        return unit, self.seconds // size

    @property
    def _phase(self) -> int:
        return at_or_before(self.anchor or EPOCH) % self.seconds

    def in_timezone(self, timezone: str) -> Interval:
        """Return this: an interval is the same in every zone."""
        check_zone(timezone)
        return self

    def next(self, after: datetime) -> datetime | None:
        """Return the first tick strictly after `after`."""
        instant = at_or_before(after)
        return as_datetime(instant + self.seconds - (instant - self._phase) % self.seconds)

    def previous(self, before: datetime) -> datetime | None:
        """Return the last tick strictly before `before`."""
        instant = strictly_before(before)
        return as_datetime(instant - (instant - self._phase) % self.seconds)

    def between(self, start: datetime, end: datetime) -> Iterator[datetime]:
        """Yield the ticks with `start` < tick <= `end`."""
        tick = self.next(start)
        while tick is not None and tick <= end:
            yield tick
            tick = self.next(tick)

    def count(self, start: datetime, end: datetime) -> int:
        """Return how many ticks have `start` < tick <= `end`."""
        first, last = at_or_before(start) - self._phase, at_or_before(end) - self._phase
        return max(0, last // self.seconds - first // self.seconds)

    def describe(self) -> str:
        """Return e.g. `every 5 minutes`."""
        unit, number = self._measure
        often = f"every {unit}" if number == 1 else f"every {number} {unit}s"
        return f"{often}, counted from {_shown(self.anchor, ' ')} UTC" if self.anchor else often

    def warnings(self, now: datetime | None = None) -> tuple[str, ...]:  # noqa: ARG002
        """Return what a reader might not expect."""
        return ("fires every second",) if self.seconds == 1 else ()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Interval):
            return NotImplemented
        return (self.seconds, self._phase) == (other.seconds, other._phase)

    def __hash__(self) -> int:
        return hash((self.seconds, self._phase))

    def __repr__(self) -> str:
        anchor = f", anchor={self.anchor!r}" if self.anchor else ""
        return f"every(seconds={self.seconds}{anchor})"
