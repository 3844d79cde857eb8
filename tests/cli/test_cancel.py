from __future__ import annotations

import os
import sqlite3

import pytest

CONFIG = "scheduler: {local_plugins: [jobs.py]}"


@pytest.fixture
def waiting(new_project):
    """Make a project with a job that runs until it is cancelled."""
    return new_project(
        "from systemprompt_jobs import job\n"
        "@job\n"
        "def wait(ctx):\n"
        "    print('begun', flush=True)\n"
        "    ctx.sleep(3600)\n"
        "@job\n"
        "def greet(): ...\n",
        CONFIG,
    )


@pytest.fixture
def jobs(cli, waiting):
    return lambda *arguments: cli("--root", waiting, "infra", "jobs", *arguments)


def audit(project):
    connection = sqlite3.connect(project / "var/jobs.db")
    rows = connection.execute("SELECT who, action, subject, note FROM jobs_audit").fetchall()
    connection.close()
    return rows


def test_a_run_of_another_process_is_told_to_end_and_ends(
    started, jobs, waiting, tmp_path, monkeypatch
):
    monkeypatch.setenv("LOGNAME", "ada")
    process = started("--root", waiting, "infra", "jobs", "run", "wait")
    process.line_with("begun")
    answer = jobs("cancel", 1, "--note", "too long")
    assert answer.code == 0
    assert answer.out.startswith("▶ running  run 1 of jobs:wait  told to end, on ")
    ended = process.end()
    assert ended.code == 1
    assert ended.out.startswith("■ cancelled  jobs:wait  ")
    who = f"ada@{os.uname().nodename}"
    assert ended.out.endswith(f"cancelled by {who}: too long\n")
    assert (who, "cancel", "run 1 of jobs:wait", "too long") in audit(waiting)


def test_one_that_has_ended_is_an_error_that_says_so(jobs):
    jobs("run", "greet")
    answer = jobs("cancel", 1)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err == "error: run 1 of jobs:greet has ended: it is succeeded\n"


def test_an_unknown_one_is_an_error_and_the_others_are_cancelled(jobs, waiting):
    jobs("run", "greet", "greet")
    with sqlite3.connect(waiting / "var/jobs.db") as connection:
        connection.execute(
            "UPDATE jobs_run SET state = 'pending', finished = NULL, available_at = 0 WHERE id = 1"
        )
    connection.close()
    answer = jobs("cancel", 77, 1, 1)
    assert answer.code == 2
    assert answer.err == "error: there is no run 77; `history` lists them\n"
    assert answer.out == "■ cancelled  run 1 of jobs:greet\n"


def test_json_has_the_runs(jobs, waiting):
    jobs("run", "greet")
    with sqlite3.connect(waiting / "var/jobs.db") as connection:
        connection.execute(
            "UPDATE jobs_run SET state = 'pending', finished = NULL, available_at = 0"
        )
    connection.close()
    (run,) = jobs("cancel", 1, "--json").json["runs"]
    assert (run["id"], run["state"]) == (1, "cancelled")


def test_where_nothing_has_run_there_is_nothing_to_cancel(jobs):
    answer = jobs("cancel", 1)
    assert (answer.code, answer.err) == (2, "error: there is no run 1: nothing has run yet\n")


@pytest.mark.parametrize("words", [[], ["greet"], ["1.5"]])
def test_what_is_no_number_is_wrong_use(jobs, words):
    assert jobs("cancel", *words).code == 2
