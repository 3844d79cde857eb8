"""The times of a day a schedule names, as bit masks of hours, minutes and seconds.

Bit n of a mask says whether n matches. `ceil` and `floor` take and return seconds of the day.
"""

from __future__ import annotations

from dataclasses import dataclass


def lowest(bits: int) -> int:
    """Return the number of the lowest bit that is set; `bits` is not 0."""
    return (bits & -bits).bit_length() - 1


def below(bits: int, limit: int) -> int:
    """Return only those of the bits whose number is less than `limit`."""
    return bits & ((1 << limit) - 1)


@dataclass(frozen=True, slots=True)
class Times:
    """Times of day; no mask is empty."""

    hours: int
    minutes: int
    seconds: int

    @property
    def first(self) -> int:
        """The first one of a day."""
        return lowest(self.hours) * 3600 + lowest(self.minutes) * 60 + lowest(self.seconds)

    @property
    def last(self) -> int:
        """The last one of a day."""
        hour, minute = self.hours.bit_length() - 1, self.minutes.bit_length() - 1
        return hour * 3600 + minute * 60 + self.seconds.bit_length() - 1

    def ceil(self, time: int) -> int | None:
        """Return the first one that is not before `time`, or None if the day has no more."""
        hour, rest = divmod(time, 3600)
        if self.hours >> hour & 1:
            minute, second = divmod(rest, 60)
            if self.minutes >> minute & 1 and (bits := self.seconds >> second):
                return time + (bits & -bits).bit_length() - 1
            if bits := self.minutes >> (minute + 1):
                minute += (bits & -bits).bit_length()
                return hour * 3600 + minute * 60 + lowest(self.seconds)
        if bits := self.hours >> (hour + 1):
            hour += (bits & -bits).bit_length()
            return hour * 3600 + lowest(self.minutes) * 60 + lowest(self.seconds)
        return None

    def floor(self, time: int) -> int | None:
        """Return the last one that is not after `time`, or None if the day has none yet."""
        hour, rest = divmod(time, 3600)
        if self.hours >> hour & 1:
            minute, second = divmod(rest, 60)
            if self.minutes >> minute & 1 and (bits := below(self.seconds, second + 1)):
                return time - second + bits.bit_length() - 1
            if bits := below(self.minutes, minute):
                minute = bits.bit_length() - 1
                return hour * 3600 + minute * 60 + self.seconds.bit_length() - 1
        if bits := below(self.hours, hour):
            return (bits.bit_length() - 1) * 3600 + self.last % 3600
        return None

    def rank(self, time: int) -> int:
        """Return how many of a day's are before `time`, which may be the end of the day."""
        hour, rest = divmod(time, 3600)
        minute, second = divmod(rest, 60)
        per_minute = self.seconds.bit_count()
        count = below(self.hours, hour).bit_count() * self.minutes.bit_count() * per_minute
        if self.hours >> hour & 1:
            count += below(self.minutes, minute).bit_count() * per_minute
            if self.minutes >> minute & 1:
                count += below(self.seconds, second).bit_count()
        return count
