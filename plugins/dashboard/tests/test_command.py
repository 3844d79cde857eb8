"""`systemprompt infra jobs dashboard`, as a process of its own, and its settings."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request

import pytest
from systemprompt_jobs_dashboard._serve import make_access, open_pages, read_settings

from plugins.dashboard.tests.conftest import CONFIG, TOKEN
from systemprompt_jobs import Runtime
from systemprompt_jobs.errors import ConfigurationError, UsageError

COMMAND = (
    *(sys.executable, "-c"),
    "import sys; from systemprompt_jobs.builtin.cli import main; sys.exit(main())",
)


def start(project, *options, command=("dashboard", "--port", "0"), **environ):
    return subprocess.Popen(
        [*COMMAND, "--root", project, "infra", "jobs", *command, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "SYSTEMPROMPT_PLUGINS": "", **environ},
    )


def test_serve_brings_the_pages_and_one_runtime_does_both(project):
    config = project / "services/scheduler/config.yaml"
    config.write_text(f"{CONFIG}  extensions: {{dashboard: {{port: 0}}}}\n")
    process = start(project, command=("serve", "--dashboard"), SYSTEMPROMPT_PLUGINS="dashboard")
    try:
        lines = iter(process.stdout.readline, "")
        line = next(line for line in lines if "dashboard_started" in line)
        address = re.search(r"http://127\.0\.0\.1:\d+/", line).group()
        assert "token" not in line
        assert next(line for line in lines if "scheduler_started" in line)
        with urllib.request.urlopen(f"{address}nodes", timeout=30) as answer:
            assert b"starts runs" in answer.read()
    finally:
        process.terminate()
        process.communicate(timeout=60)
    assert process.returncode == 0


def test_without_the_plugin_serve_says_what_to_install(project):
    process = start(project, command=("serve", "--dashboard"))
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "no plugin serves pages: pip install systemprompt-jobs-dashboard" in said


def test_a_port_that_is_taken_is_named(project):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"cannot listen on 127.0.0.1 port {port}: Address"):
            open_pages(Runtime(project), {"port": port})


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_prints_where_it_is_serves_and_ends_well(runtime, project, number):
    process = start(project)
    try:
        address = re.fullmatch(
            r"dashboard: (http://127\.0\.0\.1:\d+/)\n", process.stdout.readline()
        )
        token = process.stdout.readline()
        assert re.fullmatch(r"to act, log in with the token of this start: \S{32,}\n", token)
        with urllib.request.urlopen(address.group(1), timeout=30) as answer:
            assert b"jobs:greet" in answer.read()
    finally:
        process.send_signal(number)
        rest, _ = process.communicate(timeout=60)
    assert (process.returncode, rest) == (0, "")


def test_it_refuses_other_machines_without_a_token(project):
    process = start(project, "--host", "0.0.0.0")
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    assert (
        "error: the dashboard's host 0.0.0.0 lets other machines in: set SYSTEMPROMPT_JOBS_DASH"
        in said
    )


def test_a_token_of_the_environment_is_not_printed(project):
    process = start(project, SYSTEMPROMPT_JOBS_DASHBOARD_TOKEN=TOKEN)
    process.stdout.readline()
    process.terminate()
    rest, _ = process.communicate(timeout=60)
    assert rest == ""


def configure(project, section):
    config = project / "services/scheduler/config.yaml"
    config.write_text(f"{CONFIG}  extensions:\n    dashboard: {section}\n  unknown_jobs: warn\n")
    return read_settings(Runtime(project))


def test_a_token_may_stand_in_the_environment_that_the_configuration_names(project, monkeypatch):
    monkeypatch.setenv("JOBS_TOKEN", TOKEN)
    settings = configure(project, "{token: {env: JOBS_TOKEN}, allow_hosts: [jobs.example]}")
    access, made = make_access(settings | {"host": "0.0.0.0"})
    assert (access.token, made) == (TOKEN, False)
    assert "jobs.example" in access.hosts


def test_the_environments_token_wins_over_the_configurations(project, monkeypatch):
    monkeypatch.setenv("SYSTEMPROMPT_JOBS_DASHBOARD_TOKEN", TOKEN)
    assert configure(project, "{host: localhost, port: 0}")["token"] == TOKEN


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ("{tokn: x}", "extensions.dashboard.tokn: is no setting; there is host, port, token"),
        ("{port: 70000}", "extensions.dashboard.port: is 70000: write a number up to 65535"),
        ("{port: http}", "extensions.dashboard.port: is 'http'"),
        ("{allow_hosts: a.example}", "extensions.dashboard.allow_hosts: is no list"),
        ("{allow_host: [a]}", "extensions.dashboard.allow_host: is no setting"),
    ],
)
def test_a_wrong_setting_is_a_mistake_of_the_configuration(project, section, said):
    configure(project, section)
    with pytest.raises(ConfigurationError, match=said) as caught:
        Runtime(project, plugins=["dashboard"]).plans  # noqa: B018
    (problem,) = caught.value.problems
    assert problem.place.file == project / "services/scheduler/config.yaml"
