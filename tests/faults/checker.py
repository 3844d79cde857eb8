"""Judges what schedulers left behind; knows nothing of how they work.

It reads the tables with plain SQL, the lines that the jobs themselves appended to a file, and
walks the calendar second by second to know which ticks were due. Instants are whole microseconds
since the Unix epoch, UTC. Nothing of the scheduler is imported here.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter, defaultdict
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

Where: TypeAlias = "str | sqlite3.Connection"
"""A database: its URL, or an open connection."""

SECOND = 1_000_000
ENDS = frozenset({"succeeded", "failed", "timed_out", "cancelled", "lost", "skipped", "missed"})
_COLUMNS = "id, job_id, state, tick_at, last_tick, count, fence, max_attempts"


@dataclass(frozen=True, slots=True)
class Row:
    """A row of `jobs_run`; `tick` is None where a run belongs to no tick."""

    id: int
    job: str
    state: str
    tick: int | None
    last_tick: int | None = None
    count: int = 1
    fence: int = 1
    max_attempts: int = 1


@dataclass(frozen=True, slots=True)
class Effect:
    """A line that a job wrote: `event` is START or END, `wall` its node's wall clock."""

    event: str
    job: str
    tick: int | None
    run: int
    fence: int
    pid: int
    wall: int


@dataclass(frozen=True, slots=True)
class Violation:
    """One broken invariant, I1 to I7."""

    invariant: str
    text: str

    def __str__(self) -> str:
        return f"{self.invariant}: {self.text}"


# --- reading ---


def read_rows(url: Where) -> list[Row]:
    """Return all rows of `jobs_run`, oldest first."""
    return [Row(*row) for row in query(url, f"SELECT {_COLUMNS} FROM jobs_run ORDER BY id")]


def read_marks(url: Where) -> dict[str, int]:
    """Return the newest settled tick of each job that has one."""
    return dict(query(url, "SELECT id, last_tick FROM jobs_job WHERE last_tick IS NOT NULL"))


def query(url: Where, sql: str) -> list[tuple]:
    """Run one SELECT, on a connection of its own where only the URL is given."""
    if not isinstance(url, str):
        return list(url.execute(sql).fetchall())
    with closing(connect(url)) as connection:
        return list(connection.execute(sql).fetchall())


def connect(url: str):
    """Return a new DBAPI connection, in autocommit."""
    if url.startswith("sqlite:///"):
        path = url.removeprefix("sqlite:///")
        return sqlite3.connect(f"file:{path}?mode=rw", uri=True, timeout=30, isolation_level=None)
    import psycopg

    return psycopg.connect(url.replace("+psycopg", "", 1), autocommit=True)


def read_effects(log: Path) -> list[Effect]:
    """Return the lines of the effect log in the order in which they were written."""
    if not log.exists():
        return []
    return [Effect(**json.loads(line)) for line in log.read_text("ascii").splitlines()]


# --- the calendar ---


def ticks(cron: str, after: int, until: int) -> Iterator[int]:
    """Yield the instants of a six-field cron text with `after` < tick <= `until`, in UTC.

    Only `*`, `*/n` and plain numbers are known. Every hour is looked at, and of those that match
    every minute and second.
    """
    fields = cron.split()
    within = [
        (60 * minute + second) * SECOND
        for minute in range(60)
        for second in range(60)
        if _field_matches(fields[1], minute, 0) and _field_matches(fields[0], second, 0)
    ]
    hour = 3600 * SECOND
    for start in range(after // hour * hour, until + 1, hour):
        if _matches(fields[2:], start):
            yield from (start + rest for rest in within if after < start + rest <= until)


def _matches(fields: Sequence[str], instant: int) -> bool:
    at = datetime.fromtimestamp(instant // SECOND, UTC)
    values = (at.hour, at.day, at.month, at.isoweekday() % 7)
    return all(map(_field_matches, fields, values, (0, 1, 1, 0)))


def _field_matches(field: str, value: int, first: int) -> bool:
    if field == "*":
        return True
    if field.startswith("*/"):
        return (value - first) % int(field[2:]) == 0
    return value == int(field)


# --- the invariants ---


def check(
    jobs: Mapping[str, str],
    rows: Sequence[Row],
    effects: Sequence[Effect],
    *,
    since: int,
    until: int,
    marks: Iterable[Mapping[str, int]] = (),
) -> list[Violation]:
    """Return all that is wrong.

    `jobs` maps job ids to their cron texts. Every tick with `since` < tick <= `until` must be
    covered by exactly one row that has ended; those outside by one at most. `marks` are samples
    of each job's newest settled tick, in the order in which they were taken.
    """
    found: list[Violation] = []
    for job, cron in jobs.items():
        own = [row for row in rows if row.job == job and row.tick is not None]
        found += _coverage(job, cron, own, since, until)
    found += _starts(rows, effects)
    found += _successes(rows, effects)
    found += _early(effects)
    found += _falls(marks)
    return found


def _coverage(
    job: str, cron: str, rows: Sequence[Row], since: int, until: int
) -> Iterator[Violation]:
    """I1 and I5: each due tick in one row, and that row at an end."""
    cover: dict[int, list[Row]] = defaultdict(list)
    for row in rows:
        assert row.tick is not None
        last = row.tick if row.last_tick is None else row.last_tick
        covered = list(ticks(cron, row.tick - 1, last))
        if len(covered) != row.count or row.tick not in covered or last not in covered:
            yield Violation("I1", f"run {row.id} of {job} says {row.count} ticks, it is {covered}")
        for tick in covered:
            cover[tick].append(row)
    for tick in ticks(cron, since, until):
        if not cover[tick]:
            yield Violation("I1", f"tick {_shown(tick)} of {job} is in no row")
        for row in cover[tick]:
            if row.state not in ENDS:
                yield Violation("I5", f"run {row.id} of {job}, {_shown(tick)}, is {row.state}")
    for tick, several in cover.items():
        if len(several) > 1:
            ids = [row.id for row in several]
            yield Violation("I1", f"tick {_shown(tick)} of {job} is in the runs {ids}")


def _starts(rows: Sequence[Row], effects: Sequence[Effect]) -> Iterator[Violation]:
    """I2 and I3: how often a run, a tick and a claim were started."""
    allowed = {row.id: row.max_attempts for row in rows}
    started = [effect for effect in effects if effect.event == "START"]
    for run, number in Counter(effect.run for effect in started).items():
        if run not in allowed:
            yield Violation("I1", f"run {run} was started and is on no record")
        elif number > allowed[run]:
            yield Violation("I2", f"run {run} was started {number} times, not {allowed[run]}")
    runs_of = defaultdict(set)
    for effect in started:
        if effect.tick is not None:
            runs_of[effect.job, effect.tick].add(effect.run)
    for (job, tick), runs in runs_of.items():
        if len(runs) > 1:
            yield Violation("I2", f"tick {_shown(tick)} of {job} was started as runs {runs}")
    for (run, fence), number in Counter((e.run, e.fence) for e in started).items():
        if number > 1:
            yield Violation("I3", f"run {run} was started {number} times under fence {fence}")


def unstarted(rows: Sequence[Row], effects: Sequence[Effect]) -> list[Row]:
    """Return the runs that are `lost` without having started: gated when their node died."""
    started = {(effect.run, effect.fence) for effect in effects if effect.event == "START"}
    return [row for row in rows if row.state == "lost" and (row.id, row.fence) not in started]


def held(rows: Sequence[Row]) -> list[Violation]:
    """I5 once every node has stopped by itself: nothing is left in the hands of one.

    What became due meanwhile may be `pending` for the next one to come.
    """
    return [
        Violation("I5", f"run {row.id} of {row.job} is {row.state}, and all nodes have stopped")
        for row in rows
        if row.state not in ENDS | {"pending"}
    ]


def _successes(rows: Sequence[Row], effects: Sequence[Effect]) -> Iterator[Violation]:
    """I4: a run that succeeded has come to the end of its function, under its fence."""
    ended = {(effect.run, effect.fence) for effect in effects if effect.event == "END"}
    for row in rows:
        if row.state == "succeeded" and (row.id, row.fence) not in ended:
            yield Violation("I4", f"run {row.id} succeeded; fence {row.fence} never ended")


def _early(effects: Sequence[Effect]) -> Iterator[Violation]:
    """I6: nothing starts before its time."""
    for effect in effects:
        if effect.event == "START" and effect.tick is not None and effect.wall < effect.tick:
            early = (effect.tick - effect.wall) / SECOND
            yield Violation("I6", f"run {effect.run} of {effect.job} started {early} s early")


def _falls(marks: Iterable[Mapping[str, int]]) -> Iterator[Violation]:
    """I7: the newest settled tick of a job never falls, nor is it forgotten."""
    highest: dict[str, int] = {}
    for sample in marks:
        for job, high in highest.items():
            if sample.get(job, -1) < high:
                yield Violation("I7", f"last_tick of {job} fell below {_shown(high)}")
        highest = {**highest, **sample}


def _shown(instant: int) -> str:
    return datetime.fromtimestamp(instant / SECOND, UTC).isoformat()
