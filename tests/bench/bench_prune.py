"""How long pruning takes, and what it does to claims meanwhile, on both databases.

    python -m tests.bench.bench_prune [RUNS]

`RUNS` old runs (1,000,000) of 20 jobs are deleted with their attempts while ten ticks are
claimed every 50 ms. Times are milliseconds per claiming transaction.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from systemprompt_jobs._calendar import parse
from systemprompt_jobs._claim import Claimer
from systemprompt_jobs._clock import SystemClock
from systemprompt_jobs._node import new_node
from systemprompt_jobs._prune import Retention, delete_old
from systemprompt_jobs._store import Store
from systemprompt_jobs._store.schema import micros
from tests.bench.bench_store import DURABLE
from tests.postgresql import Server
from tests.support import ManualClock, make_plan

JOBS = 20
NUMBERS = {
    True: "WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < {runs})",
    False: "WITH s(n) AS (SELECT generate_series(1, {runs})::bigint)",
}
RUN = """INSERT INTO jobs_run (job_id, dedup_key, tick_at, trigger, state, available_at, parameters,
    enforce, overlap, fingerprint, distribution, version, created, started, finished, message)
    {numbers} SELECT 'old:job' || (n - n / 20 * 20), 'n' || n, {first} + n * 1000000, 'schedule',
    'succeeded', {first} + n * 1000000, '{{}}', {false}, 'skip', 'f', 'd', '1', {first} + n * 1000000,
    {first} + n * 1000000, {first} + n * 1000000 + 5000, 'processed 12 items' FROM s"""
ATTEMPT = """INSERT INTO jobs_attempt (run_id, fence, number, node, started, finished, outcome)
    SELECT id, 1, 1, 'n', started, finished, state FROM jobs_run"""


def fill(store: Store, runs: int) -> None:
    """Write runs of 20 jobs that ended long ago, and their attempts."""
    plans = [make_plan(f"job{n}", extension="old") for n in range(JOBS)]
    Claimer(
        store,
        plans,
        new_node(),
        ManualClock(),
        lambda: 0,
        print,
        print,
        room=lambda: {"default": 1000},
        lease_s=30.0,
    ).install(parse)
    first = micros(datetime.now(UTC) - timedelta(days=100, seconds=runs))
    numbers = NUMBERS[store.one_host].format(runs=runs)
    with store.write() as connection:
        if not store.one_host:
            connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
        false = "0" if store.one_host else "false"
        connection.exec_driver_sql(RUN.format(numbers=numbers, first=first, false=false))
        connection.exec_driver_sql(ATTEMPT)


class Claims:
    """Claims ten ticks every 50 ms until told to stop."""

    def __init__(self, store: Store, extension: str) -> None:
        self.times: list[float] = []
        self._clock = ManualClock()
        plans = [make_plan(f"job{n}", extension=extension) for n in range(10)]
        self._claimer = Claimer(
            store,
            plans,
            new_node(),
            self._clock,
            lambda: 0,
            lambda _: None,
            print,
            room=lambda: {"default": 1000},
            lease_s=30.0,
        )
        self._claimer.install(parse)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(0.05):
            self._clock.advance(1)
            start = time.perf_counter()
            self._claimer.step()
            self.times.append((time.perf_counter() - start) * 1000)

    def end(self) -> str:
        self._stop.set()
        self._thread.join()
        p95 = statistics.quantiles(self.times, n=20)[-1]
        return f"{statistics.median(self.times):.1f} / {p95:.1f} / {max(self.times):.0f}"


def measure(title: str, store: Store, runs: int) -> None:
    store.prepare()
    fill(store, runs)
    alone = Claims(store, "alone")
    time.sleep(10)
    before = alone.end()
    claims = Claims(store, "meanwhile")
    start = time.perf_counter()
    pruned = delete_old(store, store.clock(SystemClock()), Retention(), "bench")
    took = time.perf_counter() - start
    during = claims.end()
    start = time.perf_counter()
    delete_old(store, store.clock(SystemClock()), Retention(), "bench")
    nothing = (time.perf_counter() - start) * 1000
    print(f"| {title} | {pruned.runs:,} | {took:.0f} s | {before} | {during} | {nothing:.0f} ms |")
    store.close()


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    print(
        "| | runs | pruned in | claims alone, p50 / p95 / max | meanwhile | a pass with nothing |"
    )
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(dir=".") as folder:
        measure("SQLite", Store(f"sqlite:///{folder}/jobs.db"), runs)
        sizes = {file.suffix: file.stat().st_size >> 20 for file in Path(folder).iterdir()}
        print(f"SQLite's files afterwards, MiB: {sizes}", file=sys.stderr)
    with Server(*DURABLE) as server:
        server.create("bench")
        measure("PostgreSQL", Store(server.url("bench")), runs)


if __name__ == "__main__":
    main()
