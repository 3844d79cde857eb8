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
    line = json.loads(process.line_with('"jobs": ["jobs:poison"]'))
    assert (line["event"], line["level"]) == ("process_stalled", "warning")
    assert line["stalled_s"] > 1
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


def test_an_error_that_ends_programs_ends_the_run_alone(serving):
    errors = ["KeyboardInterrupt", "SystemExit", "MemoryError"]
    entries = [f"{{extension: jobs, job: poison{n}, enabled: true}}" for n in range(len(errors))]
    process = serving(
        "".join(
            f"@job(run_on_startup=True)\ndef poison{n}(): raise {error}\n"
            for n, error in enumerate(errors)
        ),
        f"scheduler: {{local_plugins: [jobs.py], jobs: [{', '.join(entries)}]}}",
    )
    failed = [json.loads(process.line_with("run_failed"))["error"] for _ in errors]
    assert {error.partition(":")[0] for error in failed} == {*errors}
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
