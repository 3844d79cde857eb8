"""The parts around the ticks: counting, describing, warning, sharing, splay, other syntaxes."""

from __future__ import annotations

import pickle
import subprocess
import sys
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pluggy
import pytest

from systemprompt_jobs import cron, errors, every, hookimpl, hookspecs
from systemprompt_jobs._calendar import parse, splay
from systemprompt_jobs.builtin import intervals
from systemprompt_jobs.interfaces import Schedule
from tests.support import steps

NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)
YEAR = timedelta(days=365)


@pytest.mark.parametrize("schedule", [cron("@daily", "Europe/Berlin"), every(minutes=5)])
def test_both_kinds_keep_the_protocol(schedule):
    """Code that takes a Schedule takes either."""
    assert isinstance(schedule, Schedule)
    assert pickle.loads(pickle.dumps(schedule)) == schedule
    with pytest.raises((AttributeError, TypeError)):
        schedule.text = "0 0 0 * * *"


@pytest.mark.parametrize("schedule", [cron("@daily"), every(minutes=5)])
def test_naive_datetimes_are_refused(schedule):
    """A datetime without a zone is no instant."""
    naive = datetime(2026, 1, 1)  # noqa: DTZ001
    for ask in (schedule.next, schedule.previous, lambda t: schedule.count(t, t)):
        with pytest.raises(TypeError, match="aware"):
            ask(naive)


def test_a_cron_without_zone_waits_for_the_schedulers():
    """It is UTC until `in_timezone`, and then a schedule of its own."""
    schedule = cron("0 30 2 * * *")
    assert schedule.timezone is None
    assert schedule.next(NEW_YEAR) == NEW_YEAR + timedelta(hours=2, minutes=30)
    local = schedule.in_timezone("Asia/Kolkata")
    assert local == cron("0 30 2 * * *", timezone="Asia/Kolkata") != schedule
    assert local.next(NEW_YEAR) == NEW_YEAR + timedelta(hours=21)


def test_plain_text_is_cron():
    """`parse` never looks for a scheme."""
    assert parse("@daily", "UTC") == cron("@daily", "UTC")
    with pytest.raises(errors.ScheduleError, match="2 fields"):
        parse("every: 300s", "UTC")


def test_years_of_a_schedule_per_second_are_counted_without_walking():
    """Ten years of seconds, in a zone with daylight saving, in under two steps a day."""
    schedule = cron("* * * * * *", "Europe/Berlin")
    assert schedule.count(NEW_YEAR, NEW_YEAR + 10 * YEAR) == 10 * 365 * 86400
    assert steps(lambda: schedule.count(NEW_YEAR, NEW_YEAR + 10 * YEAR)) < 10_000
    newest = schedule.previous(NEW_YEAR + timedelta(microseconds=1))
    assert newest == NEW_YEAR


def test_a_gap_costs_no_more_than_another_hour():
    """In the worst gap, minutes or a whole day long, nothing walks."""
    for zone, moment in (
        ("Europe/Berlin", datetime(2026, 3, 29, 0, 59, 59, tzinfo=UTC)),
        ("Pacific/Apia", datetime(2011, 12, 30, 9, 59, 59, tzinfo=UTC)),
    ):
        for text in ("* * * * * *", "0 30 2 * * *", "0 0 12 30 12 *", "0 0 0 29 2 *"):
            schedule = cron(text, zone)
            assert steps(lambda schedule=schedule, moment=moment: schedule.next(moment)) < 1000


def test_a_job_costs_less_than_a_kilobyte():
    """Schedules of one text share their tables."""
    cron("0 */5 * * * *", "Europe/Berlin")
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        schedules = [cron("0 */5 * * * *", "Europe/Berlin") for _ in range(1000)]
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len({id(schedule.tables) for schedule in schedules}) == 1
    assert (after - before) / len(schedules) < 1024


def test_threads_share_a_schedule():
    """Four threads on one schedule, with nothing cached before, get what one gets."""
    schedule = cron("17 */7 1-5 * * MON-FRI", "America/New_York")
    moments = [NEW_YEAR + timedelta(hours=11 * n) for n in range(3000)]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: [schedule.next(moment) for moment in moments], range(4)))
    alone = [schedule.next(moment) for moment in moments]
    assert results == [alone] * 4


def test_importing_loads_no_parser():
    """The parser loads when a text is parsed, and nothing at all when the package is imported."""
    code = (
        "import sys, systemprompt_jobs; assert 'zoneinfo' not in sys.modules;"
        "from systemprompt_jobs import cron; assert 'croniter' not in sys.modules;"
        "cron('@daily'); assert 'croniter' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("text", "description"),
    [
        ("0 30 2 * * *", "every day at 02:30"),
        ("15 0 12 * * *", "every day at 12:00:15"),
        ("0 0 8,12,20 * * *", "every day at 08:00, 12:00 and 20:00"),
        ("* * * * * *", "every second"),
        ("*/10 * * * * *", "every 10 seconds"),
        ("30 * * * * *", "at second 30 of every minute"),
        ("5/20 * 3 * * *", "at seconds 5, 25 and 45 of every minute of hour 3"),
        ("0 * * * * *", "every minute"),
        ("0 */5 * * * *", "every 5 minutes"),
        ("0 */7 * * * *", "at minutes 0, 7, 14 … 56 of every hour"),
        ("0 5-5 * * * *", "at minute 5 of every hour"),
        ("15 */5 * * * *", "at second 15 of every 5th minute"),
        ("0 0 * * * *", "every hour"),
        ("0 0 */2 * * *", "every 2 hours"),
        ("0 5 */2 * * *", "at minute 5 of every 2nd hour"),
        ("0 */30 8-18 * * *", "every 30 minutes from 08:00 to 18:30"),
        ("0 0 8-18 * * 1-5", "every hour from 08:00 to 18:00, Monday to Friday"),
        ("* * 8-9 * * *", "every second from 08:00:00 to 09:59:59"),
        ("0 0 9 * * MON-FRI", "Monday to Friday at 09:00"),
        ("0 0 9 * * 5-7", "Friday to Sunday at 09:00"),
        ("0 0 9 * * 0,6", "every Saturday and Sunday at 09:00"),
        ("0 0 9 * * 0,1,2", "Sunday to Tuesday at 09:00"),
        ("0 0 9 * * 7", "every Sunday at 09:00"),
        ("0 0 9 * * 1,3,0", "every Monday, Wednesday and Sunday at 09:00"),
        ("0 0 9 * * 0-7", "every day at 09:00"),
        ("0 0 9 * * 1#2", "on the second Monday of the month at 09:00"),
        ("0 0 9 * * L5", "on the last Friday of the month at 09:00"),
        ("0 0 9 * 2 L5", "on the last Friday in February at 09:00"),
        ("0 0 0 1,L * *", "on the 1st and the last day of every month at 00:00"),
        ("0 0 0 15W * *", "on the weekday nearest to the 15th of every month at 00:00"),
        ("0 0 0 11,12,13 * *", "on the 11th to 13th of every month at 00:00"),
        ("0 0 0 22,23 * *", "on the 22nd and 23rd of every month at 00:00"),
        ("0 0 0 */2 * *", "on the 1st, 3rd, 5th … 31st of every month at 00:00"),
        ("0 0 0 1 1 *", "on the 1st of January at 00:00"),
        ("0 0 9 * JAN-MAR *", "every day in January to March at 09:00"),
        ("0 0 0 13 * 5", "on the 13th of every month and every Friday at 00:00"),
        ("0 0 0 1-31 * MON", "every day at 00:00"),
        ("@weekly", "every Sunday at 00:00"),
    ],
)
def test_a_cron_is_described_in_plain_english(text, description):
    """By what it means; the zone follows where it is known."""
    assert cron(text).describe() == description
    assert cron(text, "Europe/Berlin").describe() == f"{description}, Europe/Berlin"


@pytest.mark.parametrize(
    ("schedule", "description"),
    [
        (every(seconds=1), "every second"),
        (every(minutes=5), "every 5 minutes"),
        (every(hours=1), "every hour"),
        (every(seconds=90), "every 90 seconds"),
        (every(hours=2, anchor=NEW_YEAR), "every 2 hours, counted from 2026-01-01 00:00:00 UTC"),
    ],
)
def test_an_interval_is_described_in_plain_english(schedule, description):
    """In the largest unit that fits."""
    assert schedule.describe() == description


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("0 */5 * * * *", []),
        ("0 30 4 * * *", []),
        ("0 30 2-2 1 6 *", []),  # never on the night of a change
        ("* * * * * *", ["fires every second"]),
        ("* 0 8 * * *", ["the first field is the second"]),
        ("0 */7 * * * *", ["starts again at 0 after 56, so 4 is the last distance"]),
        ("0 */90 * * * *", ["matches only 0"]),
        ("0 0 8 13 * 5", ["day of month and day of week are OR-ed", "'13' or '5'"]),
        ("0 0 8 31 * *", ["months without a day 31 are left out"]),
        (
            "0 30 2 * * *",
            [
                "falls in the hour that is skipped in spring (2026-03-29 in Europe/Berlin)",
                "runs once, at 03:00",
                "falls in the hour that comes twice in autumn (2026-10-25 in Europe/Berlin)",
                "runs the first time only",
            ],
        ),
        ("0 */30 2 * * *", ["skipped in spring", "does not run for it", "runs both times"]),
    ],
)
def test_warnings_say_what_a_reader_may_not_expect(text, parts):
    """Nothing is said of what is plain."""
    said = cron(text, "Europe/Berlin").warnings(NEW_YEAR)
    for part in parts:
        assert part in "; ".join(said)
    assert bool(said) == bool(parts)


def test_an_interval_counts_from_its_anchor():
    """Ticks are at anchor + k·interval, before the anchor too; the epoch unless given."""
    schedule = every(hours=11, anchor=NEW_YEAR)
    assert schedule.next(NEW_YEAR) == NEW_YEAR + timedelta(hours=11)
    assert schedule.previous(NEW_YEAR) == NEW_YEAR - timedelta(hours=11)
    assert schedule.next(NEW_YEAR - timedelta(microseconds=1)) == NEW_YEAR
    assert every(minutes=5).next(NEW_YEAR - timedelta(seconds=1)) == NEW_YEAR
    assert schedule == every(hours=11, anchor=NEW_YEAR + timedelta(hours=110))
    assert schedule != every(hours=11)
    assert schedule.in_timezone("Asia/Tokyo") is schedule


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"seconds": -5},
        {"seconds": 0.5},
        {"minutes": float("nan")},
        {"hours": float("inf")},
        {"hours": 10**20},
        {"seconds": "5"},
        {"seconds": None},
        {"seconds": 5, "anchor": "2026-01-01"},
        {"seconds": 5, "anchor": datetime(2026, 1, 1)},  # noqa: DTZ001
        {"seconds": 5, "anchor": NEW_YEAR.replace(microsecond=1)},
    ],
)
def test_a_bad_interval_is_a_schedule_error(arguments):
    """With what was given and what is needed."""
    with pytest.raises(errors.ScheduleError, match="needed"):
        every(**arguments)


@pytest.mark.parametrize(
    ("text", "schedule"),
    [
        ("every: 300s", every(minutes=5)),
        ("every: 5 minutes", every(minutes=5)),
        ("every:1h 30m", every(minutes=90)),
        ("every: 1 day", every(hours=24)),
        ("every: 45 Sec", every(seconds=45)),
        ("every: 2h from 2026-01-01T00:00:00Z", every(hours=2, anchor=NEW_YEAR)),
        ("every: 2h from 2026-01-01T01:00:00+01:00", every(hours=2, anchor=NEW_YEAR)),
    ],
)
def test_intervals_have_a_text(text, schedule):
    """The built-in `every:` syntax reads them, and reads its own text back."""
    assert intervals.parse_schedule(text) == schedule
    assert intervals.parse_schedule(schedule.text) == schedule


@pytest.mark.parametrize(
    "text",
    [
        "every:",
        "every: 5",
        "every: 5 parsecs",
        "every: 5mm",
        "every: -5s",
        "every: 0s",
        "every: 5m, 3s",
        "every: 5m from noon",
        "every: 5m from 2026-01-01",
        "every: " + "1s " * 500,
        "every: " + "999999999d " * 3,
    ],
)
def test_a_bad_interval_text_is_a_schedule_error(text):
    """Whatever is wrong with it."""
    with pytest.raises(errors.ScheduleError):
        intervals.parse_schedule(text)


@dataclass(frozen=True)
class MonthEnd:
    """A third party's schedule: some working days before the end of a month, at noon."""

    inner: Schedule
    days: int

    @property
    def text(self):
        return f"month-end: -{self.days}"

    @property
    def timezone(self):
        return self.inner.timezone

    def in_timezone(self, timezone):
        return replace(self, inner=self.inner.in_timezone(timezone))

    def next(self, after):
        tick = self.inner.next(after + timedelta(days=self.days))
        return tick and tick - timedelta(days=self.days)

    def previous(self, before):
        tick = self.inner.previous(before + timedelta(days=self.days))
        return tick and tick - timedelta(days=self.days)

    def between(self, start, end):
        while (start := self.next(start)) and start <= end:
            yield start

    def count(self, start, end):
        shift = timedelta(days=self.days)
        return self.inner.count(start + shift, end + shift)

    def describe(self):
        return f"{self.days} days before {self.inner.describe()}"


class MonthEndPlugin:
    @hookimpl
    def parse_schedule(self, text, timezone):
        if not text.startswith("month-end:"):
            return None
        return MonthEnd(cron("0 0 12 L * *", timezone), int(text.partition("-")[2].split("-")[-1]))


def test_a_plugin_adds_a_syntax():
    """The `parse_schedule` hook gives the text to the plugin that knows its scheme."""
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    manager.register(intervals)
    manager.register(MonthEndPlugin())
    schedule = manager.hook.parse_schedule(text="month-end: -3", timezone="UTC")
    assert isinstance(schedule, Schedule)
    assert schedule.next(NEW_YEAR) == datetime(2026, 1, 28, 12, tzinfo=UTC)
    assert schedule.count(NEW_YEAR, NEW_YEAR + YEAR) == 12
    assert manager.hook.parse_schedule(text="every: 60s", timezone="UTC") == every(minutes=1)
    assert manager.hook.parse_schedule(text="solar: sunrise", timezone="UTC") is None


def test_splay_is_the_same_everywhere_and_below_its_limit():
    """A delay is known from job and tick alone, and jobs of one tick spread."""
    limit = timedelta(seconds=30)
    assert splay("core:prune", NEW_YEAR, limit) == timedelta(seconds=26.698196)
    delays = [splay(f"core:job{n}", NEW_YEAR, limit) for n in range(1000)]
    assert all(timedelta() <= delay < limit for delay in delays)
    assert 12 < sum(delays, timedelta()) / 1000 / timedelta(seconds=1) < 18
    assert len(set(delays)) > 990
    assert splay("core:prune", NEW_YEAR + limit, limit) != splay("core:prune", NEW_YEAR, limit)
    assert splay("core:prune", NEW_YEAR, timedelta()) == timedelta()
    assert splay("core:prune", NEW_YEAR, timedelta(microseconds=1)) == timedelta()
