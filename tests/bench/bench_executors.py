"""Trivial functions per second: our executors against those of the standard library.

`python -m tests.bench.bench_executors [RUNS]`. Each of ours makes a whole attempt of a run:
parameters checked, services opened, a report made. The peers call the bare function. Workers are
warm; all take turns in one process, so that the ratios hold on a busy machine too.
"""

from __future__ import annotations

import multiprocessing
import sys
import tempfile
import time
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from queue import SimpleQueue
from statistics import median

from systemprompt_jobs import Run, Runtime
from systemprompt_jobs.builtin.coroutines import Coroutines
from systemprompt_jobs.builtin.processes import Processes
from systemprompt_jobs.builtin.threads import Threads
from systemprompt_jobs.model import State, Trigger

SIZE = 2
ROUNDS = 5


def ours(executor, runtime, job="jobs:say"):
    run = Run(1, job, Trigger.MANUAL, State.RUNNING, attempt=1, parameters={"text": "x"})

    def batch(count):
        reports = SimpleQueue()
        for _ in range(count):
            executor.submit(runtime.attempt(run, reports.put))
        assert {reports.get().outcome for _ in range(count)} == {State.SUCCEEDED}

    return batch


def theirs(executor):
    def batch(count):
        futures = [executor.submit(len, "x") for _ in range(count)]
        assert {future.result() for future in futures} == {1}

    return batch


def main(count):
    origin = {
        "root": tempfile.mkdtemp(),
        "plugins": ["systemprompt_jobs.testing.jobs"],
        "no_plugins": [],
        "environ": {"SYSTEMPROMPT_PLUGINS": ""},
    }
    runtime = Runtime(**origin)
    spawn = multiprocessing.get_context("spawn")
    executors = [Processes(origin, SIZE, 2.0), Threads(SIZE), Coroutines(SIZE)]
    batches = {
        "processes": ours(executors[0], runtime),
        "ProcessPoolExecutor": theirs(ProcessPoolExecutor(SIZE, mp_context=spawn)),
        "threads": ours(executors[1], runtime),
        "ThreadPoolExecutor": theirs(ThreadPoolExecutor(SIZE)),
        "asyncio": ours(executors[2], runtime, "jobs:say-async"),
    }
    rates = defaultdict(list)
    for number in range(ROUNDS + 1):
        for name, batch in batches.items():
            start = time.perf_counter()
            batch(count)
            if number:  # the first one warms up
                rates[name].append(count / (time.perf_counter() - start))
    for executor in executors:
        executor.close()
    found = {name: median(values) for name, values in rates.items()}
    print("| executor | runs/s | of its peer |\n|---|---|---|")
    for name, peer in (("processes", "ProcessPoolExecutor"), ("threads", "ThreadPoolExecutor")):
        print(f"| {name} | {found[name]:,.0f} | {found[name] / found[peer]:.2f} |")
        print(f"| {peer} | {found[peer]:,.0f} | 1 |")
    print(f"| asyncio | {found['asyncio']:,.0f} | |")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000)
