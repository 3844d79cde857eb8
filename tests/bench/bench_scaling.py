"""What more schedulers and more jobs cost: the numbers and pictures of docs/explanation/scaling.md.

    python -m tests.bench.bench_scaling nodes      # 1, 3, 10 and 100 schedulers, on virtual time
    python -m tests.bench.bench_scaling failover   # how soon the runs of a dead one begin again
    python -m tests.bench.bench_scaling jobs       # start-up and memory of 10,000 to 1,000,000 jobs

The schedulers are real ones on one SQLite file; their clock is virtual and nothing is synced to
disk. All times of the CPU are of this process and hardly depend on what else the machine does;
those of fail-over are virtual and do not at all.
"""

from __future__ import annotations

import logging
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from systemprompt_jobs import JobExtension, Runtime, job
from systemprompt_jobs.testing._machine import Machine
from systemprompt_jobs.testing._world import World
from tests.support import before_statements

if TYPE_CHECKING:
    from collections.abc import Iterable

NODES = (1, 3, 10, 100)
JOBS = (10_000, 100_000, 1_000_000)
DUE = 100
"""Jobs that are due each minute."""

MINUTES = 2
YEARLY = "0 0 0 1 1 *"
RUN_S = 600.0


class Many(JobExtension):
    """So many jobs of one schedule."""

    def __init__(self, count: int, schedule: str) -> None:
        options: dict[str, Any] = {"schedule": schedule, "max_attempts": 9, "overlap": "allow"}
        self._jobs = [job(name=f"j{n}", **options)(nothing) for n in range(count)]

    def jobs(self) -> list[Any]:
        return self._jobs


def nothing() -> None:
    """Do nothing."""


# --- schedulers ---


def started(world: World, folder: str, count: int, plugin: Many) -> list[Machine]:
    """Return so many schedulers, started within a third of a lease."""
    machines = [Machine(world, f"n{n}", Path(folder), plugins=[plugin]) for n in range(count)]
    for machine in machines:
        machine.start()
        world.run_for(9 / count)
    world.run_for(60 - world.micros / 1_000_000 % 60 - 20)  # whole seconds from the next tick
    return machines


def lived(count: int, schedule: str) -> Counter[str]:
    """Return what some minutes of so many schedulers took: ms of CPU, statements and so on."""
    took: Counter[str] = Counter()
    delays = random.Random(1)
    with tempfile.TemporaryDirectory() as folder:
        world = World(skips=False, latency=lambda: delays.uniform(0, 0.005))
        machines = started(world, folder, count, Many(DUE, schedule))
        for machine in machines:
            count_all(machine, took)
        began = time.process_time()
        world.run_for(60 * MINUTES)
        took["ms"] = round(1000 * (time.process_time() - began))
        took["ticks"] = sum(moment.what == "run_started" for moment in world.moments)
        for machine in machines:
            machine.crash()
    return took


def count_all(machine: Machine, took: Counter[str]) -> None:
    """Count statements, commits, claims, and those claims that found nothing left."""
    store = machine.runtime._store
    before_statements(store, lambda said: took.update(["statements"] * (said[:5] != "BEGIN")))
    commit = store.backend.commit
    store.backend.commit = lambda driver: (took.update(["commits"]), commit(driver))
    claimer = machine.live._claimer
    claim = claimer._claim

    def counted(due: Any) -> Any:
        found = claim(due)
        took.update(["claims", *([] if found else ["empty"])])
        return found

    claimer._claim = counted


def nodes() -> None:
    """Print what a tick costs, and what the looks cost that find nothing."""
    rows = []
    for count in NODES:
        idle, busy = lived(count, YEARLY), lived(count, "0 * * * * *")
        ticks, seconds = busy["ticks"], 60 * MINUTES
        rows.append(
            (
                f"{count}",
                *(f"{(busy[k] - idle[k]) / ticks:.2f}" for k in ("ms", "statements", "commits")),
                f"{busy['claims'] / MINUTES:.0f}",
                f"{busy['empty'] / max(1, busy['claims']):.0%}",
                *(f"{idle[k] / seconds:.1f}" for k in ("ms", "statements", "commits")),
            )
        )
        print(rows[-1], file=sys.stderr)
    table(
        "schedulers | ms of CPU per tick | statements per tick | commits per tick"
        " | claims per minute | of them in vain | ms of CPU per idle second"
        " | statements per idle second | commits per idle second",
        rows,
    )
    chart("statements per second of all schedulers together, with nothing due", rows, column=7)


# --- fail-over ---


def failover() -> None:
    """Print after how many seconds the runs of schedulers that were killed begin again."""
    rows = []
    for count, killed, times in ((3, 1, 20), (10, 3, 7), (100, 10, 2)):
        delays = [s for n in range(times) for s in begun_again(count, killed, n)]
        ordered = sorted(delays)
        rows.append(
            (
                f"{count}",
                f"{killed}",
                f"{len(delays)}",
                f"{ordered[0]:.0f}",
                f"{statistics.median(ordered):.0f}",
                f"{ordered[-1]:.0f}",
            )
        )
        print(rows[-1], file=sys.stderr)
    table("schedulers | killed at once | runs | soonest | middle | latest", rows)
    chart("seconds until a run of a killed scheduler begins again, the middle", rows, column=4)


def begun_again(count: int, killed: int, seed: int) -> list[float]:
    """Return the seconds from a kill to the next attempt of each run that it cut off."""
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        world = World(takes=lambda _: RUN_S, look_s=1, latency=lambda: chance.uniform(0, 0.005))
        machines = started(world, folder, count, Many(min(4 * count, 300), "0 1 * * * *"))
        world.run_for(90 + chance.uniform(0, 30))
        busy = [machine for machine in machines if machine.live._recorder.running()]
        victims = chance.sample(busy, min(killed, len(busy)))
        cut_off = {run.id for machine in victims for run in machine.live._recorder.running()}
        at = world.now
        for machine in victims:
            machine.crash()
        world.run_for(120)
        again = {
            moment.run.id: (moment.at - at).total_seconds()
            for moment in reversed(world.moments)
            if moment.what == "function_began" and moment.at > at and moment.run.id in cut_off
        }
        for machine in machines:
            machine.crash()
    return list(again.values())


# --- jobs ---


def jobs() -> None:
    """Print what so many jobs take, each number of them in processes of its own."""
    rows = []
    for count in JOBS:
        with tempfile.TemporaryDirectory() as folder:
            first = measured(count, folder)
            again = measured(count, folder)
            size = Path(folder, "jobs.db").stat().st_size / 1e6
        plain, cpu, mb = first
        rows.append(
            (
                f"{count:,}",
                f"{plain:.1f}",
                f"{cpu:.1f}",
                f"{again[1]:.1f}",
                f"{mb:,.0f}",
                f"{1000 * mb / count:.1f}",
                f"{size:,.0f}",
            )
        )
        print(rows[-1], file=sys.stderr)
    table(
        "jobs | s of CPU to plan | first start | later start | MB at most | kB a job | MB of database",
        rows,
    )
    chart("MB of memory at most", rows, column=4)


def measured(count: int, folder: str) -> list[float]:
    """Return the s of CPU until all is planned, until the start has ended, and the most MB."""
    command = (sys.executable, "-m", "tests.bench.bench_scaling", "start", str(count), folder)
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [float(word) for word in said.split()]


def start(count: int, folder: str) -> None:
    """Start a scheduler with so many jobs that are due once a year; say what it took."""
    Path(folder, "profile.yaml").write_text("scheduler: {database: 'sqlite:///jobs.db'}\n")
    plugin = Many(count, YEARLY)
    began = time.process_time()
    runtime = Runtime(folder, plugins=[plugin], environ={"SYSTEMPROMPT_PLUGINS": ""})
    assert len(runtime.plans) == count
    planned = time.process_time() - began
    with runtime:
        cpu = time.process_time() - began
        print(planned, cpu, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


# --- what is printed ---


def table(heads: str, rows: Iterable[tuple[str, ...]]) -> None:
    """Print a table in Markdown."""
    print(f"| {heads} |\n|{'---|' * len(heads.split('|'))}")
    for row in rows:
        print(f"| {' | '.join(row)} |")


def chart(title: str, rows: list[tuple[str, ...]], column: int) -> None:
    """Print a column as bars."""
    values = [float(row[column].replace(",", "")) for row in rows]
    print(f"\n```text\n{title}\n")
    for row, value in zip(rows, values, strict=True):
        print(f"{row[0]:>9}  {'█' * max(1, round(40 * value / max(values)))} {row[column]}")
    print("```\n")


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    what, *rest = sys.argv[1:] or ["nodes"]
    if what == "start":
        start(int(rest[0]), rest[1])
    else:
        {"nodes": nodes, "failover": failover, "jobs": jobs}[what]()
