"""Trivial runs per second on Celery, recorded in PostgreSQL, against bare Celery's trivial tasks.

`python -m tests.bench.bench_celery [RUNS]`. One RabbitMQ and one PostgreSQL are started for it;
both take turns there, each with one worker process and its own way to run functions: Celery's
prefork pool, and our threads and processes. The clock runs from the first message until the last
function has written its byte. Then single runs, one after the other, tell how long it takes from
the commit that dispatches one to the first line of its function.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import contextmanager
from pathlib import Path
from statistics import median, quantiles

import structlog
from systemprompt_jobs_celery._executor import CeleryExecutor

from systemprompt_jobs import Runtime
from tests.brokers import RabbitMQ
from tests.postgresql import Server

ROUNDS = 3
SINGLE = 200
SIZE = 4

BARE = """
import os
from celery import Celery
app = Celery("bare", broker=os.environ["BROKER"])
app.conf.task_ignore_result = True
@app.task
def noop():
    log = os.open(os.environ["LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(log, b".")
    os.close(log)
"""
JOBS = """
import os, time
from systemprompt_jobs import job
@job(overlap="allow")
def noop():
    log = os.open(os.environ["LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(log, b".")
    os.close(log)
@job(overlap="allow")
def when() -> str:
    return repr(time.time())
"""


@contextmanager
def spawned(folder, *command, **environ):
    """Run a worker until the block ends."""
    with (folder / "worker.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, *command],
            cwd=folder,
            env={**os.environ, **environ},
            stdout=log,
            stderr=log,
        )
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def until_written(log, count):
    while not log.exists() or log.stat().st_size < count:
        time.sleep(0.005)


def project(folder, broker, database, kind):
    """Write a project whose jobs run in workers of a kind; return its folder."""
    root = folder / kind
    executor = {"kind": "celery", "broker": broker, "queue": kind, "window": 100_000}
    executor |= {"size": SIZE, "prefetch": 100, "worker": {"kind": kind}}
    scheduler = {"database": database, "executors": {"default": executor}}
    scheduler |= {"local_plugins": ["jobs.py"]}
    config = root / "services" / "scheduler" / "config.yaml"
    config.parent.mkdir(parents=True)
    config.write_text(json.dumps({"scheduler": scheduler}))
    (root / "jobs.py").write_text(JOBS)
    (root / "jobs.py").chmod(0o644)
    return root


@contextmanager
def bare(folder, broker):
    log = folder / "bare.bytes"
    (folder / "bare.py").write_text(BARE)
    os.environ |= {"BROKER": broker, "LOG": str(log)}
    sys.path.insert(0, str(folder))
    import bare

    def batch(count):
        before = log.stat().st_size if log.exists() else 0
        for _ in range(count):
            bare.noop.delay()
        until_written(log, before + count)

    command = ("-m", "celery", "-A", "bare", "worker", "-c", str(SIZE), "-l", "WARNING")
    with spawned(folder, *command, BROKER=broker, LOG=str(log)):
        yield batch


@contextmanager
def ours(folder, broker, database, kind):
    root, log = project(folder, broker, database, kind), folder / f"{kind}.bytes"
    environ = {"SYSTEMPROMPT_PLUGINS": "celery", "LOG": str(log)}
    command = ("-m", "systemprompt_jobs.builtin.cli", "--root", str(root), "infra", "jobs")
    scheduler = spawned(root, *command, "serve", **environ)
    worker = spawned(root, *command, "worker", **environ)
    runtime = Runtime(root, environ={"SYSTEMPROMPT_PLUGINS": "celery"})
    runtime.upgrade()
    done = 0

    def batch(count):
        nonlocal done
        done += count
        runtime.submit(*["noop"] * count)
        until_written(log, done)

    with scheduler, worker:
        yield batch
    runtime.stop()


def latencies(root):
    """Return the seconds from each dispatch to its start."""
    sent, found = {}, []
    submit = CeleryExecutor.submit

    def noting(executor, attempt):
        sent[attempt.run.id] = time.time()
        submit(executor, attempt)

    CeleryExecutor.submit = noting
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    command = ("-m", "systemprompt_jobs.builtin.cli", "--root", str(root), "infra", "jobs")
    with (
        spawned(root, *command, "worker", SYSTEMPROMPT_PLUGINS="celery"),
        Runtime(root, environ={"SYSTEMPROMPT_PLUGINS": "celery"}) as runtime,
    ):
        for number in range(SINGLE + 10):
            (run,) = runtime.submit("when")
            while not (ended := runtime.find_run(run.id)).finished:
                time.sleep(0.01)
            if number >= 10:
                found.append(float(ended.message) - sent[run.id])
    return found


def main(count):
    folder = Path(tempfile.mkdtemp(prefix="bench-celery-"))
    with RabbitMQ() as broker, Server("fsync=on") as server:
        rates = defaultdict(list)
        for kind in ("threads", "processes"):
            server.create(kind)
        url = server.url
        with (
            bare(folder, broker.url) as celery,
            ours(folder, broker.url, url("threads"), "threads") as threads,
            ours(folder, broker.url, url("processes"), "processes") as processes,
        ):
            batches = {"Celery": celery, "ours, threads": threads, "ours, processes": processes}
            for batch in batches.values():
                batch(100)
            for _ in range(ROUNDS):
                for name, batch in batches.items():
                    start = time.perf_counter()
                    batch(count)
                    rates[name].append(count / (time.perf_counter() - start))
        print("| | runs/s | of Celery's |\n|---|---|---|")
        for name, values in rates.items():
            ratio = median(values) / median(rates["Celery"])
            print(f"| {name} | {median(values):,.0f} | {ratio:.2f} |", flush=True)
        found = latencies(folder / "threads")
    percentiles = quantiles(found, n=100)
    print(f"\ndispatch to start: p50 {percentiles[49] * 1000:.1f} ms", end="")
    print(f", p99 {percentiles[98] * 1000:.1f} ms")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3_000)
