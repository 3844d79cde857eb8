"""What a reader of a cron schedule might not expect of it."""

# ruff: noqa: PLR2004 - 60 seconds, 24 hours, 28 days
from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from . import _zones
from ._instants import DAY, EPOCH, at_or_before
from ._text import FIELDS, HOUR, MINUTE, SECOND, read

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ._cron import Cron
    from ._text import Field, Fields

_YEAR = 366 * DAY


def warnings(schedule: Cron, now: datetime | None) -> tuple[str, ...]:
    """Return one sentence for each; `now` is the present unless given."""
    fields = read(schedule.text)
    start = at_or_before(now or datetime.now(UTC))
    return (*_seconds(fields), *_steps(fields), *_days(fields), *clock_changes(schedule, start))


def _seconds(fields: Fields) -> Iterator[str]:
    if len(fields.seconds) == 60:
        everything = len(fields.minutes) == 60 and len(fields.hours) == 24
        yield "fires every second" + (
            "" if everything else " of the minutes it names: the first field is the second"
        )


def _steps(fields: Fields) -> Iterator[str]:
    """Yield a warning for each step that does not divide its field."""
    for field, text in zip(FIELDS, fields.texts, strict=True):
        step = re.fullmatch(r"\*/([0-9]+)", text)
        if step and field in {SECOND, MINUTE, HOUR} and (field.high + 1) % int(step[1]):
            yield _uneven(field, text, int(step[1]))


def _uneven(field: Field, text: str, step: int) -> str:
    last = field.high // step * step
    if not last:
        return f"{text} in the {field.name} field matches only 0"
    return (
        f"{text} in the {field.name} field starts again at 0 after {last}, "
        f"so {field.high + 1 - last} is the last distance"
    )


def _days(fields: Fields) -> Iterator[str]:
    if fields.day_restricted and fields.weekday_restricted:
        yield (
            "day of month and day of week are OR-ed: "
            f"it fires on days that match {fields.texts[3]!r} or {fields.texts[5]!r}"
        )
    elif fields.days and not fields.last_day and min(fields.days) > 28:
        yield f"months without a day {min(fields.days)} are left out; L is the last day"


def clock_changes(schedule: Cron, start: int) -> Iterator[str]:
    """Yield a warning for each change of the clocks within a year that the schedule falls into.

    `start` is in seconds since the epoch.
    """
    if schedule.tables.times.hours.bit_count() == 24:
        return
    instant = start
    while instant < start + _YEAR:
        stretch = _zones.stretch(schedule.zone, instant)
        shift = stretch.offset - stretch.before
        local = stretch.start + max(stretch.offset, stretch.before)
        if stretch.start >= start and shift and schedule.tables.count(local - abs(shift), local):
            yield _shift(schedule, stretch)
        instant = stretch.end


def _shift(schedule: Cron, stretch: _zones.Stretch) -> str:
    start, _, offset, was = stretch
    day = f"{EPOCH + timedelta(0, start + was):%Y-%m-%d} in {schedule.zone}"
    kept = schedule.keeps_times_in(stretch)
    if offset > was:
        after = f"{EPOCH + timedelta(0, start + offset):%H:%M}"
        result = f"runs once, at {after}" if kept else "does not run for it"
        return f"falls in the hour that is skipped in spring ({day}): {result}"
    result = "runs the first time only" if kept else "runs both times"
    return f"falls in the hour that comes twice in autumn ({day}): {result}"
