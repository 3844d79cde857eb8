from __future__ import annotations

import os
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest


def audit(project):
    with sqlite3.connect(project / "var/jobs.db") as connection:
        rows = connection.execute("SELECT who, action, subject FROM jobs_audit").fetchall()
    connection.close()
    return rows


def test_one_line_says_how_each_run_went(jobs):
    answer = jobs("run", "greet")
    assert answer.code == 0
    line = answer.out.splitlines()[-1]
    assert line.startswith("✓ succeeded  jobs:greet  ")
    assert line.endswith(" ms  Hello, world! enforce=False")


def test_a_failure_is_exit_1_with_error_and_traceback_on_stderr(jobs):
    answer = jobs("run", "fail", "greet")
    assert answer.code == 1
    assert answer.out.startswith("printed by the job\n✗ failed  jobs:fail  ")
    assert "✓ succeeded  jobs:greet" in answer.out
    first, second, *rest = answer.err[answer.err.index("error:") :].splitlines()
    assert first == "error: jobs:fail: ValueError: it [red]broke[/red] \\x1b[2J in two lines"
    assert second == "    Traceback (most recent call last):"
    assert rest[-2:] == ["    ValueError: it [red]broke[/red] \\x1b[2J", "    in two lines"]


def test_json_has_one_shape_for_all_and_nothing_else_on_stdout(jobs):
    answer = jobs("run", "fail", "greet", "--json")
    assert answer.code == 1
    failed, greeted = answer.json["runs"]
    assert (
        failed.keys()
        == greeted.keys()
        == {
            *(
                "id",
                "job",
                "state",
                "reason",
                "trigger",
                "tick",
                "due",
                "last_tick",
                "count",
                "attempt",
            ),
            *("node", "parameters", "enforce", "created", "started", "finished", "duration_s"),
            *("message", "processed", "failed", "error", "distribution", "version", "traceback"),
            *("max_attempts", "attempts"),
            *("parent", "progress"),
        }
    )
    assert (failed["job"], failed["state"], failed["trigger"]) == ("jobs:fail", "failed", "manual")
    assert failed["traceback"].startswith("Traceback")
    (attempt,) = failed["attempts"]
    assert (attempt["number"], attempt["outcome"]) == (1, "failed")
    assert attempt["traceback"] == failed["traceback"]
    assert (greeted["state"], greeted["traceback"]) == ("succeeded", "")
    assert "printed by the job" in answer.err


def test_what_jobs_log_is_on_stderr_and_the_scheduler_keeps_quiet(jobs):
    err = jobs("run", "greet", "fail").err
    assert "logged_by_the_job" in err
    assert "run_" not in err


def test_parameters_are_read_as_yaml(cli, new_project):
    root = new_project(
        "from systemprompt_jobs import job\n"
        "@job\n"
        "def show(*, n: int, names: list[str], text: str): return f'{n!r} {names!r} {text!r}'\n",
        "scheduler: {local_plugins: [jobs.py]}",
    )
    answer = cli(
        *("--root", root, "infra", "jobs", "run", "show"),
        *("-p", "n=3", "-p", "names=[a, b]", "--parameter", "text=x=y"),
    )
    assert "3 ['a', 'b'] 'x=y'" in answer.out


@pytest.mark.parametrize("text", ["name", "=x"])
def test_a_parameter_that_is_no_pair_is_wrong_use(jobs, text):
    answer = jobs("run", "greet", "-p", text)
    assert answer.code == 2
    assert answer.err.startswith(f"error: -p {text!r}: write it as key=value\n")


def test_a_parameter_that_the_job_does_not_take_is_wrong_use_and_nothing_runs(jobs):
    answer = jobs("run", "greet", "fail", "-p", "name=x")
    assert answer.code == 2
    assert answer.err.startswith("error: jobs:fail: ")
    assert jobs("history").out == "no runs yet\n"


@pytest.mark.parametrize(("option", "said"), [("--enforce", "True"), ("--no-enforce", "False")])
def test_enforce_replaces_what_is_configured(cli, new_project, option, said):
    config = """
scheduler:
  local_plugins: [jobs.py]
  jobs: [{extension: jobs, job: greet, enforce: %s}]
"""
    root = new_project(config=config % ("true" if said == "False" else "false"))
    assert f"enforce={said}" in cli("--root", root, "infra", "jobs", "run", "greet", option).out


def test_a_disabled_job_runs_by_hand_and_the_command_says_so(jobs):
    answer = jobs("run", "off")
    assert answer.code == 0
    assert answer.err == "jobs:off is disabled; run by hand all the same\n"


def test_all_runs_every_enabled_job_once(jobs):
    answer = jobs("run", "--all", "greet", "--json")
    assert [run["job"] for run in answer.json["runs"]] == ["jobs:greet", "jobs:fail"]
    assert "left out, disabled: jobs:off\n" in answer.err


def test_a_tag_selects(jobs):
    answer = jobs("run", "--tag", "polite", "--json")
    assert (answer.code, [run["job"] for run in answer.json["runs"]]) == (0, ["jobs:greet"])


def test_all_runs_the_others_and_exits_1_where_a_job_is_degraded(cli, degraded_project):
    answer = cli("--root", degraded_project, "infra", "jobs", "run", "--all", "--json")
    assert answer.code == 1
    assert "jobs:broken" not in {run["job"] for run in answer.json["runs"]}
    assert "left out, degraded: jobs:broken\n" in answer.err


def test_a_degraded_job_by_name_is_wrong_use(cli, degraded_project):
    answer = cli("--root", degraded_project, "infra", "jobs", "run", "broken")
    assert answer.code == 2
    assert answer.err.startswith("error: the job jobs:broken is degraded: ")


def test_strict_refuses_to_run_while_something_is_degraded(cli, degraded_project):
    answer = cli("--root", degraded_project, "--strict", "infra", "jobs", "run", "greet")
    assert answer.code == 1
    assert "jobs:broken" in answer.err
    assert answer.err.endswith("error: something is degraded, and --strict refuses to start\n")
    assert not (degraded_project / "var").exists()


def test_no_job_at_all_is_wrong_use(jobs):
    answer = jobs("run")
    assert answer.code == 2
    assert answer.err.startswith("error: which jobs? name some, or say --all or --tag T\n")


def test_nothing_left_to_run_is_exit_1(cli, new_project):
    root = new_project(config="scheduler: {local_plugins: [jobs.py], unlisted_jobs: ignore}")
    answer = cli("--root", root, "infra", "jobs", "run", "--all")
    assert (answer.code, answer.err.splitlines()[-1]) == (1, "error: no job is left to run")


def test_an_unknown_job_is_wrong_use_and_nothing_runs(jobs):
    answer = jobs("run", "greet", "fial")
    assert answer.code == 2
    assert "did you mean" in answer.err
    assert jobs("history").out == "no runs yet\n"


def test_without_a_project_it_refuses(cli):
    answer = cli("infra", "jobs", "run", "greet")
    assert answer.code == 2
    assert answer.err.startswith(f"error: no project in {Path.cwd()}: ")


def test_a_database_that_cannot_be_used_is_exit_3(jobs, project):
    (project / "var/jobs.db").mkdir(parents=True)
    answer = jobs("run", "greet")
    assert answer.code == 3
    assert answer.err.startswith("error: the database path ")


def test_the_audit_says_who(jobs, project, monkeypatch):
    monkeypatch.setenv("LOGNAME", "ada")
    jobs("run", "greet")
    ((who, action, subject),) = audit(project)
    assert who == f"ada@{os.uname().nodename}"
    assert (action, subject) == ("run", "jobs:greet")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_cuts_the_run_off_and_records_it(started, cli, new_project, tmp_path, number):
    os.mkfifo(tmp_path / "gate")
    root = new_project(
        "from systemprompt_jobs import job\n"
        "@job\n"
        "def wait():\n"
        "    print('begun', flush=True)\n"
        f"    open({str(tmp_path / 'gate')!r}).read()\n",
        "scheduler: {local_plugins: [jobs.py]}",
    )
    process = started("--root", root, "infra", "jobs", "run", "wait")
    process.line_with("begun")
    process.signal(number)
    answer = process.end()
    assert answer.code == 130
    assert answer.err == "interrupted: the jobs are cut off\n"
    (run,) = cli("--root", root, "infra", "jobs", "history", "--json").json["runs"]
    assert run["state"] == "cancelled"


def test_a_signal_that_reaches_another_thread_is_heard_too(started, new_project):
    root = new_project(
        "import signal, threading\n"
        "from systemprompt_jobs import job\n"
        "@job\n"
        "def wait(ctx):\n"
        "    signal.pthread_kill(threading.get_ident(), signal.SIGTERM)\n"
        "    ctx.sleep(3600)\n",
        "scheduler: {local_plugins: [jobs.py]}",
    )
    answer = started("--root", root, "infra", "jobs", "run", "wait").end()
    assert (answer.code, answer.err) == (130, "interrupted: the jobs are cut off\n")


TICKS = """
from systemprompt_jobs import hookimpl, job


@job(schedule="0 30 1 * * *", timezone="Europe/Berlin")
def berlin(ctx):
    "Say the tick."
    return f"{ctx.tick:%m-%d %H:%M} {ctx.enforce}"


@job(timezone="Asia/Tokyo")
def tokyo(ctx):
    "Say the tick."
    return f"{ctx.tick:%m-%d %H:%M} {ctx.enforce}"


@hookimpl
def run_succeeded(run, report):
    raise ValueError(report.message)
"""


def test_at_tells_the_job_its_tick_in_its_own_zone(cli, new_project):
    root = new_project(TICKS, "scheduler: {local_plugins: [jobs.py]}")
    call = ("--root", root, "infra", "jobs")
    answer = cli(*call, "run", "berlin", "--at", "2026-03-29T03:30", "--dry-run", "--json")
    (run,) = answer.json["runs"]
    assert (run["message"], run["trigger"]) == ("03-29 01:30 False", "manual")
    assert run["tick"] == "2026-03-29T01:30:00+00:00"
    assert "03-29 01:30 manual" in cli(*call, "history").out
    both = cli(*call, "run", "berlin", "tokyo", "--at", "2026-03-29T03:30")
    assert both.code == 2
    assert "several time zones (Asia/Tokyo, Europe/Berlin): add an offset, as in" in both.err
    offset = cli(*call, "run", "berlin", "tokyo", "--at", "2026-03-29T03:30+02:00")
    assert offset.out.count("03-29 01:30 False") == 2
    assert cli(*call, "run", "berlin", "--at", "soon").code == 2


def test_a_run_by_hand_is_not_taken_for_the_tick_that_it_was_told(cli, new_project):
    root = new_project(TICKS, "scheduler: {local_plugins: [jobs.py]}")
    call = ("--root", root, "infra", "jobs")
    cli(*call, "run", "berlin", "--at", "2026-03-28T01:30")
    assert cli(*call, "explain", "berlin", "--at", "2026-03-28T01:30", "--json").json["run"] is None
    assert cli(*call, "history", "--since", "1h", "--json").json["runs"] != []
    assert cli(*call, "history", "--until", "2026-04-01", "--json").json["runs"] == []


def test_trace_hooks_names_plugin_fields_answer_and_error_of_each_call(cli, new_project):
    root = new_project(TICKS, "scheduler: {local_plugins: [jobs.py]}")
    answer = cli("--root", root, "infra", "jobs", "run", "tokyo", "--at", "2026-03-29",
                 "--trace-hooks")  # fmt: skip
    lines = [line for line in answer.err.splitlines() if line.startswith("hook ")]
    calls = [line.partition(" ms  ")[2] for line in lines]
    started = "core.logs  run_started(run=run 1 of jobs:tokyo, running)"
    failed = "jobs  run_succeeded(run=run 1 of jobs:tokyo, succeeded, report=succeeded "
    (raised,) = [call for call in calls if call.startswith(failed)]
    assert raised.endswith(") raised ValueError: 03-28 15:00 False")
    assert calls.index(started) < calls.index(raised)
    (made,) = [call for call in calls if "make_executor(kind='threads'" in call]
    assert "core.processes, core.coroutines, core.threads  make_executor" in made
    assert " -> <" in made


def test_a_run_that_is_refused_for_overlap_is_exit_1(jobs, project):
    jobs("run", "greet")
    with closing(sqlite3.connect(project / "var/jobs.db")) as connection, connection:
        connection.execute(
            "INSERT INTO jobs_slot (key, n, run_id, fence) VALUES ('overlap:jobs:greet', 0, 1, 1)"
        )
    answer = jobs("run", "greet")
    assert answer.code == 1
    assert answer.out.startswith("- skipped: overlap  jobs:greet")


def test_a_job_that_finds_nothing_to_do_is_exit_0_and_no_trouble(cli, new_project):
    root = new_project(
        "from systemprompt_jobs import Skip, job\n@job\ndef idle():\n    raise Skip('no orders')\n",
        "scheduler: {local_plugins: [jobs.py]}\n",
    )
    answer = cli("--root", root, "infra", "jobs", "run", "idle")
    assert answer.code == 0
    assert answer.out.startswith("- skipped: job  jobs:idle  ")
    assert answer.out.endswith("no orders\n")
    status = cli("--root", root, "infra", "jobs", "status", "--json").json
    assert (status["counts"], status["troubled"]) == ({"skipped": 1}, [])
