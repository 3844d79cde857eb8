"""Running schedulers take up changed files: by HUP, by command, by themselves."""

from __future__ import annotations

import signal

import pytest

from tests.cli.conftest import CONFIG

CHANGED = CONFIG.replace("enabled: true}", "enabled: true, parameters: {name: moon}}")


@pytest.fixture
def serving(started, project):
    process = started("--root", project, "infra", "jobs", "serve")
    process.line_with("scheduler_started")
    return process


def write(project, text):
    (project / "services/scheduler/config.yaml").write_text(text)


def test_hup_reads_the_configuration_again(serving, project):
    write(project, CHANGED)
    serving.signal(signal.SIGHUP)
    serving.line_with("configuration_reloaded")
    serving.signal(signal.SIGTERM)
    assert serving.end().code == 0


def test_a_broken_file_is_refused_with_its_line_and_the_scheduler_goes_on(serving, project):
    write(project, CONFIG + "  workers: many\n")
    serving.signal(signal.SIGHUP)
    assert "config.yaml:6: scheduler.workers" in serving.line_with("configuration_refused")
    write(project, CHANGED)
    serving.signal(signal.SIGHUP)
    serving.line_with("configuration_reloaded")


def test_the_command_reaches_a_running_scheduler(serving, project, jobs):
    write(project, CHANGED)
    answer = jobs("reload", "--note", "moon")
    assert answer.code == 0
    assert "asked 1 live scheduler" in answer.out
    serving.line_with("configuration_reloaded")
    assert "moon" in jobs("audit").out


def test_the_command_refuses_what_is_broken_here(jobs, project):
    write(project, CONFIG + "  workers: many\n")
    assert jobs("reload").code == 2


def test_a_watched_file_is_taken_up_by_itself(started, project):
    process = started("--root", project, "infra", "jobs", "serve", "--watch-config")
    process.line_with("watching_configuration")
    new = project / "services/scheduler/new.yaml"
    new.write_text(CHANGED)
    new.rename(project / "services/scheduler/config.yaml")  # as editors save
    process.line_with("configuration_reloaded")
