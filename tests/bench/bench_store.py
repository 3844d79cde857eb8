"""What a recorded run costs: claim, gate, finish and two log lines, in groups, on both databases.

    python -m tests.bench.bench_store

Each stage is one transaction (finishes: one for each 500), durable on disk; then the observer's
thread would write `run_started` and `run_succeeded` as JSON, here to a file. Times are
microseconds per run, the median of several rounds; `cpu` is this process's processor time in all
of it, the least of them. `bare` is a loop over the driver that writes the same rows with nothing
around it; ratios are what to compare.
"""

from __future__ import annotations

import gc
import sqlite3
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg

from systemprompt_jobs._calendar import parse
from systemprompt_jobs._claim import Claimer
from systemprompt_jobs._node import new_node
from systemprompt_jobs._observe import Hooks, Observer
from systemprompt_jobs._record import Recorder
from systemprompt_jobs._store import Store
from systemprompt_jobs.builtin import logs
from systemprompt_jobs.builtin.cli._logging import configure
from tests.postgresql import Server
from tests.support import Calls, ManualClock, make_plan, report

if TYPE_CHECKING:
    from collections.abc import Callable

    from systemprompt_jobs import Report, Run

GROUPS = (1, 10, 100, 1000)
RUNS = 4000
"""Per group size, at most 200 rounds."""

DURABLE = ("fsync=on", "full_page_writes=on", "shared_buffers=128MB", "autovacuum=on")


def rounds(group: int) -> int:
    return max(4, min(200, RUNS // group))


def stages(store: Store, group: int) -> tuple[list[float], float]:
    """Return the µs per run of claim, gate, finish and log lines, and their processor time."""
    clock, calls, started = ManualClock(), Calls(), []
    observer = writing_logs()
    recorder = Recorder(
        store,
        calls,  # type: ignore[arg-type]
        clock,
        sizes={"default": group},
        lease_until=lambda: 0,
        may_start=lambda: True,
        start=started.append,
        ended=lambda _run: None,
        wake=lambda: None,
    )
    plans = [make_plan(f"job{n}", extension=f"g{group}") for n in range(group)]
    claimer = Claimer(
        store,
        plans,
        new_node(),
        clock,
        lambda: 0,
        recorder.offer,
        print,
        room=lambda: {"default": 10_000},
        lease_s=30.0,
    )
    claimer.install(parse)
    gc.freeze()  # as `serve` does
    times: list[list[float]] = []
    cpu: list[float] = []
    for _ in range(rounds(group)):
        clock.advance(1)
        taken = [timed(claimer.step, group), timed(recorder.step, group)]
        assert len(started) == group
        reports = [(run, report(run, clock)) for run in started]  # which the executors make
        taken.append(timed(lambda: finish(recorder, reports), group))  # noqa: B023  # called here
        taken.append(timed(lambda: log(observer, calls), group))
        calls.made.clear()
        started.clear()
        times.append([wall for wall, _ in taken])
        cpu.append(sum(own for _, own in taken))
    return [statistics.median(column) for column in zip(*times, strict=True)], min(cpu)


def timed(action: Callable[[], object], group: int) -> tuple[float, float]:
    """Return the µs per run that it takes, and those of the processor."""
    wall, own = time.perf_counter(), time.process_time()
    action()
    spent = time.perf_counter() - wall, time.process_time() - own
    return spent[0] / group * 1e6, spent[1] / group * 1e6


def finish(recorder: Recorder, reports: list[tuple[Run, Report]]) -> None:
    for run, ended in reports:
        recorder.report(run, ended)
    recorder.flush()


def log(observer: Observer, calls: Calls) -> None:
    for hook, arguments in calls.made:
        observer._call(hook, arguments)


def writing_logs() -> Observer:
    """Return an observer, without its thread, that logs as `serve` does."""
    manager = Hooks()
    manager.register(logs)
    return Observer(manager)


TABLES = (
    """CREATE TABLE bare_run (id bigint PRIMARY KEY, job_id text, tick_at bigint, state text,
    fence bigint, node text, lease_until bigint, started bigint, finished bigint, message text,
    UNIQUE (job_id, tick_at))""",
    "CREATE TABLE bare_job (id text PRIMARY KEY, next_tick bigint)",
    "CREATE TABLE bare_slot (key text PRIMARY KEY, run_id bigint)",
    "CREATE TABLE bare_attempt (run_id bigint PRIMARY KEY, started bigint, finished bigint)",
)
CLAIM = (
    "INSERT INTO bare_run VALUES (%(id)s, %(job)s, %(id)s, 'claimed', 1, 'n', 1, NULL, NULL, '')",
    "UPDATE bare_job SET next_tick = %(id)s WHERE id = %(job)s",
)
GATE = (
    "INSERT INTO bare_slot VALUES (%(job)s, %(id)s)",
    "UPDATE bare_run SET state = 'running', started = 1 WHERE id = %(id)s AND state = 'claimed'",
    "INSERT INTO bare_attempt VALUES (%(id)s, 1, NULL)",
)
FINISH = (
    "UPDATE bare_run SET state = 'succeeded', finished = 2 WHERE id = %(id)s AND fence = 1",
    "DELETE FROM bare_slot WHERE key = %(job)s",
    "UPDATE bare_attempt SET finished = 2 WHERE run_id = %(id)s",
)


def bare(connection: Any, group: int, translate: Callable[[str], str]) -> float:
    """Return the µs per run of claim, gate and finish together."""
    cursor = connection.cursor()
    jobs = [{"job": f"g{group}:{n}"} for n in range(group)]
    cursor.executemany(translate("INSERT INTO bare_job VALUES (%(job)s, 0)"), jobs)
    connection.commit()
    times = []
    for number in range(rounds(group)):
        base = (group * 1000 + number) * 10_000
        rows = [row | {"id": base + n} for n, row in enumerate(jobs)]
        start = time.perf_counter()
        for stage in (CLAIM, GATE, FINISH):
            if isinstance(connection, sqlite3.Connection):
                cursor.execute("BEGIN IMMEDIATE")
            for statement in stage:
                cursor.executemany(translate(statement), rows)
            connection.commit()
        times.append((time.perf_counter() - start) / group * 1e6)
    return statistics.median(times)


def named(statement: str) -> str:
    return statement.replace("%(", ":").replace(")s", "")


def table(title: str, store: Store, connection: Any, translate: Callable[[str], str]) -> None:
    store.prepare()
    for statement in TABLES:
        connection.execute(statement)
    connection.commit()
    print(
        f"\n| {title}: µs per run | claim | gate | finish | logs | all | cpu | runs/s | bare | ratio |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for group in GROUPS:
        parts, cpu = stages(store, group)
        plain = bare(connection, group, translate)
        cells = [f"{part:.0f}" for part in (*parts, sum(parts), cpu)]
        speed = f"{1e6 / sum(parts):,.0f}"
        print(f"| groups of {group} |", " | ".join([*cells, speed, f"{plain:.0f}"]), end="")
        print(f" | {sum(parts) / plain:.1f} |")
    connection.close()
    store.close()


def main() -> None:
    with tempfile.TemporaryDirectory(dir=".") as folder, Path(folder, "log").open("w") as log:
        configure(log, "serve", human=False)
        connection = sqlite3.connect(f"{folder}/bare.db", isolation_level=None)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        table("SQLite", Store(f"sqlite:///{folder}/jobs.db"), connection, named)
        with Server(*DURABLE) as server:
            server.create("bench")
            url = server.url("bench")
            bare_connection = psycopg.connect(url.replace("+psycopg", ""))
            table("PostgreSQL", Store(url), bare_connection, str)


if __name__ == "__main__":
    main()
