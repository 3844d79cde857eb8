"""What each page of the dashboard takes, with 5,000 jobs and 2,000,000 runs in the database.

    python -m tests.bench.bench_dashboard [JOBS RUNS]

Milliseconds of a warm page: the best of several, and those of the first one after the start. The
time is the clock's, so that what the database server works is in it.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
from sqlalchemy import insert, text
from starlette.testclient import TestClient
from systemprompt_jobs_dashboard import create_app

from systemprompt_jobs import Runtime
from systemprompt_jobs._clock import SystemClock, boot_id
from systemprompt_jobs._store import Store
from systemprompt_jobs._store import nodes as node_rows
from systemprompt_jobs._store import plans as plan_rows
from systemprompt_jobs._store.schema import job, micros
from systemprompt_jobs._whose import fingerprint, set_hash
from tests.postgresql import Server

if TYPE_CHECKING:
    from collections.abc import Iterator

ROUNDS, LIMIT_MS = 5, 100
DAYS = 30
JOBS = """
from systemprompt_jobs import hookimpl, job

SCHEDULES = ("0 {m} * * * *", "{s} {m} {h} * * *", "0 */5 * * * *", "0 {m} {h} * * 1-5", "0 0 * * * *")

@hookimpl
def jobs():
    for n in range(COUNT):
        schedule = SCHEDULES[n % 5].format(s=n % 60, m=n // 5 % 60, h=n // 7 % 24)
        zone = ("UTC", "Europe/Berlin", "America/New_York")[n % 3]

        def function(*, number: int = n): ...

        yield job(name=f"job-{n:04}", schedule="* * * * * *" if n == 0 else schedule, timezone=zone,
                  tags=[f"team-{n % 40}"])(function)
"""
RUNS = """
INSERT INTO jobs_run (job_id, dedup_key, tick_at, trigger, state, reason, attempt, node,
  available_at, parameters, enforce, overlap, fingerprint, distribution, version, created, started,
  finished, message, error)
WITH RECURSIVE numbers(n) AS (SELECT CAST(0 AS BIGINT) UNION ALL SELECT n + 1 FROM numbers WHERE n + 1 < :runs),
  drawn AS (SELECT n, :begin + n * :step AS at,
    CASE WHEN n % 10 = 0 THEN 0 ELSE n * 7919 % :jobs END AS job,
    CASE WHEN n % 1009 = 0 THEN 'failed' WHEN n % 2003 = 0 THEN 'skipped' ELSE 'succeeded' END
      AS state FROM numbers)
SELECT 'jobs:job-' || substr('000' || job, -4), 't' || n, at, 'schedule', state,
  CASE state WHEN 'skipped' THEN 'overlap' ELSE '' END, 1, 'bench:1:x', at, '{"number": 7}', false,
  'skip', '', 'bench', '1.0', at, at + 3000, at + 3000 + n % 977 * 1000, 'did it',
  CASE state WHEN 'failed' THEN 'builtins.RuntimeError: no' ELSE '' END
FROM drawn
"""


def fill(runtime: Runtime, store: Store, jobs: int, runs: int) -> None:
    """Record a live scheduler that has all jobs, and the runs of a month, one job's every tenth."""
    now = datetime.now(UTC)
    plans = {plan.id: fingerprint(plan) for plan in runtime.plans}
    clock = store.clock(SystemClock())
    step = micros(now) - micros(now - timedelta(days=DAYS))
    statement = RUNS
    if not store.one_host:
        statement = statement.replace("substr('000' || job, -4)", "right('000' || job, 4)")
    with store.write() as connection:
        clock.read(connection)
        node = {"id": "bench:1:x", "host": "bench", "pid": 1, "kind": "scheduler", "version": "1"}
        node_rows.join(
            connection,
            node
            | {"boot": boot_id() if store.one_host else "", "job_set": set_hash(plans)}
            | {"workers": 8, "clock_offset": None, "started": now, "heartbeat": now}
            | {"lease_until": clock.lease_now() + 3_600_000_000},
        )
        plan_rows.add_set(connection, set_hash(plans), plans)
        connection.execute(insert(job), [*_job_rows(runtime, now)])
        values = {"runs": runs, "jobs": jobs, "step": step // runs, "begin": micros(now) - step}
        connection.execute(text(statement), values)
    with store.write() as connection:  # as autovacuum does; a read would be rolled back
        connection.execute(text("ANALYZE"))


def _job_rows(runtime: Runtime, now: datetime) -> Iterator[dict[str, object]]:
    for plan in runtime.plans:
        assert plan.schedule is not None
        yield {
            "id": plan.id, "extension": plan.extension.name, "name": plan.job.name,
            "schedule": plan.schedule.text, "timezone": plan.timezone, "owner": "bench:1:x",
            "fingerprint": fingerprint(plan), "distribution": "", "version": "",
            "next_tick": plan.schedule.next(now), "last_tick": now,
        }  # fmt: skip


def measure(runtime: Runtime) -> None:
    """Ask for each page and print what it took."""
    client = TestClient(create_app(runtime), base_url="http://localhost", client=("127.0.0.1", 1))
    run = runtime.history(limit=1)[0]
    failed = runtime.history(states=["failed"], limit=1)[0]
    at = f"{datetime.now(UTC) - timedelta(days=3):%Y-%m-%dT%H:%M}"
    for path in (
        *("/", "/?page=100", "/?q=job-42", "/?tag=team-7", "/?only=trouble", "/?only=paused"),
        *("/jobs/jobs:job-4321", "/jobs/jobs:job-0000", f"/jobs/jobs:job-0000?at={at}"),
        *(f"/runs/{run.id}", f"/runs/{failed.id}", "/timeline", "/timeline?q=job-42"),
        *(
            "/nodes",
            "/audit",
            "/api/status",
            "/api/history",
            "/api/jobs/jobs:job-0000",
            "/api/stats",
        ),
    ):
        taken, cpu = [], []
        for _ in range(ROUNDS):
            begun, begun_cpu = time.perf_counter(), time.process_time()
            answer = client.get(path)
            taken.append((time.perf_counter() - begun) * 1e3)
            cpu.append((time.process_time() - begun_cpu) * 1e3)
            assert answer.status_code == 200, (path, answer.text)
        slow = "  over 100 ms" if min(taken) > LIMIT_MS else ""
        size = len(answer.content)
        print(
            f"{path:<44} {min(taken):8.1f} {min(cpu):8.1f} {taken[0]:8.1f} {size:8,}{slow}",
            flush=True,
        )


def bench(name: str, url: str, folder: Path, jobs: int, runs: int) -> None:
    """Make a project whose database is at `url`, fill it, measure, and leave it."""
    os.environ["SYSTEMPROMPT_PLUGINS"] = ""
    config = folder / "services/scheduler/config.yaml"
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text(f"scheduler:\n  local_plugins: [jobs.py]\n  database: {url}\n")
    (folder / "jobs.py").write_text(JOBS.replace("COUNT", str(jobs)))
    (folder / "jobs.py").chmod(0o600)
    runtime = Runtime(folder)
    store = Store(url, lease_s=3600)  # no statement of the filling takes too long
    if not store.exists:
        begun = time.perf_counter()
        store.prepare()
        fill(runtime, store, jobs, runs)
        print(f"{name}: filled in {time.perf_counter() - begun:.0f} s")
    store.close()
    print(f"{name + ', ms':<44} {'warm':>8} {'CPU':>8} {'first':>8} {'bytes':>8}")
    measure(runtime)
    runtime.stop()


def main() -> None:
    """Measure on both databases."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    jobs, runs = map(int, sys.argv[1:3] or (5_000, 2_000_000))
    folder = Path(tempfile.mkdtemp(prefix="jobs-bench-"))
    try:
        bench("SQLite", f"sqlite:///{folder}/jobs.db", folder, jobs, runs)
        with Server("shared_buffers=256MB", "autovacuum=on") as server:
            server.create("bench")
            bench("PostgreSQL", server.url("bench"), folder, jobs, runs)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
