"""Laws that hold for every schedule in every zone, whatever moment is asked about."""

from __future__ import annotations

import datetime as datetime_module  # noqa: ICN001 - `datetime` is the class here
import itertools
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from systemprompt_jobs import cron, every

pytestmark = pytest.mark.filterwarnings("ignore::hypothesis.errors.HypothesisWarning")
law = settings(
    max_examples=150, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)


def numbers(low, high):
    values = st.lists(st.integers(low, high), min_size=1, max_size=4)
    return st.one_of(
        st.just("*"),
        st.integers(1, high).map("*/{}".format),
        values.map(lambda numbers: ",".join(map(str, numbers))),
        st.tuples(st.integers(low, high), st.integers(low, high)).map(
            lambda ends: "{}-{}".format(*ends)
        ),
    )


TEXTS = st.builds(
    "{} {} {} {} {} {}".format,
    numbers(0, 59),
    numbers(0, 59),
    numbers(0, 23),
    st.one_of(numbers(1, 28), st.sampled_from(["L", "15W", "29"])),
    numbers(1, 12),
    st.one_of(numbers(0, 6), st.sampled_from(["L5", "MON#2"])),
)
ZONES = st.sampled_from(
    [
        "UTC",
        "Europe/Berlin",
        "America/St_Johns",
        "Australia/Lord_Howe",
        "Antarctica/Troll",
        "Pacific/Apia",
    ]
)
SCHEDULES = st.one_of(
    st.builds(cron, TEXTS, ZONES),
    st.builds(
        every,
        seconds=st.integers(1, 10**6),
        anchor=st.none()
        | st.datetimes(timezones=st.just(UTC)).map(lambda t: t.replace(microsecond=0)),
    ),
)
MOMENTS = st.datetimes(datetime(1950, 1, 1), datetime(2090, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001


@law
@given(SCHEDULES, MOMENTS)
def test_ticks_strictly_increase(schedule, moment):
    """`next` is after the moment, on a whole second, in UTC; no tick lies between."""
    tick = schedule.next(moment)
    assert tick > moment
    assert tick.tzinfo is UTC
    assert tick.microsecond == 0
    assert schedule.next(tick) > tick
    assert schedule.next(moment + (tick - moment) / 2) == tick
    assert schedule.next(tick - timedelta(microseconds=1)) == tick


@law
@given(SCHEDULES, MOMENTS)
def test_next_undoes_previous(schedule, moment):
    """`next(previous(x)) == x` and `previous(next(x)) == x` for every tick x."""
    tick = schedule.next(moment)
    assert schedule.next(schedule.previous(tick)) == tick
    assert schedule.previous(schedule.next(tick)) == tick
    earlier = schedule.previous(moment)
    assert earlier < moment
    assert schedule.next(earlier) >= moment


@law
@given(SCHEDULES, MOMENTS, st.integers(0, 12))
def test_between_and_count_equal_repeated_next(schedule, moment, length):
    """`between` walks as `next` does, its end belongs to it, and `count` counts it."""
    ticks = [tick := schedule.next(moment)]
    ticks += [tick := schedule.next(tick) for _ in range(length)]
    assert list(schedule.between(moment, ticks[-1])) == ticks
    assert schedule.count(moment, ticks[-1]) == len(ticks)
    assert schedule.count(moment, ticks[-1] - timedelta(microseconds=1)) == length
    assert schedule.count(ticks[-1], moment) == 0


@law
@given(st.builds(cron, TEXTS, ZONES), MOMENTS, st.integers(0, 10**9), st.integers(0, 10**9))
def test_counts_add_up(schedule, moment, first, second):
    """Counting to a moment in between and on gives the whole."""
    middle = moment + timedelta(seconds=first % (400 * 86400))
    end = middle + timedelta(seconds=second % (400 * 86400))
    whole = schedule.count(moment, end)
    assert whole == schedule.count(moment, middle) + schedule.count(middle, end)


@law
@given(SCHEDULES, MOMENTS, ZONES)
def test_the_zone_of_the_question_does_not_matter(schedule, moment, zone):
    """Moments are instants; the zone they are written in changes nothing."""
    from zoneinfo import ZoneInfo

    assert schedule.next(moment.astimezone(ZoneInfo(zone))) == schedule.next(moment)


@law
@given(SCHEDULES, ZONES)
def test_texts_read_back(schedule, zone):
    """The text means the same schedule again, and so does the repr."""
    assert (
        eval(repr(schedule), {"cron": cron, "every": every, "datetime": datetime_module})
        == schedule
    )
    if schedule.timezone:
        assert cron(schedule.text, schedule.timezone) == schedule
        assert schedule.in_timezone(zone).timezone == zone


def test_between_is_lazy():
    """A century of seconds costs nothing until it is walked."""
    ticks = cron("* * * * * *").between(
        datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)
    )
    assert len(list(itertools.islice(ticks, 3))) == 3
