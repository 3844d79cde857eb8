from __future__ import annotations

import json
import os
import queue
import signal

import pytest

from systemprompt_jobs.builtin.cli import _serve
from systemprompt_jobs.errors import StoreError, StoreUnusableError
from tests.cli.conftest import events

STOPS = [signal.SIGTERM, signal.SIGINT]


@pytest.fixture
def waiting(new_project, tmp_path):
    """Make a project whose job starts with the scheduler and ends when `gate` is written to."""
    os.mkfifo(tmp_path / "gate")
    jobs = (
        "from systemprompt_jobs import job\n"
        "@job(run_on_startup=True)\n"
        f"def greet(): return open({str(tmp_path / 'gate')!r}).read()\n"
    )
    return new_project(jobs)


@pytest.mark.parametrize("number", STOPS)
def test_a_signal_stops_it_with_exit_0(started, new_project, number):
    project = new_project(config="scheduler: {}")  # no job that might be due just now
    process = started("--root", project, "infra", "jobs", "serve")
    line = process.line_with("scheduler_started")
    assert list(json.loads(line))[:3] == ["timestamp", "level", "event"]
    process.signal(number)
    answer = process.end()
    assert (answer.code, answer.err) == (0, "")
    assert events(answer.out) == ["scheduler_stopping", "node_left", "scheduler_stopped"]


def test_running_jobs_may_end(started, waiting, tmp_path):
    process = started("--root", waiting, "infra", "jobs", "serve")
    process.line_with("run_started")
    process.signal(signal.SIGTERM)
    process.line_with("scheduler_stopping")
    (tmp_path / "gate").write_text("done")
    answer = process.end()
    assert answer.code == 0
    assert events(answer.out) == ["run_succeeded", "node_left", "scheduler_stopped"]


def test_without_a_project_it_refuses(started):
    answer = started("infra", "jobs", "serve").end()
    assert answer.code == 2
    assert "it has neither services/scheduler/config.yaml nor profile.yaml" in answer.err
    assert "`systemprompt infra jobs init DIR` makes one" in answer.err


def test_wrong_configuration_is_exit_2_with_all_mistakes(started, new_project):
    root = new_project(config="scheduler:\n  workers: many\n  timezone: Nowhere/City\n")
    answer = started("--root", root, "infra", "jobs", "serve").end()
    first, second, last = answer.err.splitlines()
    assert answer.code == 2
    assert first.startswith(f"{root}/services/scheduler/config.yaml:2: scheduler.workers: ")
    assert second.startswith(f"{root}/services/scheduler/config.yaml:3: scheduler.timezone: ")
    assert last == "error: 2 mistakes in the configuration; nothing was started"
    assert not (root / "var").exists()


def test_a_database_that_waiting_does_not_mend_is_exit_3(started, project):
    (project / "var/jobs.db").mkdir(parents=True)
    answer = started("--root", project, "infra", "jobs", "serve").end()
    assert answer.code == 3
    assert answer.err.startswith("error: the database path ")


def test_strict_refuses_while_something_is_degraded(started, degraded_project):
    answer = started("--root", degraded_project, "--strict", "infra", "jobs", "serve").end()
    assert answer.code == 1
    assert "jobs:broken" in answer.err


def test_degraded_plugins_and_warnings_are_logged_and_the_others_run(started, degraded_project):
    (degraded_project / "profile.yml").touch()
    process = started("--root", degraded_project, "infra", "jobs", "serve")
    assert "profile.yml" in process.line_with("configuration_warning")
    assert "jobs:broken" in process.line_with("plugin_failed")
    process.signal(signal.SIGTERM)
    assert process.end().code == 0


def test_the_first_screen_explains_itself_on_a_terminal(terminal, project):
    shown = terminal("--root", project, "infra", "jobs", "serve")
    text = shown.read_until("scheduler_started")
    assert "times are UTC\r\n" in text
    assert f"  project   {project}\r\n" in text
    assert "  database  sqlite:///var/jobs.db\r\n" in text
    assert "  jobs      2 enabled, 1 disabled\r\n" in text
    assert "  next      jobs:greet " in text
    assert "Ctrl-C stops; running jobs have 30 s to end" in text
    shown.popen.send_signal(signal.SIGINT)
    assert shown.end().code == 0


def test_log_format_decides_where_no_terminal_reads(started, project):
    process = started("--root", project, "--log-format", "human", "infra", "jobs", "serve")
    process.line_with("times are UTC")
    line = process.line_with("scheduler_started")
    assert "[info" in line
    process.signal(signal.SIGTERM)
    assert process.end().code == 0


def test_a_terminal_gets_json_if_asked_for(terminal, project):
    shown = terminal("--root", project, "--log-format", "json", "infra", "jobs", "serve")
    first = shown.read_until("scheduler_started").splitlines()[0]
    shown.popen.send_signal(signal.SIGTERM)
    answer = shown.end()
    assert first.startswith('{"timestamp": ')
    assert answer.code == 0


def test_no_jobs_and_a_switched_off_scheduler_are_said(started, new_project):
    root = new_project(config="scheduler: {enabled: false}")
    process = started("--root", root, "--log-format", "human", "infra", "jobs", "serve")
    process.line_with("jobs      none")
    process.line_with("next      nothing is scheduled")
    process.line_with("switched off: scheduler.enabled is false")
    process.line_with("scheduler_started")
    process.signal(signal.SIGTERM)
    assert process.end().code == 0


class Database:
    """A runtime whose database comes back after `failures` tries."""

    def __init__(self, failures: int, error: Exception) -> None:
        self.failures, self.error = failures, error

    def start(self) -> None:
        self.failures -= 1
        if self.failures >= 0:
            raise self.error


def test_a_database_that_may_come_back_is_waited_for(monkeypatch, capsys):
    monkeypatch.setattr(_serve, "_FIRST_PAUSE_S", 0.001)
    runtime = Database(3, StoreError("locked by another process"))
    assert _serve._start(runtime, queue.SimpleQueue()) is True
    assert runtime.failures == -1
    assert capsys.readouterr().out.count("locked by another process") == 3


def test_a_signal_ends_the_waiting():
    signals = queue.SimpleQueue()
    signals.put(signal.SIGTERM)
    assert _serve._start(Database(10**9, StoreError("gone")), signals) is False


def test_what_cannot_come_back_is_not_waited_for():
    with pytest.raises(StoreUnusableError):
        _serve._start(Database(1, StoreUnusableError("a folder")), queue.SimpleQueue())


def test_pauses_grow_up_to_half_a_minute():
    pauses = _serve._pauses()
    assert [next(pauses) for _ in range(9)] == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]
