"""How late do functions start, with N jobs due every second? Beside APScheduler, in one run.

    python -m tests.bench.bench_lateness [SECONDS] [N ...]

Functions do nothing, ten workers run them. Ours records every run durably, in SQLite and in
PostgreSQL; APScheduler keeps its jobs in memory and records nothing. Prints p50 and p99 in
milliseconds, and how many ticks never ran. The last table shows what the gate window decides.
"""

from __future__ import annotations

import gc
import logging
import sys
import tempfile
import threading
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import structlog

from systemprompt_jobs import JobExtension, Runtime, _record, job
from tests.postgresql import Server

WORKERS = 10


class Lateness:
    """Collects how late each start was."""

    def __init__(self) -> None:
        self.found: list[float] = []
        self.missed = 0

    def row(self, name: str) -> str:
        found = sorted(self.found) or [float("nan")]
        p50, p99 = found[len(found) // 2], found[int(len(found) * 0.99)]
        total = len(self.found) + self.missed
        return f"| {name} | {p50:.1f} | {p99:.1f} | {100 * self.missed / max(total, 1):.0f} % |"


DURABLE = ("fsync=on", "full_page_writes=on", "shared_buffers=128MB", "autovacuum=on")


def ours(count: int, seconds: float, url: str = "sqlite:///jobs.db") -> Lateness:
    def make(number: int):
        def nothing() -> None: ...

        return job(name=f"j{number}", schedule="* * * * * *")(nothing)

    class Many(JobExtension):
        def jobs(self):
            return [make(number) for number in range(count)]

    result = Lateness()
    with tempfile.TemporaryDirectory() as folder:
        profile = f"scheduler: {{workers: {WORKERS}, database: '{url}'}}\n"
        Path(folder, "profile.yaml").write_text(profile, "utf-8")
        runtime = Runtime(folder, plugins=[Many()], environ={"SYSTEMPROMPT_PLUGINS": ""})
        with runtime:
            gc.freeze()  # as `serve` does
            time.sleep(seconds)
        gc.unfreeze()
        runs = runtime.history(limit=int(count * (seconds + 5)))
        runtime.stop()
    first = min(run.tick for run in runs if run.tick)
    states = Counter(run.state for run in runs)
    for run in runs:
        # The first second also pays for what is loaded once.
        if run.started and run.tick and run.tick > first:
            result.found.append((run.started - run.tick).total_seconds() * 1000)
    result.missed = sum(run.count for run in runs if run.state in {"missed", "skipped"})
    assert set(states) <= {"succeeded", "missed", "skipped", "pending"}, states
    return result


def apscheduler(count: int, seconds: float) -> Lateness:
    from apscheduler.events import EVENT_JOB_MISSED
    from apscheduler.executors.pool import ThreadPoolExecutor
    from apscheduler.schedulers.background import BackgroundScheduler

    result, lock = Lateness(), threading.Lock()

    def work() -> None:
        now = datetime.now(UTC)
        with lock:
            result.found.append(now.microsecond / 1000)

    def missed(_event: object) -> None:
        result.missed += 1

    scheduler = BackgroundScheduler(executors={"default": ThreadPoolExecutor(WORKERS)})
    scheduler.add_listener(missed, EVENT_JOB_MISSED)
    for number in range(count):
        scheduler.add_job(work, "cron", second="*", id=f"j{number}")
    scheduler.start()
    time.sleep(seconds)
    scheduler.shutdown()
    return result


def main(arguments: list[str]) -> None:
    seconds = float(arguments[0]) if arguments else 15
    sizes = [int(text) for text in arguments[1:]] or [10, 100, 1000]
    logging.disable(logging.CRITICAL)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    for size in sizes:
        print(f"\n| N = {size} | p50 ms | p99 ms | not run |\n|---|---|---|---|")
        print(ours(size, seconds).row("ours, SQLite, every run recorded"))
        with Server(*DURABLE) as server:
            found = ours(size, seconds, server.url("postgres"))
        print(found.row("ours, PostgreSQL, every run recorded"))
        print(apscheduler(size, seconds).row("APScheduler 3, memory, nothing recorded"))
    print(f"\n| gate window, N = {sizes[-1]} | p50 ms | p99 ms | not run |\n|---|---|---|---|")
    for window in (0, 0.05, 0.2):
        _record.WINDOW_S = window
        print(ours(sizes[-1], seconds).row(f"{window * 1000:.0f} ms"))


if __name__ == "__main__":
    main(sys.argv[1:])
