"""Signals to a scheduler with running, queued and retrying runs, in each executor."""

from __future__ import annotations

import json
import signal
import sqlite3
from collections import Counter
from functools import reduce

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
  jobs: [{entries}]
"""
LONG = "{extension: jobs, job: long%s, enabled: true}"
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
DEF long_KIND(ctx):
    note(ctx)
    SLEEP(3600)
"""
"""One for each kind, side by side."""


def source(kind, text):
    define, sleep = "def", "ctx.sleep" if kind == "threads" else "time.sleep"
    if kind == "asyncio":
        define, sleep = "async def", "await asyncio.sleep"
    executor = 'executor="processes"' if kind == "processes" else ""
    words = {"DEF": define, "SLEEP": sleep, "EXECUTOR": executor, "KIND": kind}
    return reduce(lambda found, word: found.replace(word, words[word]), words, text)


@pytest.fixture
def serving(started, new_project, monkeypatch):
    """Return a function that starts a scheduler with these jobs, in the project's folder."""

    def serve(jobs, long=("",), grace="30s"):
        entries = ", ".join(LONG % name for name in long)
        root = new_project(HEAD + jobs, CONFIG.format(grace=grace, entries=entries))
        monkeypatch.chdir(root)
        process = started("--root", root, "infra", "jobs", "serve")
        process.root = root
        return process

    return serve


@pytest.fixture
def hanging(serving):
    """Return a function that starts a scheduler and waits until a job of each kind hangs."""

    def serve(**settings):
        jobs = "".join(source(kind, ENDLESS) for kind in KINDS)
        process = serving(jobs, [f"_{kind}" for kind in KINDS], **settings)
        for _ in KINDS:
            process.line_with("run_started")
        until(lambda: (process.root / "starts").exists() and len(starts(process)) == len(KINDS))
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
    process = serving(source(kind, BUSY + queued))
    awaited = {("run_started", "jobs:long"), ("run_retrying", "jobs:again")}
    for line in map(json.loads, process.popen.stdout):
        awaited.discard((line["event"], line.get("job")))
        if not awaited:
            break
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


def test_after_the_grace_a_run_is_told_and_recorded_as_cancelled(hanging):
    process = hanging(grace="1s")
    process.signal(signal.SIGTERM)
    answer = process.end()
    assert answer.code == 0
    cancelled = ["run_cancelled"] * len(KINDS)
    assert events(answer.out) == [
        *("scheduler_stopping", *cancelled, "node_left", "scheduler_stopped")
    ]
    assert select(process, "SELECT state, message FROM jobs_run") == [
        ("cancelled", "still running 1 s after the scheduler was told to stop")
    ] * len(KINDS)


def test_a_second_signal_leaves_at_once_and_no_process_behind(hanging):
    process = hanging()
    process.signal(signal.SIGTERM)
    process.line_with("scheduler_stopping")
    process.signal(signal.SIGINT)
    assert process.end().code == 130
    pids = [pid for _, _, pid in starts(process)]
    until(lambda: not any(map(lives, pids)))
    left = select(process, "SELECT state FROM jobs_run")
    assert left == [("running",)] * len(KINDS), "for others to rescue"
