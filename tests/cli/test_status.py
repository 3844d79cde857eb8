from __future__ import annotations

import re
import signal
import sqlite3
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest

from tests.cli.conftest import CONFIG


def test_a_glance_as_json_has_the_documented_shape(jobs, project):
    jobs("run", "fail", "greet")
    answer = jobs("status", "--json").json
    assert answer.keys() == {
        *(
            "root",
            "database",
            "problem",
            "enabled",
            "nodes",
            "jobs",
            "running",
            "next_ticks",
            "counts",
        ),
        *("paused", "held", "troubled", "degraded", "orphaned", "lag"),
    }
    assert answer["root"] == str(project)
    assert answer["database"] == f"sqlite:///{project}/var/jobs.db"
    conditions = {"enabled": 2, "disabled": 1, "degraded": 0, "superseded": 0, "orphaned": 0}
    assert answer["jobs"] == conditions
    assert answer["counts"] == {"failed": 1, "succeeded": 1}
    assert [tick["job"] for tick in answer["next_ticks"]] == ["jobs:greet"]
    assert [run["state"] for run in answer["troubled"]] == ["failed"]
    assert (answer["nodes"], answer["running"], answer["degraded"]) == ([], [], [])


def test_a_glance_says_what_runs_is_due_and_went_wrong(jobs):
    jobs("run", "fail", "greet")
    answer = jobs("status")
    assert answer.code == 0
    assert "nodes      none live; start one: systemprompt infra jobs serve" in answer.out
    assert "jobs       2 enabled, 1 disabled" in answer.out
    assert "last 24 h  1 succeeded, 1 failed" in answer.out
    assert "jobs:greet" in answer.out.partition("Next\n")[2]
    assert "✗ failed" in answer.out.partition("Trouble\n")[2]


def test_a_glance_names_what_is_degraded(cli, degraded_project):
    assert "jobs:broken: schedule" in cli("--root", degraded_project, "infra", "jobs", "status").out


def test_a_glance_names_live_nodes_and_running_jobs(started, jobs, project, tmp_path):
    fifo(tmp_path / "gate", project)
    served = started("--root", project, "infra", "jobs", "serve")
    served.line_with("run_started")
    answer = jobs("status", "--json").json
    assert [node["workers"] for node in answer["nodes"]] == [10]
    assert [run["job"] for run in answer["running"]] == ["jobs:greet"]
    text = jobs("status").out
    assert f"1 live node: {answer['nodes'][0]['id']}" in text
    assert "▶ running" in text.partition("Running\n")[2]


def fifo(path, project):
    """Have the job `greet` run at start-up and wait until somebody writes to `path`."""
    import os

    os.mkfifo(path)
    (project / "jobs.py").write_text(
        "from systemprompt_jobs import job\n"
        "@job(run_on_startup=True)\n"
        f"def greet(): open({str(path)!r}).read()\n"
    )


def test_a_switched_off_scheduler_says_so(cli, new_project):
    root = new_project(config="scheduler: {enabled: false, local_plugins: [jobs.py]}")
    answer = cli("--root", root, "infra", "jobs", "status")
    assert "switched off: scheduler.enabled is false" in answer.out


@pytest.mark.parametrize("command", ["status", "show"])
def test_one_job_shows_each_value_and_who_set_it(jobs, command):
    out = jobs(command, "greet").out
    assert out.startswith("jobs:greet (enabled)\n  Say hello.\n  every 10 minutes, UTC\n")
    lines = [line.split() for line in out.splitlines()]
    assert ["enabled", "true", "config.yaml:5"] in lines
    assert ["schedule", "0", "*/10", "*", "*", "*", "*", "@job", "at", "jobs.py:5"] in lines
    assert ["enforce", "false", "default"] in lines
    assert len(re.findall("  in [0-9]|  now\n", out)) == 3, "three next ticks"


def test_one_job_shows_its_last_failure_with_the_traceback(jobs):
    jobs("run", "fail")
    failure = jobs("status", "fail").out.partition("Last failure: run 1, manual ")[2]
    assert "ValueError: it [red]broke[/red] \\x1b[2J in two lines" in failure
    assert 'jobs.py", line ' in failure


def test_one_job_as_json_has_what_list_has_and_more(jobs):
    jobs("run", "fail")
    job = jobs("status", "fail", "--json").json["job"]
    (listed, *_) = jobs("list", "--json").json["jobs"]
    assert job.items() >= listed.items()
    assert job.keys() - listed.keys() == {
        *("values", "next_ticks", "last_runs", "last_failure", "problem"),
    }
    assert job["values"]["enforce"]["layer"] == "default"
    assert job["values"]["schedule"]["layers"][0]["file"].endswith("jobs.py")
    assert job["last_runs"][0]["state"] == "failed"
    assert job["last_failure"]["traceback"].startswith("Traceback")


def test_one_job_says_why_it_does_not_run_at_start_up(cli, new_project):
    jobs = "from systemprompt_jobs import job\n@job(run_on_startup=True)\ndef greet(): ..."
    root = new_project(jobs, "scheduler: {local_plugins: [jobs.py]}")
    out = cli("--root", root, "infra", "jobs", "status", "greet").out
    assert "needs `enabled: true` in config.yaml" in out


def test_an_unknown_job_is_wrong_use_and_a_near_one_is_named(jobs):
    answer = jobs("status", "gret")
    assert answer.code == 2
    assert answer.err.startswith("error: there is no job 'gret'; did you mean ")
    assert "greet" in answer.err


def test_watching_draws_again_and_ctrl_c_ends_it(terminal, jobs, project):
    watching = terminal("--root", project, "infra", "jobs", "status", "--watch")
    watching.read_until("no runs")
    jobs("run", "greet")
    watching.read_until("1 succeeded")
    watching.popen.send_signal(signal.SIGINT)
    answer = watching.end()
    assert answer.code == 130
    assert "\x1b[?1049h" in answer.out, "a screen of its own"
    assert answer.out.count("\x1b[?1049l") == 1, "and the old one is back"
    assert "Traceback" not in answer.out


def test_watching_goes_on_while_the_database_cannot_be_used(terminal, jobs, project):
    jobs("run", "greet")
    database = project / "var/jobs.db"
    watching = terminal("--root", project, "infra", "jobs", "status", "--watch")
    watching.read_until("1 succeeded")
    database.rename(project / "away.db")
    database.mkdir()
    watching.read_until("error: ")
    database.rmdir()
    (project / "away.db").rename(database)
    jobs("run", "greet")
    watching.read_until("2 succeeded")


@pytest.mark.parametrize("option", [[], ["--json"]])
def test_where_no_terminal_is_there_is_nothing_to_watch(jobs, option):
    answer = jobs("status", "--watch", *option)
    assert (answer.code, answer.out) == (2, "")
    assert "--watch draws on a terminal" in answer.err


def test_a_glance_says_how_far_behind_the_schedulers_are(jobs, project, started):
    yearly = CONFIG.replace("job: greet", "job: greet, schedule: '0 0 5 1 1 *'")
    (project / "services/scheduler/config.yaml").write_text(yearly)
    scheduler = started("--root", project, "infra", "jobs", "serve")
    scheduler.line_with("scheduler_started")
    scheduler.signal(15)
    scheduler.end()
    assert jobs("status", "--json").json["lag"] == {"waiting": 0, "since": None}
    assert "lag        none: all that is due is taken" in jobs("status").out
    ago = int((datetime.now(UTC) - timedelta(hours=2, minutes=55)).timestamp() * 1_000_000)
    with closing(sqlite3.connect(project / "var/jobs.db", isolation_level=None)) as connection:
        connection.execute("UPDATE jobs_job SET next_tick = ? WHERE next_tick > 0", (ago,))
    lag = jobs("status", "--json").json["lag"]
    assert (lag["waiting"], datetime.fromisoformat(lag["since"]) < datetime.now(UTC)) == (1, True)
    assert "lag        1 due and not taken, the oldest for 2 h 5" in jobs("status").out
    jobs("pause", "greet")
    assert jobs("status", "--json").json["lag"]["waiting"] == 0


def test_a_glance_and_nodes_say_which_scheduler_refused_its_configuration(jobs, project, started):
    config = project / "services/scheduler/config.yaml"
    config.write_text(CONFIG + "  lease: 1s\n")
    scheduler = started("--root", project, "infra", "jobs", "serve")
    scheduler.line_with("scheduler_started")
    config.write_text(CONFIG + "  lease: 1s\n  workers: many\n")
    scheduler.signal(signal.SIGHUP)
    scheduler.line_with("configuration_refused")
    config.write_text(CONFIG)  # a machine whose own files are sound asks
    until(lambda: jobs("status").out, "scheduler.workers")
    for command in ("status", "nodes"):
        assert "Refused: the configuration before goes on" in jobs(command).out
    assert 'is "many"' in jobs("status", "--json").json["nodes"][0]["problem"]
    scheduler.signal(signal.SIGHUP)
    until(lambda: jobs("nodes", "--json").json["nodes"][0]["problem"] or "none left", "none left")


def until(ask, text):
    for _ in range(600):
        if text in (said := ask()):
            return said
        time.sleep(0.1)
    raise AssertionError(f"no {text!r} in {said}")
