"""Signals to a scheduler with running, queued and retrying runs, in each executor."""

from __future__ import annotations

import signal
import sqlite3
from collections import Counter

import pytest

from tests.cli.conftest import events
from tests.executors.test_processes import lives, until

KINDS = ("threads", "asyncio", "processes")

CONFIG = """
scheduler:
  local_plugins: [jobs.py]
  shutdown_grace: {grace}
  workers: 2
  executors: {{asyncio: {{size: 2}}, processes: {{size: 2, grace: 0.2s}}}}
  jobs: [{{extension: jobs, job: long, enabled: true}}]
"""
HEAD = """
import asyncio, os, time
from pathlib import Path
from systemprompt_jobs import job

def note(ctx):
    with Path("starts").open("a") as file:
        file.write(f"{ctx.run.id} {ctx.run.attempt} {os.getpid()}\\n")
"""
BUSY = """
@job(run_on_startup=True, EXECUTOR)
DEF long(ctx):
    note(ctx)
    while not Path("release").exists():
        SLEEP(0.01)
    return "whole"

@job(schedule="* * * * * *", max_attempts=2, retry_delay="1h", retry_past_next_tick=True, EXECUTOR)
DEF again(ctx):
    note(ctx)
    raise OSError("not now")
"""
QUEUED = """
@job(schedule="* * * * * *", EXECUTOR)
DEF queued{n}(ctx):
    note(ctx)
    SLEEP(0.2)
"""
ENDLESS = """
@job(run_on_startup=True, EXECUTOR)
DEF long(ctx):
    note(ctx)
    SLEEP(3600)
"""


def source(kind, text):
    define, sleep = "def", "ctx.sleep" if kind == "threads" else "time.sleep"
    if kind == "asyncio":
        define, sleep = "async def", "await asyncio.sleep"
    executor = 'executor="processes"' if kind == "processes" else ""
    return text.replace("DEF", define).replace("SLEEP", sleep).replace("EXECUTOR", executor)


@pytest.fixture
def serving(started, new_project, monkeypatch):
    """Return a function that starts a scheduler with jobs of a kind, in the project's folder."""

    def serve(kind, jobs, grace="30s"):
        root = new_project(HEAD + source(kind, jobs), CONFIG.format(grace=grace))
        monkeypatch.chdir(root)
        process = started("--root", root, "infra", "jobs", "serve")
        process.root = root
        return process

    return serve


def select(process, statement):
    connection = sqlite3.connect(process.root / "var/jobs.db")
    found = connection.execute(statement).fetchall()
    connection.close()
    return found


def starts(process):
    """Return (run, attempt, pid) of each call of a function, as the function itself says."""
    lines = (process.root / "starts").read_text("utf-8").splitlines()
    return [tuple(map(int, line.split())) for line in lines]


@pytest.mark.parametrize("kind", KINDS)
def test_a_stop_loses_no_run_and_starts_none_twice(serving, kind):
    queued = "".join(QUEUED.format(n=n) for n in range(9))
    process = serving(kind, BUSY + queued)
    process.line_with("run_retrying")
    until((process.root / "starts").exists)
    process.signal(signal.SIGTERM)
    process.line_with("scheduler_stopping")
    (process.root / "release").touch()
    assert process.end().code == 0

    runs = select(process, "SELECT job_id, state, attempt, message FROM jobs_run ORDER BY id")
    assert ("jobs:long", "succeeded", 1, "whole") in runs
    assert [run[:3] for run in runs if run[0] == "jobs:again" and run[2]] == [
        ("jobs:again", "pending", 1)
    ]
    assert {state for _, state, _, _ in runs} <= {"succeeded", "pending", "skipped", "missed"}
    called = Counter((run, attempt) for run, attempt, _ in starts(process))
    recorded = select(process, "SELECT run_id, number FROM jobs_attempt")
    assert called == Counter(recorded)
    assert set(called.values()) == {1}
    slots = select(process, "SELECT key FROM jobs_slot")
    assert slots == [("overlap:jobs:again",)], "who waits to retry keeps its slot"
    covered = select(
        process,
        "SELECT job_id, sum(count), (max(coalesce(last_tick, tick_at)) - min(tick_at)) / 1000000"
        " FROM jobs_run WHERE tick_at IS NOT NULL GROUP BY job_id",
    )
    assert covered
    assert {seconds + 1 - count for _, count, seconds in covered} == {0}, "each tick has its row"


@pytest.mark.parametrize("kind", KINDS)
def test_after_the_grace_a_run_is_told_and_recorded_as_cancelled(serving, kind):
    process = serving(kind, ENDLESS, grace="1s")
    process.line_with("run_started")
    until((process.root / "starts").exists)
    process.signal(signal.SIGTERM)
    answer = process.end()
    assert answer.code == 0
    assert events(answer.out) == [
        "scheduler_stopping",
        "run_cancelled",
        "node_left",
        "scheduler_stopped",
    ]
    assert select(process, "SELECT state, message FROM jobs_run") == [
        ("cancelled", "still running 1 s after the scheduler was told to stop")
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_a_second_signal_leaves_at_once_and_no_process_behind(serving, kind):
    process = serving(kind, ENDLESS)
    process.line_with("run_started")
    until((process.root / "starts").exists)
    process.signal(signal.SIGTERM)
    process.line_with("scheduler_stopping")
    process.signal(signal.SIGINT)
    assert process.end().code == 130
    ((_, _, pid),) = starts(process)
    until(lambda: not lives(pid))
    assert select(process, "SELECT state FROM jobs_run") == [("running",)], "for others to rescue"
