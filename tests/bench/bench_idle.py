"""What a scheduler costs that has nothing to do, with 100,000 jobs.

    python -m tests.bench.bench_idle [JOBS [SECONDS]]

All jobs are due once a year. Prints what two starts of so many jobs take on SQLite, and the memory
beyond what a start with one job has; then, for each database, the CPU time of the process per
second, its SQL statements per second, BEGIN and COMMIT not counted, and what one look for what is
due takes. CPU time depends less on what else the machine does than any other.
"""

from __future__ import annotations

import logging
import sys
import tempfile
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog

from systemprompt_jobs import Job, JobExtension, Runtime, job
from tests.bench.bench_scaling import measured
from tests.postgresql import Server
from tests.support import before_statements

SETTLED_S = 12
"""Until what a start leaves to do is done."""

PASSES = 10_000


def nothing() -> None:
    """Do nothing."""


class Many(JobExtension):
    """So many jobs."""

    def __init__(self, count: int) -> None:
        self._count = count

    def jobs(self) -> list[Job[..., Any]]:
        return [job(name=f"j{n}", schedule="0 0 0 1 1 *")(nothing) for n in range(self._count)]


def idle(url: str, count: int, seconds: float) -> tuple[float, Counter[str], float]:
    """Return the ms of CPU per second, how often which statement was sent, and µs of a look."""
    said: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "profile.yaml").write_text(f"scheduler: {{database: '{url}'}}\n", "utf-8")
        environ = {"SYSTEMPROMPT_PLUGINS": ""}
        with Runtime(folder, plugins=[Many(count)], environ=environ) as runtime:
            time.sleep(SETTLED_S)
            before_statements(runtime._store, lambda text: said.update([" ".join(text.split())]))
            began = time.process_time()
            time.sleep(seconds)
            cpu_ms = 1000 * (time.process_time() - began)
            del said["BEGIN"], said["BEGIN IMMEDIATE"]
            began = time.thread_time()
            for _ in range(PASSES):
                assert runtime._live is not None
                runtime._live._claimer._claimable(datetime.now(UTC))
            pass_us = 1e6 * (time.thread_time() - began) / PASSES
    return cpu_ms / seconds, said, pass_us


def starts(count: int) -> None:
    """Print what two starts take, and how much memory."""
    with tempfile.TemporaryDirectory() as empty, tempfile.TemporaryDirectory() as folder:
        _, imports, least = measured(1, empty)
        first, again = measured(count, folder), measured(count, folder)
    print(f"| {count:,} jobs | first start | later start | MB above a start with one job |")
    print("|---|---|---|---|")
    print(f"| s of CPU | {first[1]:.1f} | {again[1]:.1f} | {first[2] - least:.0f} |")
    print(f"| a start with one job | {imports:.1f} | | {least:.0f} in all |")


def main(count: int, seconds: float) -> None:
    """Print the table, then which statements there were."""
    logging.disable(logging.CRITICAL)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    starts(count)  # first: a process is said to have had at most as much memory as its parent
    print()
    with Server() as server:
        urls = {"SQLite": "sqlite:///jobs.db", "PostgreSQL": server.url("postgres")}
        found = {name: idle(url, count, seconds) for name, url in urls.items()}
    print(
        f"| idle with {count:,} jobs | ms of CPU per second | statements per second | µs a look |"
    )
    print("|---|---|---|---|")
    for name, (cpu_ms, said, pass_us) in found.items():
        print(f"| {name} | {cpu_ms:.2f} | {said.total() / seconds:.2f} | {pass_us:.1f} |")
    for name, (_, said, _) in found.items():
        print(f"\n{name}:")
        for statement, number in said.most_common():
            print(f"  {number / seconds:.2f}/s  {statement[:150]}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2] or [100_000]), *map(float, sys.argv[2:3] or [60]))
