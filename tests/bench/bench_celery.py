"""Trivial runs per second on Celery, recorded in PostgreSQL, against bare Celery's trivial tasks.

`python -m tests.bench.bench_celery [RUNS [POOL]...]`, a pool being `threads` or `processes`. One
RabbitMQ and one PostgreSQL (with fsync) are started for it, and all variants take turns there. Each
has one worker that runs four functions at once, in threads or in processes of its own, holds up to
100 messages that have not begun, and acknowledges late. Celery's tasks are sent one by one, our
runs submitted in groups. Celery is measured with publisher confirms, which our executor
always asks for, and without.
The clock runs from the first message until the last function has written its byte; processor time
is the kernel's count, until all is recorded and acknowledged.

Then single runs, one after the other, tell how long it takes from the commit that dispatches one to
the first line of its function.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack, contextmanager, suppress
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
PREFETCH = 100
TOGETHER = 250
"""How many of our runs are submitted in one transaction."""

POOLS = {"threads": "threads", "processes": "prefork"}
"""What Celery calls ours."""

TICKS_MS = 1000 / os.sysconf("SC_CLK_TCK")
PAGE_MB = os.sysconf("SC_PAGE_SIZE") / 1e6

BARE = """
import os
from celery import Celery
app = Celery("bare", broker=os.environ["BROKER"])
app.conf.update(
    broker_transport_options={{"confirm_publish": {confirms}}},
    task_acks_late=True,
    task_default_queue="{name}",
    task_ignore_result=True,
    worker_prefetch_multiplier={prefetch} // {size},
)
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
CLI = ("-m", "systemprompt_jobs.builtin.cli")


# --- what a variant costs ---


def tree(pid):
    """Return the ids of a process and of all that it has started."""
    found = [pid]
    for parent in found:
        for thread in Path(f"/proc/{parent}/task").glob("*/children"):
            with suppress(OSError):  # it has just ended
                found += map(int, thread.read_text().split())
    return found


def cpu_ms(pid):
    """Return the processor time that a process and its children have had."""
    total = 0.0
    for each in tree(pid):
        with suppress(OSError):
            fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
            total += sum(map(int, fields[11:15])) * TICKS_MS
    return total


def memory_mb(pid):
    """Return the resident memory of a process and its children."""
    return sum(int(Path(f"/proc/{n}/statm").read_text().split()[1]) for n in tree(pid)) * PAGE_MB


class Variant:
    """How to run a batch, and what it costs: processor time by part, and transactions."""

    def __init__(self, batch, parts, worker, database=None):
        self.batch, self.worker = batch, worker
        self._parts, self._database = parts, database
        self.rates, self.spent, self.done = [], Counter(), 0

    def measure(self, count):
        before, start = self._read(), time.perf_counter()
        self.batch(count)
        self.rates.append(count / (time.perf_counter() - start))
        time.sleep(1.5)  # what follows a function is recorded, and PostgreSQL has counted it
        for part, value in self._read().items():
            self.spent[part] += value - before[part]
        self.done += count

    def _read(self):
        found = {part: sum(map(cpu_ms, pids)) for part, pids in self._parts.items()}
        found["scheduler"] += time.process_time() * 1000  # what submits: this process
        return found | {"commits": self._database() if self._database else 0}

    def cost(self, part):
        return self.spent[part] / self.done


# --- the variants ---


@contextmanager
def spawned(folder, *command, **environ):
    """Run a process until the block ends."""
    with (folder / "worker.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, *command],
            cwd=folder,
            env={**os.environ, **environ},
            stdout=log,
            stderr=log,
        )
    try:
        yield process
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
    executor |= {"size": SIZE, "prefetch": PREFETCH, "worker": {"kind": kind}}
    scheduler = {"database": database, "executors": {"default": executor}}
    scheduler |= {"local_plugins": ["jobs.py"]}
    config = root / "services" / "scheduler" / "config.yaml"
    config.parent.mkdir(parents=True)
    config.write_text(json.dumps({"scheduler": scheduler}))
    (root / "jobs.py").write_text(JOBS)
    (root / "jobs.py").chmod(0o644)
    return root


@contextmanager
def bare(folder, broker, servers, pool, confirms):
    name = f"bare_{pool}_{confirms}".lower()
    log = folder / f"{name}.bytes"
    code = BARE.format(name=name, confirms=confirms, prefetch=PREFETCH, size=SIZE)
    (folder / f"{name}.py").write_text(code)
    environ = {"BROKER": broker, "LOG": str(log)}
    os.environ |= environ
    sys.path.insert(0, str(folder))
    task = __import__(name).noop
    done = 0

    def batch(count):
        nonlocal done
        done += count
        for _ in range(count):
            task.delay()
        until_written(log, done)

    options = ("-P", pool, "-c", str(SIZE), "-l", "WARNING", "-n", f"{name}@%h")
    with spawned(folder, "-m", "celery", "-A", name, "worker", *options, **environ) as worker:
        parts = {"scheduler": [], "worker": [worker.pid], **servers}
        yield Variant(batch, parts, worker.pid)


@contextmanager
def ours(folder, broker, servers, server, kind):
    server.create(kind)
    root, log = project(folder, broker, server.url(kind), kind), folder / f"{kind}.bytes"
    environ = {"SYSTEMPROMPT_PLUGINS": "celery", "LOG": str(log)}
    command = (*CLI, "--root", str(root), "infra", "jobs")
    runtime = Runtime(root, environ={"SYSTEMPROMPT_PLUGINS": "celery"})
    runtime.upgrade()
    done = 0

    def batch(count):
        nonlocal done
        done += count
        for start in range(0, count, TOGETHER):
            runtime.submit(*["noop"] * min(TOGETHER, count - start))
        until_written(log, done)

    def commits():
        sql = "SELECT xact_commit FROM pg_stat_database WHERE datname = %s"
        return server.execute(sql, kind)[0][0]

    with (
        spawned(root, *command, "serve", **environ) as scheduler,
        spawned(root, *command, "worker", **environ) as worker,
    ):
        parts = {"scheduler": [scheduler.pid], "worker": [worker.pid], **servers}
        yield Variant(batch, parts, worker.pid, commits)
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
    with (
        spawned(
            root, *CLI, "--root", root, "infra", "jobs", "worker", SYSTEMPROMPT_PLUGINS="celery"
        ),
        Runtime(root, environ={"SYSTEMPROMPT_PLUGINS": "celery"}) as runtime,
    ):
        for number in range(SINGLE + 10):
            (run,) = runtime.submit("when")
            while not (ended := runtime.find_run(run.id)).finished:
                time.sleep(0.01)
            if number >= 10:
                found.append(float(ended.message) - sent[run.id])
    return found


def table(variants):
    """Print what the variants did, each beside Celery without confirms and with the same pool."""
    print("| | runs/s | of Celery's | scheduler | worker | broker | PostgreSQL ", end="")
    print("| commits | worker's memory |\n|" + "---|" * 9)
    for name, variant in variants.items():
        rate = median(variant.rates)
        peer = variants[f"Celery, {name.split()[-1]}"]
        print(f"| {name} | {rate:,.0f} | {rate / median(peer.rates):.2f} ", end="")
        for part in ("scheduler", "worker", "broker", "postgresql"):
            print(f"| {variant.cost(part):.2f} ms ", end="")
        print(
            f"| {variant.cost('commits'):.3f} | {memory_mb(variant.worker):,.0f} MB |", flush=True
        )


def main(count, kinds):
    folder = Path(tempfile.mkdtemp(prefix="bench-celery-"))
    with RabbitMQ() as broker, Server("fsync=on") as server, ExitStack() as stack:
        servers = {"broker": broker.pids, "postgresql": [server.pid]}
        variants = {}
        for kind in kinds:
            pool = POOLS[kind]
            for says, confirms in ((", confirms", True), ("", False)):
                made = bare(folder, broker.url, servers, pool, confirms)
                variants[f"Celery{says}, {kind}"] = stack.enter_context(made)
            made = ours(folder, broker.url, servers, server, kind)
            variants[f"ours, {kind}"] = stack.enter_context(made)
        for variant in variants.values():
            variant.batch(100)
        for _ in range(ROUNDS):
            for variant in variants.values():
                variant.measure(count)
        table(variants)
        stack.close()
        found = latencies(folder / kinds[0])
    percentiles = quantiles(found, n=100)
    print(f"\ndispatch to start: p50 {percentiles[49] * 1000:.1f} ms", end="")
    print(f", p99 {percentiles[98] * 1000:.1f} ms")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3_000, sys.argv[2:] or [*POOLS])
