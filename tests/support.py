"""What several tests need: a clock they move, plans made in a line, a node without threads."""

from __future__ import annotations

import functools
import sqlite3
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import structlog
from sqlalchemy import event

from systemprompt_jobs import Job, job
from systemprompt_jobs._calendar import cron
from systemprompt_jobs._store import plans as plan_rows
from systemprompt_jobs._whose import set_hash
from systemprompt_jobs.model import CollectedJob, Extension, Overlap, Plan, Report, Run, State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import FrameType

    from sqlalchemy import Connection

    from systemprompt_jobs._store import Store

START = datetime(2026, 3, 2, 10, 0, 0, tzinfo=UTC)
"""A Monday."""

PATIENCE_S = 180
"""How long a busy machine may take for what happens at once."""


class ManualClock:
    """Clocks that move when a test says so; the database's is the same, whichever it is."""

    offset: timedelta | None = None

    def __init__(self, now: datetime = START, monotonic: float = 1_000.0) -> None:
        self._now = now
        self._monotonic = monotonic

    def now(self) -> datetime:
        return self._now

    def monotonic(self) -> float:
        return self._monotonic

    def read(self, connection: Any) -> datetime:
        return self._now

    def reached(self) -> datetime:
        return self._now

    def lease_now(self) -> int:
        return int(self._monotonic * 1_000_000)

    def wait(self, condition: threading.Condition, seconds: float | None) -> None:
        raise AssertionError("nothing here may wait")

    def advance(self, seconds: float) -> None:
        """Let real time pass."""
        self._monotonic += seconds
        self._now += timedelta(seconds=seconds)

    def step(self, seconds: float) -> None:
        """Step the wall clock, as an operator or NTP does; no time passes."""
        self._now += timedelta(seconds=seconds)


def until(condition: Callable[[], object]) -> None:
    """Wait until `condition()` holds."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)


def make_job(name: str = "cleanup", **arguments: Any) -> Job[..., Any]:
    """Return a job that does nothing."""

    def function() -> None: ...

    return job(name=name, **arguments)(function)


def make_plan(
    name: str = "cleanup", schedule: Any = "* * * * * *", extension: str = "ext", **values: Any
) -> Plan:
    """Return the plan of a job, as configuration would make it."""
    if isinstance(schedule, str):
        schedule = cron(schedule) if schedule else None
    defaults: dict[str, Any] = {
        "enabled": True,
        "schedule": schedule,
        "timezone": "UTC",
        "starts_up": False,
        "overlap": Overlap.SKIP,
        "splay": timedelta(),
        "enforce": False,
    }
    collected = CollectedJob(Extension(extension, extension), make_job(name))
    return Plan(
        id=collected.id, extension=collected.extension, job=collected.job, **(defaults | values)
    )


def job_set(connection: Connection, job_ids: Iterable[str]) -> str:
    """Have a node's jobs in the database; return the name of the set."""
    fingerprints = dict.fromkeys(job_ids, "f")
    digest = set_hash(fingerprints)
    plan_rows.add_set(connection, digest, fingerprints)
    return digest


class NoAttempts:
    """What a keeper is told of the runs of a node that runs nothing."""

    def strays(self) -> list[Run]:
        return []

    def cancel(self, requests: Any) -> None:
        assert list(requests) == []


def report(run: Run, clock: ManualClock, outcome: State = State.SUCCEEDED, **values: Any) -> Report:
    """Return the report of an attempt that took no time."""
    return Report(outcome, clock.now(), clock.now(), **values)


@contextmanager
def answer_lost(store: Store) -> Iterator[None]:
    """Lose the connection after each COMMIT was done and before its answer."""
    place: Any = store.backend if store.one_host else store._open().dialect
    name = "commit" if store.one_host else "do_commit"
    commit = getattr(place, name)

    def commit_and_lose(connection: Any) -> None:
        commit(connection)
        if store.one_host:
            raise sqlite3.OperationalError("disk I/O error")
        connection.driver_connection.close()
        raise psycopg.OperationalError("server closed the connection unexpectedly")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(place, name, commit_and_lose)
        yield


def before_statements(store: Store, call: Callable[[str], object]) -> None:
    """Have something told each statement before it is made; on SQLite BEGIN is one too."""
    listen: Any = event.listen
    if not store.one_host:
        listen(store._open(), "before_cursor_execute", lambda *of: call(of[2]))
        questions, execute = store._questions, store._questions.execute
        told_of = functools.cache(str)  # to write one costs as much as to ask it ten times
        asked: Any = lambda text, values: (call(told_of(text)), execute(text, values))[1]  # noqa: E731
        questions.execute = asked  # type: ignore[method-assign]
        return

    def told(statement: str) -> None:
        if not statement.startswith("PRAGMA"):
            call(statement)

    class Cursor(sqlite3.Cursor):  # SQLAlchemy's way
        def execute(self, statement: str, *values: Any) -> Any:
            told(statement)
            return super().execute(statement, *values)

        def executemany(self, statement: str, rows: Any) -> Any:
            told(statement)
            return super().executemany(statement, rows)

    class Wire(sqlite3.Connection):  # our own
        def cursor(self, *_: Any) -> Any:
            return super().cursor(Cursor)

        def execute(self, statement: str, *values: Any) -> Any:
            told(statement)
            return super().execute(statement, *values)

        def executemany(self, statement: str, rows: Any) -> Any:
            told(statement)
            return super().executemany(statement, rows)

    listen(store._open(), "do_connect", lambda *of: of[-1].update(factory=Wire))
    store.backend.close()  # those that were opened before
    store._questions.close()


@dataclass
class Calls:
    """An observer's queue that keeps what is put into it."""

    made: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def put(self, hook: str, **arguments: Any) -> None:
        self.made.append((hook, arguments))

    def names(self) -> list[str]:
        return [name for name, _ in self.made]

    @contextmanager
    def new(self) -> Iterator[list[str]]:
        """Yield a list that holds, at the end, the names of the calls made meanwhile."""
        before = len(self.made)
        names: list[str] = []
        yield names
        names += self.names()[before:]


@contextmanager
def captured() -> Iterator[list[Any]]:
    """Capture what this thread and those started meanwhile log: others are of earlier tests."""
    earlier = {*threading.enumerate()} - {threading.current_thread()}

    def of_ours(_logger: Any, _method: str, event: Any) -> Any:
        if threading.current_thread() in earlier:
            raise structlog.DropEvent
        return event

    with structlog.testing.capture_logs() as entries:
        structlog.get_config()["processors"].insert(0, of_ours)
        yield entries


def steps(call: Callable[[], object]) -> int:
    """Return how many lines of Python a call runs: work, which no load of the machine changes."""
    lines = 0

    def count(_frame: FrameType, event: str, _argument: Any) -> Any:
        nonlocal lines
        lines += event == "line"
        return count

    before = sys.gettrace()
    sys.settrace(count)
    try:
        call()
    finally:
        sys.settrace(before)
    return lines
