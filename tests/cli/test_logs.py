from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import signal
import subprocess

import pytest

from tests.cli.conftest import COMMAND

JOBS = """
import logging, os
from systemprompt_jobs import job

@job
def talk(ctx, *, gate: str = ""):
    ctx.progress(1, 4, "first")
    ctx.log.info("begun", odd="a\\x1b[2Jb")
    logging.getLogger("lib.rary").warning("slow")
    if gate:
        open(gate).read()
    ctx.progress(4, 4, "last")
    ctx.log.info("ended")
    return "talked"

@job
def silent():
    raise ValueError("no luck")
"""
CONFIG = "scheduler: {local_plugins: [jobs.py]}"


@pytest.fixture
def project(new_project):
    return new_project(JOBS, CONFIG)


@pytest.fixture
def gate(tmp_path):
    os.mkfifo(tmp_path / "gate")
    return tmp_path / "gate"


def without_times(text):
    return [re.sub(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ", "", line) for line in text.splitlines()]


LOGGED = ["info begun odd=a\\x1b[2Jb", "warning lib.rary: slow", "info ended"]


def test_it_prints_what_a_run_has_logged_with_control_characters_spelt_out(jobs):
    jobs("run", "talk")
    answer = jobs("logs", "1")
    assert (answer.code, without_times(answer.out)) == (0, LOGGED)


def test_json_has_each_attempt(jobs):
    jobs("run", "talk")
    (attempt,) = jobs("logs", "1", "--json").json["attempts"]
    assert attempt.keys() == {
        *("run_id", "fence", "number", "node", "started", "finished", "outcome", "message"),
        *("error", "traceback", "annotations", "log", "log_cut"),
    }
    assert (attempt["outcome"], attempt["message"], attempt["log_cut"]) == (
        "succeeded",
        "talked",
        0,
    )


def test_a_run_that_logged_nothing_or_never_began_says_so(jobs):
    jobs("run", "silent")
    assert jobs("logs", "1").err == "run 1 of jobs:silent has logged nothing\n"
    jobs("run", "talk", "--detach")
    assert jobs("logs", "2").err == "run 2 is pending: its function was never called\n"


@pytest.mark.parametrize("command", [["logs", "9"], ["logs", "9", "-f"], ["retry", "9"]])
def test_a_run_that_does_not_exist_is_wrong_use(jobs, command):
    answer = jobs(*command)
    assert answer.code == 2
    assert answer.err.startswith("error: there is no run 9; ")


@pytest.mark.parametrize("command", ["logs", "retry", "cancel"])
def test_what_is_no_number_of_a_run_is_wrong_use_and_is_told_where_to_find_one(jobs, command):
    answer = jobs(command, "greet")
    assert answer.code == 2
    assert "'greet' is not a valid run: write its number, as `history` shows it" in answer.err


def test_follow_and_json_do_not_go_together(jobs):
    assert jobs("logs", "1", "-f", "--json").code == 2


def test_it_follows_a_run_of_another_process_to_its_end(started, project, gate):
    options = ("--root", project, "infra", "jobs")
    running = started(*options, "run", "talk", "-p", f"gate={gate}")
    progress_line(running)
    follower = started(*options, "logs", "1", "-f")
    seen = [follower.popen.stdout.readline(), follower.popen.stdout.readline()]
    gate.write_text("")
    answer = follower.end()
    assert without_times("".join(seen) + answer.out) == LOGGED
    assert answer.code == 0
    assert running.end().code == 0


def test_progress_is_seen_in_status_history_and_show_while_it_runs(started, jobs, project, gate):
    running = started("--root", project, "infra", "jobs", "run", "talk", "-p", f"gate={gate}")
    assert "jobs:talk: 1/4 (25 %) first" in progress_line(running)
    assert "1/4 (25 %) first" in jobs("history").out
    assert "1/4 (25 %) first" in jobs("status").out
    assert "progress    1/4 (25 %) first" in jobs("show", "1").out
    (run,) = jobs("history", "--json").json["runs"]
    at = run["progress"].pop("at")
    assert run["progress"] == {"done": 1, "total": 4, "message": "first"}
    assert at.endswith("+00:00")
    gate.write_text("")
    assert running.end().code == 0
    assert "4/4 (100 %) last" in jobs("show", "1").out
    assert "4/4" not in jobs("history").out


def progress_line(process):
    for line in process.popen.stderr:
        if "25 %" in line:
            return line
    raise AssertionError("no progress was printed")


def test_a_terminal_has_a_bar_below_what_is_logged(terminal, project, gate):
    command = ("run", "talk", "-p", f"gate={gate}")
    running = terminal("--root", project, "infra", "jobs", *command)
    running.read_until("1/4")
    running.read_until("first")
    gate.write_text("")
    text = running.end().out
    assert "━" in text
    assert text.rstrip().endswith("talked")
    assert "\x1b[?25h" in text  # the cursor is back
    assert "a\\x1b[2Jb" in text
    assert "\x1b[2J" not in text


def test_with_a_bar_on_the_terminal_json_still_goes_to_standard_output(project, gate):
    master, slave = pty.openpty()
    command = [*COMMAND, "--root", project, "infra", "jobs", "run", "talk", "--json"]
    command += ["-p", f"gate={gate}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=slave, stderr=slave) as process:
        os.close(slave)
        seen = b""
        while b"1/4" not in seen:
            seen += os.read(master, 65536)
        gate.write_text("")
        with contextlib.suppress(OSError):  # the other side is closed
            while os.read(master, 65536):
                pass
        out = process.stdout.read()
    os.close(master)
    assert json.loads(out)["runs"][0]["state"] == "succeeded"


def test_ctrl_c_takes_the_bar_away(terminal, project, gate):
    running = terminal("--root", project, "infra", "jobs", "run", "talk", "-p", f"gate={gate}")
    running.read_until("1/4")
    running.popen.send_signal(signal.SIGINT)
    answer = running.end()
    assert answer.code == 130
    assert answer.out.index("\x1b[?25h") < answer.out.index("interrupted: the jobs are cut off")


def test_show_run_has_its_attempts_with_the_end_of_their_logs(jobs):
    jobs("run", "talk", "silent")
    out = jobs("show", "1").out
    assert "run 1 of jobs:talk: ✓ succeeded" in out
    assert "Attempt 1, " in out
    assert "warning lib.rary: slow" in out
    assert "ValueError: no luck" in jobs("status", "2").out
    shape = jobs("show", "2", "--json").json["run"]
    assert shape["attempts"][0]["traceback"].startswith("Traceback")


class TestDetach:
    def test_the_run_is_pending_and_its_number_is_printed(self, jobs):
        answer = jobs("run", "talk", "--detach")
        assert (answer.code, answer.out) == (0, "run 1 of jobs:talk is handed over\n")
        assert answer.err.startswith("no live scheduler has jobs:talk: ")
        assert jobs("history", "--json").json["runs"][0]["state"] == "pending"

    def test_json_has_the_pending_run(self, jobs):
        (run,) = jobs("run", "talk", "--detach", "--json").json["runs"]
        assert (run["id"], run["state"], run["trigger"]) == (1, "pending", "manual")

    def test_a_scheduler_that_has_the_job_takes_it(self, jobs, started, project):
        scheduler = started("--root", project, "infra", "jobs", "serve")
        scheduler.line_with("scheduler_started")
        answer = jobs("run", "talk", "--detach")
        assert (answer.code, answer.err) == (0, "")
        assert "run_succeeded" in scheduler.line_with("run_succeeded")

    @pytest.mark.parametrize("name", ["nosuch", "broken"])
    def test_an_unknown_or_degraded_job_is_wrong_use(self, cli, new_project, name):
        root = new_project(JOBS + "\n@job(schedule='x')\ndef broken(): ...\n", CONFIG)
        answer = cli("--root", root, "infra", "jobs", "run", name, "--detach")
        assert answer.code == 2
        assert cli("--root", root, "infra", "jobs", "history").out == "no runs yet\n"


class TestRetry:
    def test_it_runs_once_more_and_says_how_it_went(self, jobs):
        jobs("run", "silent")
        answer = jobs("retry", "1")
        assert answer.code == 1
        assert "error: jobs:silent: ValueError: no luck" in answer.err
        newest, _ = jobs("history", "--json").json["runs"]
        assert (newest["id"], newest["parent"]) == (2, 1)
        assert "repeats     run 1" in jobs("show", "2").out

    def test_with_detach_a_scheduler_takes_it(self, jobs):
        jobs("run", "silent")
        answer = jobs("retry", "1", "--detach")
        assert (answer.code, answer.out) == (0, "run 2 of jobs:silent is handed over\n")
