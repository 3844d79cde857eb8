"""Jobs that would take the whole process down with them, and do not."""

from __future__ import annotations

import json
import signal
import sqlite3
import threading

import pytest

HEAD = """
import ctypes, threading, time
from concurrent.futures import ThreadPoolExecutor
from systemprompt_jobs import job, hookimpl
"""
CONFIG = """
scheduler:
  local_plugins: [jobs.py]
  shutdown_grace: 1s
  workers: 2
  jobs: [{extension: jobs, job: poison, enabled: true}]
"""


@pytest.fixture
def serving(started, new_project):
    """Return a function that starts a scheduler with a job and returns the process."""

    def serve(jobs, config=CONFIG):
        root = new_project(HEAD + jobs, config)
        process = started("--root", root, "infra", "jobs", "serve")
        process.root = root
        return process

    return serve


def rows(process, columns):
    connection = sqlite3.connect(process.root / "var/jobs.db")
    found = connection.execute(f"SELECT {columns} FROM jobs_run ORDER BY id").fetchall()
    connection.close()
    return found


def test_code_that_holds_the_interpreters_lock_is_reported_with_the_jobs_that_run(serving):
    process = serving(
        "@job(run_on_startup=True)\n"
        "def poison():\n"
        "    ctypes.PyDLL(None).usleep(4_000_000)\n"  # PyDLL: no other thread gets its turn
        "    time.sleep(2)\n"
    )
    line = json.loads(process.line_with("process_stalled"))
    assert line["level"] == "warning"
    assert line["jobs"] == ["jobs:poison"]
    assert 1 < line["stalled_s"] < 30
    process.signal(signal.SIGTERM)
    assert process.end().code == 0


def test_threads_that_a_job_leaves_behind_do_not_keep_the_scheduler_from_ending(serving):
    process = serving(
        "@job(run_on_startup=True)\n"
        "def poison():\n"
        "    ThreadPoolExecutor(1, 'pooled').submit(threading.Event().wait)\n"
        "    threading.Thread(target=threading.Event().wait, name='own', daemon=False).start()\n"
    )
    process.line_with("run_succeeded")
    process.signal(signal.SIGTERM)
    answer = process.end()
    assert answer.code == 0
    assert "scheduler_stopped" in answer.out
    assert answer.err == "cut off threads that did not end: pooled_0, own\n"


@pytest.mark.parametrize("error", ["KeyboardInterrupt", "SystemExit", "MemoryError"])
def test_an_error_that_ends_programs_ends_the_run_alone(serving, error):
    process = serving(f"@job(run_on_startup=True)\ndef poison(): raise {error}\n")
    assert error in json.loads(process.line_with("run_failed"))["error"]
    process.signal(signal.SIGTERM)
    assert process.end().code == 0


def test_an_observer_that_takes_five_seconds_holds_up_no_run(serving):
    process = serving(
        "@job(run_on_startup=True)\n"
        "def poison():\n"
        "    return 'x' * 50_000_000\n"
        "@job(schedule='* * * * * *')\n"
        "def secondly(): ...\n"
        "@hookimpl\n"
        "def run_finished(run):\n"
        "    time.sleep(5)\n"
    )
    process.line_with("run_started")
    ended = []
    while ended.count(("jobs:secondly", "succeeded", 0)) < 3:
        threading.Event().wait(0.1)
        ended = rows(process, "job_id, state, length(message)")
    assert ("jobs:poison", "succeeded", 10_038) in ended
    process.signal(signal.SIGTERM)
    assert process.end().code == 0


def test_a_job_that_hangs_is_shown_as_a_stray_and_does_not_hold_up_the_stop(serving, cli):
    process = serving(
        "@job(run_on_startup=True, timeout='0.2')\n"
        "def poison():\n"
        "    while True: time.sleep(0.01)\n"
        "@job(schedule='* * * * * *')\n"
        "def secondly(): ...\n",
        CONFIG.replace("workers: 2", "workers: 2\n  lease: 3s"),
    )
    line = json.loads(process.line_with("run_timed_out"))
    assert (line["level"], line["stray"], line["job"]) == ("error", True, "jobs:poison")
    assert line["duration_s"] >= 0.2
    assert "in poison" in line["exception"]
    process.line_with("run_succeeded")  # of the other job
    shown = "(1 stray thread beside 2 workers)"
    while shown not in cli("--root", process.root, "infra", "jobs", "status").out:
        threading.Event().wait(0.1)
    process.signal(signal.SIGTERM)
    assert process.end().code == 0


MANY = (
    "@job(run_on_startup=True)\ndef poison(ctx):\n    ctx.sleep(0.7)\n    return 'whole'\n"
) + "".join(
    f"@job(schedule='* * * * * *', name='s{n}')\ndef s{n}(ctx): ctx.sleep(0.3)\n" for n in range(9)
)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_with_running_and_queued_runs_loses_none_and_starts_none_twice(serving, number):
    process = serving(MANY, CONFIG.replace("grace: 1s", "grace: 20s"))
    process.line_with('"job": "jobs:poison"')  # it has started
    process.signal(number)
    assert process.end().code == 0
    found = rows(process, "job_id, state, attempt, message")
    assert ("jobs:poison", "succeeded", 1, "whole") in found
    assert {state for _, state, _, _ in found} <= {"succeeded", "pending", "skipped", "missed"}
    assert {attempt for _, state, attempt, _ in found if state == "succeeded"} == {1}
    connection = sqlite3.connect(process.root / "var/jobs.db")
    attempts = connection.execute("SELECT run_id, outcome FROM jobs_attempt").fetchall()
    assert connection.execute("SELECT count(*) FROM jobs_slot").fetchone() == (0,)
    connection.close()
    assert len({run_id for run_id, _ in attempts}) == len(attempts)
    assert {outcome for _, outcome in attempts} == {"succeeded"}


def test_after_the_grace_a_run_is_told_and_recorded_as_cancelled(serving):
    process = serving("@job(run_on_startup=True)\ndef poison(ctx): ctx.sleep(3600)\n")
    process.line_with("run_started")
    process.signal(signal.SIGTERM)
    answer = process.end()
    assert answer.code == 0
    events = [json.loads(line) for line in answer.out.splitlines()]
    assert [event["event"] for event in events] == [
        "scheduler_stopping",
        "run_cancelled",
        "node_left",
        "scheduler_stopped",
    ]
    assert rows(process, "state, message") == [
        ("cancelled", "still running 1 s after the scheduler was told to stop")
    ]
