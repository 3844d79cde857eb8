"""How soon 10,000 jobs that are due at one instant are claimed, by four schedulers on PostgreSQL.

    python -m tests.bench.bench_claims [JOBS [NODES]]

The schedulers are processes with ten workers each; functions do nothing. Times count from the
tick, on the database's clock; a tick is claimed when its row is committed, `pending` ones too.
"""

from __future__ import annotations

import logging
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import structlog

from systemprompt_jobs import Job, JobExtension, Runtime, job
from tests.postgresql import Server

DURABLE = ("fsync=on", "full_page_writes=on", "shared_buffers=128MB", "autovacuum=on")
LEAD_S = 8
"""From the last start to the tick."""

FOUND = "SELECT count(*), extract(epoch FROM clock_timestamp()) FROM jobs_run WHERE tick_at = %s"
STARTED = """
SELECT node, count(*), count(*) FILTER (WHERE fence > 1),
percentile_disc(ARRAY[0.5, 1]) WITHIN GROUP (ORDER BY started - tick_at)
FROM jobs_run WHERE tick_at = %s GROUP BY node ORDER BY node"""


def nothing() -> None:
    """Do nothing."""


class Many(JobExtension):
    """So many jobs that are due at one instant of a day."""

    def __init__(self, count: int, schedule: str) -> None:
        self._count, self._schedule = count, schedule

    def jobs(self) -> list[Job[..., Any]]:
        return [job(name=f"j{n}", schedule=self._schedule)(nothing) for n in range(self._count)]


def schedule(root: str, count: int, text: str) -> None:
    """Be one of the schedulers until the parent closes the pipe."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    environ = {"SYSTEMPROMPT_PLUGINS": ""}
    with Runtime(root, plugins=[Many(count, text)], environ=environ):
        print("started", flush=True)
        sys.stdin.readline()
        print(time.process_time(), flush=True)
        sys.stdin.readline()
        print(time.process_time(), flush=True)
        sys.stdin.read()


def main(count: int, nodes: int) -> None:
    """Print when all were claimed, and who ran how many."""
    with Server(*DURABLE) as server, ExitStack() as stack:
        root = stack.enter_context(tempfile.TemporaryDirectory())
        url = server.url("postgres")
        profile = f"scheduler: {{database: '{url}', workers: 10}}\n"
        Path(root, "profile.yaml").write_text(profile, "utf-8")
        # It is in their schedule, so it must be known before they start.
        tick = datetime.now(UTC).replace(microsecond=0)
        tick += timedelta(seconds=LEAD_S + nodes * (10 + count / 1000))
        text = f"{tick:%S %M %H} * * *"
        command = [
            sys.executable,
            "-m",
            "tests.bench.bench_claims",
            "child",
            root,
            str(count),
            text,
        ]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        children = [
            stack.enter_context(subprocess.Popen(command, stderr=subprocess.DEVNULL, **pipes))
            for _ in range(nodes)
        ]
        for child in children:
            child.stdout.readline()  # type: ignore[union-attr]
        left_s = (tick - datetime.now(UTC)).total_seconds()
        assert left_s > 0, "the starts took longer than planned: take fewer jobs"
        with psycopg.connect(server.url("postgres").replace("+psycopg", "")) as connection:
            connection.autocommit = True
            before = cpu_s(children), transactions(connection)
            watch(connection, round(tick.timestamp() * 1_000_000), count)
            after = cpu_s(children), transactions(connection)
        print(
            f"\nCPU of all schedulers from {LEAD_S} s before: {after[0] - before[0]:.2f} s,",
            end=" ",
        )
        print(f"transactions {after[1] - before[1]:,}")
        for child in children:
            child.stdin.close()  # type: ignore[union-attr]


def cpu_s(children: list[subprocess.Popen[bytes]]) -> float:
    """Return the CPU time that the schedulers have used, in seconds."""
    for child in children:
        child.stdin.write(b"\n")  # type: ignore[union-attr]
        child.stdin.flush()  # type: ignore[union-attr]
    return sum(float(child.stdout.readline()) for child in children)  # type: ignore[union-attr, misc]


def transactions(connection: psycopg.Connection) -> int:
    """Return how many the server has ended; sessions tell it about once a second."""
    time.sleep(1.5)
    sql = "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = 'postgres'"
    return int((connection.execute(sql).fetchone() or (0,))[0])


def watch(connection: psycopg.Connection, tick: int, count: int) -> None:
    """Print when which share had been claimed, then what became of them."""
    print(f"| of {count:,} claimed | ms after the tick |\n|---|---|")
    shares = [1, count // 2, count]
    while shares:
        found, at = connection.execute(FOUND, (tick,)).fetchone() or (0, 0)
        while shares and found >= shares[0]:
            print(f"| {shares.pop(0):,} | {float(at) * 1000 - tick / 1000:.0f} |", flush=True)
        time.sleep(0.03)  # it reads all rows
    ended = "SELECT count(*) FROM jobs_run WHERE tick_at = %s AND state = 'succeeded'"
    while (connection.execute(ended, (tick,)).fetchone() or (0,))[0] < count:
        time.sleep(0.1)
    print(
        "\n| scheduler | runs | taken over | median start | last start, ms |\n|---|---|---|---|---|"
    )
    for number, (_, runs, moved, (median, last)) in enumerate(connection.execute(STARTED, (tick,))):
        print(f"| {number} | {runs} | {moved} | {median / 1000:.0f} | {last / 1000:.0f} |")


if __name__ == "__main__":
    if sys.argv[1:2] == ["child"]:
        schedule(sys.argv[2], int(sys.argv[3]), sys.argv[4])
    else:
        jobs, nodes = *map(int, sys.argv[1:]), *(10_000, 4)[len(sys.argv) - 1 :]
        main(jobs, nodes)
