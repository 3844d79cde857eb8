"""Jobs that write down what they do: the plugin of the nodes under test.

A node does not have those that `FAULTS_WITHOUT` names.

Each line is one write() on a descriptor opened with O_APPEND, so that lines of several processes
never mix and a killed process leaves whole lines or none.
"""

from __future__ import annotations

import json
import os
import time

from systemprompt_jobs import JobContext, job
from systemprompt_jobs.model import Overlap

try:
    from __main__ import point, wall_offset_s
except ImportError:  # a process that a node has started for its functions

    def point(_name: str) -> None:
        """Break with the node only."""


SECOND = 1_000_000


def note(event: str, ctx: JobContext) -> None:
    """Append one line to the effect log."""
    own = os.environ["FAULTS_WALL"] == "own"
    line = {
        "event": event,
        "job": ctx.run.job_id,
        "tick": None if ctx.tick is None else round(ctx.tick.timestamp() * SECOND),
        "run": ctx.run.id,
        "fence": ctx.run.fence,
        "pid": os.getpid(),
        "wall": time.time_ns() // 1_000 + (round(max(wall_offset_s()) * SECOND) if own else 0),
    }
    file = os.open(os.environ["FAULTS_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, json.dumps(line).encode("ascii") + b"\n")
    os.close(file)


@job(schedule="* * * * * *", overlap=Overlap.ALLOW)
def each(ctx: JobContext) -> None:
    """Run every second, quickly."""
    note("START", ctx)
    note("END", ctx)


@job(schedule="*/2 * * * * *")
def slow(ctx: JobContext) -> None:
    """Be at work most of the time, and be where a node is told to die in the middle of a run."""
    note("START", ctx)
    time.sleep(0.7)
    point("mid_run")
    note("END", ctx)


@job(schedule="*/3 * * * * *")
def long(ctx: JobContext) -> None:
    """Outlast the next tick, which is skipped."""
    note("START", ctx)
    time.sleep(3.5)
    note("END", ctx)


@job(run_on_startup=True)
def at_start(ctx: JobContext) -> None:
    """Run at the start of a node where the project says so."""
    note("START", ctx)
    note("END", ctx)


@job(schedule="*/5 * * * * *")
def fails(ctx: JobContext) -> None:
    """Fail."""
    note("START", ctx)
    note("END", ctx)
    raise RuntimeError("as it does always")


for name in os.environ.get("FAULTS_WITHOUT", "").split():
    del globals()[name]
