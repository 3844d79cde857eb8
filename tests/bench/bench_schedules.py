"""What a next tick costs, beside croniter and cronsim in the same run.

    python tests/bench/bench_schedules.py

Times are microseconds per call, the best of several rounds; ratios are what to compare.
"""

from __future__ import annotations

import platform
import sys
import time
import tracemalloc
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from croniter import croniter
from cronsim import CronSim

from systemprompt_jobs import cron
from systemprompt_jobs._calendar import _tables, _text, _zones

if TYPE_CHECKING:
    from collections.abc import Callable

ZONE = "Europe/Berlin"
EXPRESSIONS = (
    "* * * * * *",
    "*/10 * * * * *",
    "0 * * * * *",
    "0 */5 * * * *",
    "0 0 * * * *",
    "0 30 2 * * *",
    "0 0 8-18 * * MON-FRI",
    "0 15 10 * * MON#2",
    "0 0 0 1 * *",
    "0 0 0 L * *",
    "0 0 12 13 * FRI",
    "0 0 0 1 1 *",
    "0 0 0 29 2 *",
)
START = datetime(2026, 1, 1, tzinfo=UTC)
MOMENTS = [START + timedelta(hours=n * 43, minutes=n * 7, seconds=n) for n in range(200)]
GAPS = (
    ("Europe/Berlin", datetime(2026, 3, 29, 0, 59, 59, tzinfo=UTC)),
    ("Australia/Lord_Howe", datetime(2026, 10, 3, 15, 29, 59, tzinfo=UTC)),
    ("Antarctica/Troll", datetime(2026, 3, 29, 0, 59, 59, tzinfo=UTC)),
    ("Pacific/Apia", datetime(2011, 12, 30, 9, 59, 59, tzinfo=UTC)),
)


def cost(call: Callable[[datetime], object], moments: list[datetime], rounds: int = 5) -> float:
    """Return the microseconds of one call: the mean over the moments, best of the rounds."""
    best = float("inf")
    for _ in range(rounds):
        start = time.perf_counter()
        for moment in moments:
            call(moment)
        best = min(best, time.perf_counter() - start)
    return best / len(moments) * 1e6


def row(text: str) -> tuple[float, float, float, float]:
    """Return the costs of: ours, a fresh croniter, one kept between calls, a fresh cronsim."""
    zone, schedule = ZoneInfo(ZONE), cron(text, ZONE)
    local = [moment.astimezone(zone) for moment in MOMENTS]
    kept = croniter(text, local[0], second_at_beginning=True)

    def fresh(moment: datetime) -> object:
        return croniter(text, moment, second_at_beginning=True).get_next(datetime)

    def cached(moment: datetime) -> object:
        return kept.get_next(datetime, start_time=moment)

    def sim(moment: datetime) -> object:
        return next(CronSim(text, moment))

    return (
        cost(schedule.next, MOMENTS, 15),
        cost(fresh, local, 3),
        cost(cached, local, 3),
        cost(sim, local, 3),
    )


def print_ticks() -> None:
    """Print the table of all expressions, with their means and ratios."""
    print(f"| next tick, {ZONE} (µs) | ours | croniter fresh | croniter cached | cronsim |")
    print("|---|---|---|---|---|")
    rows = []
    for text in EXPRESSIONS:
        rows.append(row(text))
        print(f"| `{text}` |", " | ".join(f"{value:.1f}" for value in rows[-1]), "|")
    means = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
    print("| **mean** |", " | ".join(f"**{value:.1f}**" for value in means), "|")
    print("| times ours |", " | ".join(f"{value / means[0]:.1f}" for value in means), "|")
    least = min(cached / ours for ours, _, cached, _ in rows)
    print(f"\nLeast advantage over a cached croniter in one row: {least:.1f} times.")


def print_rest() -> None:
    """Print what else has a goal: gaps, parsing, counting, memory."""
    print("\n| elsewhere | ours |\n|---|---|")
    print(f"| the worst next tick inside a gap, of 15 texts in 4 zones | {worst_gap():.1f} µs |")
    print(f"| the same with nothing cached | {worst_gap(cold=True):.0f} µs |")
    print(f"| `* * * * * *` in Berlin's gap, a fresh croniter | {croniter_in_gap():.0f} µs |")
    print(f"| parse a new text | {parse_new():.0f} µs |")
    print(f"| parse a known text | {cost(lambda _: cron('0 30 2 * * *', ZONE), MOMENTS):.1f} µs |")
    seconds = cron("* * * * * *", ZONE)
    ten = cost(lambda moment: seconds.count(moment, moment + timedelta(days=3650)), MOMENTS[:20])
    print(f"| count ten years of seconds | {ten:.0f} µs |")
    print(f"| memory of a job beyond the shared tables | {memory():.0f} bytes |")


def worst_gap(*, cold: bool = False) -> float:
    """Return the cost of the slowest next tick that a gap is in the way of."""
    texts = (*EXPRESSIONS, "0 30 2 29 3 *", "* * 2 * * *")
    return max(in_gap(text, *gap, cold=cold) for text in texts for gap in GAPS)


def croniter_in_gap() -> float:
    """Return what croniter needs for the second that follows the gap."""
    zone, moment = GAPS[0]
    local = moment.astimezone(ZoneInfo(zone))

    def fresh(start: datetime) -> object:
        return croniter("* * * * * *", start, second_at_beginning=True).get_next(datetime)

    return cost(fresh, [local], 2)


def in_gap(text: str, zone: str, moment: datetime, *, cold: bool) -> float:
    schedule, costs = cron(text, zone), []
    for _ in range(20):
        if cold:
            _zones._window.cache_clear()
        costs.append(cost(schedule.next, [moment], 1))
    return min(costs)


def parse_new() -> float:
    """Return the mean cost of the first parse of each expression."""

    def parse(_: datetime) -> None:
        _text._read.cache_clear()
        _tables._tables.cache_clear()
        for text in EXPRESSIONS:
            cron(text)

    return cost(parse, MOMENTS[:20]) / len(EXPRESSIONS)


def memory() -> float:
    """Return the bytes of one more schedule of a known text, its own copy of the text included."""
    cron("0 30 2 * * *", ZONE)
    tracemalloc.start()
    schedules = [cron("0 30 2 * * *", ZONE) for _ in range(1000)]
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return size / len(schedules)


if __name__ == "__main__":
    names = ", ".join(f"{name} {version(name)}" for name in ("croniter", "cronsim"))
    print(f"Python {platform.python_version()}, {names}, {sys.platform} {platform.machine()}\n")
    print_ticks()
    print_rest()
