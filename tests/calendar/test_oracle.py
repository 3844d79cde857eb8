"""croniter as oracle in UTC; a walk over all days to 2104 for what croniter reads otherwise."""

from __future__ import annotations

import bisect
import calendar
import functools
import itertools
import random
from datetime import UTC, date, datetime, timedelta

import pytest
from croniter import CroniterBadDateError, croniter

from systemprompt_jobs import cron

MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")


def number(rng, low, high, names=()):
    value = rng.randint(low, high)
    return (
        names[value - low] if names and value - low < len(names) and rng.random() < 0.3 else value
    )


def item(rng, low, high, names=()):
    first, second = sorted(rng.sample(range(low, high + 1), 2))
    return rng.choice(
        [
            f"{number(rng, low, high, names)}",
            f"{number(rng, low, high, names)}",
            f"{first}-{second}",
            f"{first}-{second}/{rng.randint(1, high)}",
            f"{rng.randint(low, high - 1)}/{rng.randint(1, high)}",
            f"*/{rng.randint(2, high)}",
        ]
    )


def field(rng, low, high, names=(), special=()):
    kind = rng.random()
    if kind < 0.35:
        return "*"
    if special and kind < 0.5:
        return rng.choice(special)
    return ",".join(item(rng, low, high, names) for _ in range(rng.choice([1, 1, 1, 2, 3])))


def expression(rng):
    nth = [f"{rng.choice(WEEKDAYS)}#{rng.randint(1, 5)}", f"L{rng.randint(0, 7)}", "1#2,5#4", "?"]
    day = field(rng, 1, 31, special=("L", f"{rng.randint(1, 31)}W", "1,L", "20-L", "?"))
    weekday = field(rng, 0, 6, WEEKDAYS, special=nth)
    if ("W" in day or "#" in weekday or "L" in weekday) and rng.random() < 0.9:
        day, weekday = (day, "*") if rng.random() < 0.5 else ("*", weekday)
    return " ".join(
        [
            rng.choice(["0", "0", field(rng, 0, 59)]),
            field(rng, 0, 59),
            field(rng, 0, 23),
            day,
            rng.choice(["*", field(rng, 1, 12, MONTHS)]),
            weekday,
        ]
    )


def comparable(text):
    """Return False for texts that croniter reads otherwise than the specification.

    It takes `#` and `W` together with another day field as AND, and a day field that names
    every day for `*` if the other holds a `*`.
    """
    day, weekday = (value.upper() for value in (text.split()[3], text.split()[5]))
    if day in {"*", "?"} or weekday in {"*", "?"}:
        return True
    return not ({"#", "W"} & set(day + weekday) or "L" in weekday or "*" in day + weekday)


@pytest.mark.parametrize("part", range(4))
def test_croniter_agrees_in_utc(part):
    """Random texts have the same next and previous ticks."""
    rng, compared = random.Random(f"croniter {part}"), 0
    while compared < 750:
        text = expression(rng)
        if not comparable(text):
            continue
        compared += 1
        moment = datetime(rng.randint(1990, 2090), 1, 1, tzinfo=UTC)
        moment += timedelta(seconds=rng.randrange(365 * 86400), microseconds=rng.choice([0, 0, 1]))
        check(text, moment)


def check(text, moment):
    try:
        oracle = croniter(text, moment, second_at_beginning=True, max_years_between_matches=45)
        expected = [oracle.get_next(datetime) for _ in range(3)]
    except CroniterBadDateError:
        with pytest.raises(ValueError, match="never occurs"):
            cron(text)
        return
    schedule, found = cron(text), []
    for _ in range(3):
        found.append(schedule.next(found[-1] if found else moment))
    assert found == expected, (text, moment)
    assert schedule.count(moment, expected[-1]) == 3, (text, moment)
    oracle = croniter(text, moment, second_at_beginning=True, max_years_between_matches=45)
    assert schedule.previous(moment) == oracle.get_prev(datetime), (text, moment)


@functools.cache
def all_days():
    """Return the days from 2000 to 2104."""
    first, end = date(2000, 1, 1).toordinal(), date(2105, 1, 1).toordinal()
    return [date.fromordinal(n) for n in range(first, end)]


def nth(weekday, n):
    """Return a predicate: the n-th such weekday of its month; Monday is 0."""
    return lambda each: each.weekday() == weekday and (each.day + 6) // 7 == n


def last(weekday):
    """Return a predicate: the last such weekday of its month; Monday is 0."""
    week = timedelta(days=7)
    return lambda each: each.weekday() == weekday and (each + week).month != each.month


def nearest(day):
    """Return a predicate: the day from Monday to Friday nearest to `day`, in its month."""

    def matches(each):
        length = calendar.monthrange(each.year, each.month)[1]
        target = each.replace(day=min(day, length))
        near = [target + timedelta(days=n) for n in (0, -1, 1, -2, 2)]
        return each == next(d for d in near if d.month == each.month and d.weekday() < 5)

    return matches


def never(_):
    return False


def always(_):
    return True


def last_day(each):
    return (each + timedelta(days=1)).day == 1


@pytest.mark.parametrize(
    ("fields", "day", "weekday", "month"),
    [
        ("29 2 *", lambda d: d.day == 29, never, lambda d: d.month == 2),
        ("* 2 1#5", never, nth(0, 5), lambda d: d.month == 2),
        ("31 * *", lambda d: d.day == 31, never, always),
        ("13 * 5", lambda d: d.day == 13, lambda d: d.weekday() == 4, always),
        ("L * *", last_day, never, always),
        ("L 2 *", last_day, never, lambda d: d.month == 2),
        ("L * SUN", last_day, lambda d: d.weekday() == 6, always),
        ("15W * *", nearest(15), never, always),
        ("1W * *", nearest(1), never, always),
        ("31W * *", nearest(31), never, always),
        ("15W * MON", nearest(15), lambda d: d.weekday() == 0, always),
        ("* * L5", never, last(4), always),
        ("* * L7", never, last(6), always),
        ("1 * L5", lambda d: d.day == 1, last(4), always),
        ("10 * 2#2", lambda d: d.day == 10, nth(1, 2), always),
        ("* * MON-WED#1", never, lambda d: d.weekday() < 3 and d.day <= 7, always),
        ("*/2 * MON", lambda d: d.day % 2 == 1, lambda d: d.weekday() == 0, always),
        ("1-31 * */2", always, never, always),
        ("25-3 1-3 *", lambda d: d.day >= 25 or d.day <= 3, never, lambda d: d.month < 4),
        (
            "? NOV-FEB FRI-MON",
            never,
            lambda d: d.weekday() in {4, 5, 6, 0},
            lambda d: d.month in {11, 12, 1, 2},
        ),
        ("* 10-3/2 *", always, never, lambda d: d.month in {10, 12, 2}),
        ("* * 5-2/2", never, lambda d: d.weekday() in {4, 6, 1}, always),
        ("* * 1-7/3", never, lambda d: d.weekday() in {0, 3, 6}, always),
    ],
)
def test_days_are_right_from_2000_to_2104(fields, day, weekday, month):
    """Each matching day of 105 years, in both directions, and their number."""
    schedule = cron(f"0 0 12 {fields}")
    days = [each for each in all_days() if month(each) and (day(each) or weekday(each))]
    expected = [datetime(each.year, each.month, each.day, 12, tzinfo=UTC) for each in days]
    start, end = datetime(2000, 1, 1, tzinfo=UTC), datetime(2105, 1, 1, tzinfo=UTC)
    assert list(schedule.between(start, end)) == expected
    assert schedule.count(start, end) == len(expected)
    back, tick = [], schedule.previous(end)
    while tick and tick > start:
        back.append(tick)
        tick = schedule.previous(tick)
    assert back[::-1] == expected
    rng = random.Random(fields)
    for _ in range(50):
        moment = start + timedelta(seconds=rng.randrange(105 * 365 * 86400))
        assert schedule.count(start, moment) == bisect.bisect_right(expected, moment)


def test_the_longest_wait_is_found():
    """A fifth Monday in February comes back after 40 years where 2100 has no leap day."""
    schedule = cron("0 0 0 * 2 MON#5")
    waits, tick = [], schedule.next(datetime(2000, 1, 1, tzinfo=UTC))
    while tick.year < 2500:
        following = schedule.next(tick)
        waits.append(following.year - tick.year)
        assert schedule.previous(following) == tick
        tick = following
    assert max(waits) == 40
    assert min(waits) == 12


def sum_of_days(schedule, start):
    """Count day by day."""
    days = [start + timedelta(days=n) for n in range(71)]
    return sum(schedule.count(day, after) for day, after in itertools.pairwise(days))


def test_beyond_the_calendar_there_is_no_tick():
    """Where years end, so do schedules."""
    for text in ("* * * * * *", "0 0 0 1 * *", "0 30 2 29 2 *"):
        for zone in ("UTC", "Pacific/Kiritimati", "America/New_York"):
            schedule = cron(text, zone)
            assert schedule.next(datetime.max.replace(tzinfo=UTC)) is None
            assert schedule.previous(datetime.min.replace(tzinfo=UTC)) is None
            first = datetime.min.replace(tzinfo=UTC)
            last = datetime.max.replace(tzinfo=UTC)
            for start in (first, last - timedelta(days=70)):
                end = start + timedelta(days=70)
                assert schedule.count(start, end) == sum_of_days(schedule, start)
