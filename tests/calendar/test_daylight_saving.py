"""Debian cron's rule at every transition, against a simulation that walks minute by minute."""

from __future__ import annotations

import bisect
import functools
import itertools
import random
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from zoneinfo import ZoneInfo

import pytest

from systemprompt_jobs import cron
from systemprompt_jobs._calendar import _zones

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
LARGEST = 3 * HOUR
AROUND = 27 * HOUR

ZONES = (files("tzdata") / "zones").read_text().split()
NOTABLE = {
    "Europe/Berlin": 2026,
    "Europe/Dublin": 2026,  # winter time is the negative one
    "America/New_York": 2026,
    "Australia/Lord_Howe": 2026,  # 30 minutes
    "Africa/Casablanca": 2026,  # back and forth around Ramadan
    "Antarctica/Troll": 2026,  # two hours
    "Asia/Beirut": 2026,  # a gap at midnight
    "Asia/Gaza": 2026,
    "America/Scoresbysund": 2024,  # moved its zone and its rule in one night
    "Asia/Tehran": 2021,  # a gap at midnight
    "America/Sao_Paulo": 2018,  # a gap at midnight
    "Pacific/Apia": 2011,  # 30 December never was
    "Pacific/Kwajalein": 1993,
    "Europe/Lisbon": 1992,
    "Asia/Pyongyang": 2018,
    "America/Caracas": 2007,
    "Asia/Kathmandu": 1985,  # 15 minutes
}


@functools.cache
def transitions(zone: str, first: int, last: int) -> tuple[datetime, ...]:
    """Return the first instants with another offset, in years `first`..`last`."""
    info, found = ZoneInfo(zone), []
    probe, end = datetime(first, 1, 1, tzinfo=UTC), datetime(last + 1, 1, 1, tzinfo=UTC)

    def offset(moment):
        return moment.astimezone(info).utcoffset()

    while probe < end:
        later = probe + timedelta(hours=12)
        if offset(probe) != offset(later):
            low, high = probe, later
            while high - low > timedelta(seconds=1):
                middle = low + ((high - low) // 2 // timedelta(seconds=1)) * timedelta(seconds=1)
                low, high = (middle, high) if offset(middle) == offset(low) else (low, middle)
            found.append(high)
        probe = later
    return tuple(found)


@functools.lru_cache(maxsize=64)
def wall_clock(zone: str, start: datetime, end: datetime) -> list[tuple[datetime, datetime]]:
    """Return each minute of real time with what the clock on the wall shows."""
    info, minutes = ZoneInfo(zone), (end - start) // MINUTE
    instants = (start + k * MINUTE for k in range(1, minutes + 1))
    return [(instant, instant.astimezone(info).replace(tzinfo=None)) for instant in instants]


def simulate(zone, start, end, minutes, hours, *, wildcard) -> list[datetime]:
    """Return the ticks with `start` < tick <= `end`, by watching the clock as Debian's cron does."""
    ticks, shown, done = [], None, None

    def matches(wall):
        return wall.minute in minutes and wall.hour in hours

    for instant, wall in wall_clock(zone, start, end):
        jump = timedelta() if shown is None else wall - shown - MINUTE
        shown = wall
        if wildcard or done is None or abs(jump) > LARGEST:
            due, done = matches(wall), wall + MINUTE
        else:
            due = any(matches(done + k * MINUTE) for k in range((wall - done) // MINUTE + 1))
            done = max(done, wall + MINUTE)
        if due:
            ticks.append(instant)
    return ticks


def text_of(rng: random.Random) -> tuple[str, set[int], set[int], bool]:
    """Return a text of random minutes and hours, both as sets, and whether it is a wildcard."""

    def field(size):
        kind = rng.choice(["*", "*/n", "list", "list", "one", "one"])
        if kind == "*":
            return "*", set(range(size))
        if kind == "*/n":
            step = rng.randint(2, size // 2)
            return f"*/{step}", set(range(0, size, step))
        low_hours = range(size) if size > 24 or rng.random() < 0.4 else range(5)
        values = set(rng.choices(low_hours, k=1 if kind == "one" else rng.randint(2, 5)))
        return ",".join(map(str, sorted(values))), values

    (minute, minutes), (hour, hours) = field(60), field(24)
    return f"0 {minute} {hour} * * *", minutes, hours, "*" in minute + hour


def check(zone: str, change: datetime, seed: str, texts: int) -> None:
    """Compare `texts` random texts around one transition, in every way of asking."""
    rng = random.Random(seed)
    change -= timedelta(seconds=change.second)
    start, end = change - AROUND, change + AROUND
    for _ in range(texts):
        text, minutes, hours, wildcard = text_of(rng)
        schedule = cron(text, zone)
        expected = simulate(zone, start, end, minutes, hours, wildcard=wildcard)
        about = f"{text!r} in {zone} around {change}"
        assert list(schedule.between(start, end)) == expected, about
        assert schedule.count(start, end) == len(expected), about
        for _ in range(20):
            moment = change + timedelta(seconds=rng.randint(-4 * 3600, 4 * 3600))
            check_asking(schedule, moment, expected, f"{about}, asked at {moment}")


def check_asking(schedule, moment, expected, about) -> None:
    after, before = bisect.bisect_right(expected, moment), bisect.bisect_left(expected, moment)
    if after < len(expected):
        assert schedule.next(moment) == expected[after], about
        assert schedule.count(moment, expected[-1]) == len(expected) - after, about
    if before:
        assert schedule.previous(moment) == expected[before - 1], about


@pytest.mark.parametrize("zone", NOTABLE)
def test_notable_transitions_are_right(zone):
    """Each known oddity gives the same ticks as the simulation."""
    changes = transitions(zone, NOTABLE[zone], NOTABLE[zone])
    assert changes
    for change in changes:
        check(zone, change, f"{zone} {change}", texts=20)


@pytest.mark.parametrize("part", range(4))
def test_a_sample_of_all_zones_is_right(part):
    """Random zones and transitions of four years give the ticks of the simulation."""
    rng = random.Random(f"sample {part}")
    for zone in rng.sample(ZONES, 30):
        changes = transitions(zone, 2020 + 4 * part, 2020 + 4 * part + 3)
        for change in rng.sample(changes, min(2, len(changes))):
            check(zone, change, f"{zone} {change}", texts=6)


def test_stretches_are_the_same_however_they_are_cut(monkeypatch):
    """An overlap that reaches from one cached window into the next is still one overlap."""
    monkeypatch.setattr(_zones, "_WINDOW", 11)
    _zones._window.cache_clear()
    try:
        for zone in ("Europe/Berlin", "Antarctica/Troll", "Pacific/Kwajalein"):
            for change in transitions(zone, NOTABLE[zone], NOTABLE[zone]):
                check(zone, change, f"cut {zone} {change}", texts=8)
    finally:
        _zones._window.cache_clear()


def test_no_zone_has_a_stretch_shorter_than_the_probes():
    """Transitions are found by probing, so two must never be closer than two probes."""
    probe = timedelta(seconds=_zones._PROBE)
    for zone in ("Africa/Freetown", "Asia/Gaza", "America/Noronha"):
        changes = transitions(zone, 1935, 2090)
        assert min(b - a for a, b in itertools.pairwise(changes)) > probe


@pytest.mark.exhaustive
@pytest.mark.parametrize("zone", ZONES)
def test_no_zone_ever_had_a_stretch_shorter_than_the_probes(zone):
    """The same for all zones, 1880 to 2100."""
    changes = transitions(zone, 1880, 2100)
    probe = timedelta(seconds=_zones._PROBE)
    assert all(b - a > probe for a, b in itertools.pairwise(changes))


@pytest.mark.exhaustive
@pytest.mark.parametrize("zone", ZONES)
def test_every_transition_of_every_zone_is_right(zone):
    """All IANA zones, all transitions 2020-2035, fixed and wildcard jobs."""
    for change in transitions(zone, 2020, 2035):
        check(zone, change, f"all {zone} {change}", texts=12)
