"""What the how-to guides show works: files, their tests, and every schedule they translate."""

from __future__ import annotations

import json
import os
import re
import smtplib
import sqlite3
import subprocess
import sys
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
import structlog

from systemprompt_jobs import Runtime
from systemprompt_jobs._calendar import parse
from systemprompt_jobs.builtin import intervals
from systemprompt_jobs.errors import ScheduleError
from systemprompt_jobs.model import State

GUIDES = Path(__file__).parents[1] / "docs" / "how-to"
MIGRATIONS = sorted(GUIDES.glob("migrate-from-*.md"))
TESTED = [
    GUIDES / "develop-a-plugin.md",
    GUIDES / "publish-a-plugin.md",
    GUIDES / "test-a-job.md",
    GUIDES / "write-a-schedule.md",
    GUIDES.parent / "tutorial" / "first-plugin.md",
]

FILE = re.compile(
    r"`([\w./-]+\.(?:py|toml|yaml))`[^`]*:\n\n```\w+\n(.*?)^```$", re.DOTALL | re.MULTILINE
)
"""A block of code under a sentence that ends with the name of its file."""
ROW = re.compile(r"^\| (.+) \| `(.+)` \| (.+) \|$", re.MULTILINE)

FIVE = re.compile(r"^\| `((?:[\d*/-]+ ){4}[\d*/-]+)` \| `(.+?)` \|", re.MULTILINE)

CHECK = """
from systemprompt_jobs import Runtime

def test_no_job_looks_like_a_mistake(tmp_path):
    runtime = Runtime(tmp_path, plugins={modules}, environ={{"SYSTEMPROMPT_PLUGINS": ""}})
    assert [*map(str, [*runtime.degraded, *runtime.lint()])] == []
"""

PLUGINS = ("-p", "no:cacheprovider", "-p", "systemprompt_jobs.testing.plugin")

each = partial(pytest.mark.parametrize, "page", ids=lambda page: page.stem)


def unpack(page, root):
    """Write the files that a page shows into `root`, and return their names."""
    files = FILE.findall(page.read_text("utf-8"))
    assert files, f"{page.name} shows no file"
    for name, text in files:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
        path.chmod(0o644)  # a plugin that others may write to is refused
    return [name for name, _ in files]


@pytest.fixture
def project(tmp_path):
    """Make a runtime of the project that a page shows."""
    made = []

    def make(page):
        unpack(GUIDES / page, tmp_path)
        made.append(Runtime(tmp_path, environ={"SYSTEMPROMPT_PLUGINS": ""}))
        return made[-1]

    yield make
    for runtime in made:
        runtime.stop()


def meaning(text):
    return (intervals.parse_schedule(text) or parse(text, "UTC")).describe()


@each(MIGRATIONS)
def test_each_translated_schedule_means_what_the_table_says(page):
    table = page.read_text("utf-8").partition("| which is |")[2].partition("\n\n")[0]
    rows = [row for row in ROW.findall(table) if not row[1].startswith(('"', "scheme", "solar"))]
    rows = [row for row in rows if "=" not in row[1]]
    assert len(rows) >= 6
    for _, text, means in rows:
        assert meaning(text) == means, text


@each([GUIDES / "migrate-from-cron.md", GUIDES / "migrate-from-airflow.md"])
def test_each_five_field_text_is_refused_and_its_translation_offered(page):
    pairs = FIVE.findall(page.read_text("utf-8"))
    assert len(pairs) >= 3
    for theirs, ours in pairs:
        with pytest.raises(ScheduleError, match=re.escape(f"try '{ours}'")):
            parse(theirs, "UTC")


@each(MIGRATIONS)
def test_the_example_is_a_project_without_a_fault(page, project):
    runtime = project(page.name)
    assert [*map(str, runtime.settings.problems)] == []
    assert runtime.degraded == ()
    assert runtime.lint() == []
    assert all(plan.enabled for plan in runtime.plans)


def test_cron_commands_run_and_a_failing_one_is_mailed(project, tmp_path, monkeypatch):
    mails = []
    monkeypatch.setattr(smtplib.SMTP, "__init__", lambda self, host: None)
    monkeypatch.setattr(smtplib.SMTP, "__exit__", lambda self, *args: None)
    monkeypatch.setattr(smtplib.SMTP, "send_message", lambda self, mail: mails.append(mail))
    script = tmp_path / "sync.sh"
    script.write_text('#!/bin/sh\necho "$(basename $0) done"; exit $(cat "$0.status")\n')
    script.chmod(0o755)
    status = tmp_path / "sync.sh.status"
    status.write_text("0")
    runtime = project("migrate-from-cron.md")
    values = {"command": str(script)}

    (good,) = runtime.run("sync", parameters=values)
    assert (good.state, good.message) == (State.SUCCEEDED, "sync.sh done")
    status.write_text("3")
    (bad,) = runtime.run("backup", parameters=values)
    assert (bad.state, bad.error) == (State.FAILED, "RuntimeError: exit status 3: sync.sh done")
    runtime.stop()
    assert [mail["Subject"] for mail in mails] == ["jobs:backup failed"]


@pytest.mark.parametrize(
    ("page", "job", "message"),
    [
        ("migrate-from-apscheduler.md", "cleanup", "would delete what is older than 14 days"),
        ("migrate-from-apscheduler.md", "poll", "polled"),
        ("migrate-from-celery-beat.md", "cleanup", "would delete what is older than 14 days"),
        ("migrate-from-celery-beat.md", "poll", "polled by "),
    ],
)
def test_the_jobs_of_an_example_run(project, page, job, message):
    (run,) = project(page).run(job)
    assert run.state is State.SUCCEEDED
    assert run.message.startswith(message)


def test_a_day_of_the_former_dag_is_loaded_by_hand(project):
    runtime = project("migrate-from-airflow.md")
    (run,) = runtime.run("daily_sales", parameters={"day": "2026-01-31"})
    assert (run.state, run.message, run.processed) == (State.SUCCEEDED, "2026-01-31: 49", 3)


@each(TESTED)
def test_the_tests_that_a_guide_shows_pass(page, tmp_path):
    files = [tmp_path / name for name in unpack(page, tmp_path)]
    tests = [file for file in files if file.name.startswith("test_")]
    assert tests
    jobs = [file for file in files if file.suffix == ".py" and "@job" in file.read_text("utf-8")]
    modules = [file.stem.replace("__init__", file.parent.name) for file in jobs]
    tests.append(tmp_path / "test_as_check_does.py")
    tests[-1].write_text(CHECK.format(modules=modules), "utf-8")
    packages = [file.parents[file.name == "__init__.py"] for file in files]
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", *PLUGINS, *tests],
        check=False,
        cwd=tmp_path,
        env=os.environ
        | {
            "PYTHONPATH": os.pathsep.join(map(str, [tmp_path, *packages])),
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",  # the shown tests need pytest and us alone
        },
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_attempts_of_a_guide_are_traced_in_worker_processes(tmp_path):
    unpack(GUIDES / "trace-runs.md", tmp_path)
    command = ["-m", "systemprompt_jobs.builtin.cli", "--root", str(tmp_path)]
    result = subprocess.run(
        [sys.executable, *command, "infra", "jobs", "run", "import_prices"],
        check=False,
        env=os.environ | {"SYSTEMPROMPT_PLUGINS": "opentelemetry"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    lines = map(json.loads, (tmp_path / "telemetry.jsonl").read_text("utf-8").splitlines())
    written = [*lines]
    spans = [line for line in written if "context" in line]
    failed, succeeded = [span for span in spans if span["name"] == "jobs:import_prices"]
    assert [span["parent_id"] for span in spans if span["name"] == "download"] == [
        span["context"]["span_id"] for span in (failed, succeeded)
    ]
    assert failed["attributes"]["error.type"] == "ConnectionError"
    assert succeeded["status"] == {"status_code": "UNSET"}
    assert "systemprompt_jobs.runs" in json.dumps([line for line in written if line not in spans])


def test_attempts_of_a_guide_are_measured_and_all_or_nothing(project, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runtime = project("wrap-every-attempt.md")
    good, bad = (runtime.run("settle", parameters={"amount": n})[0] for n in (10, 101))
    assert (good.state, bad.state) == (State.SUCCEEDED, State.FAILED)
    assert bad.error == "101 is more than there is"
    for run in (good, bad):
        (attempt,) = runtime.attempts(run)
        assert attempt.annotations["cpu_s"] >= 0
    with closing(sqlite3.connect(tmp_path / "app.db")) as database:
        assert database.execute("select amount from paid").fetchall() == [(10,)]


def test_the_counter_of_a_guide_counts_how_runs_end(tmp_path, monkeypatch):
    unpack(GUIDES / "count-runs.md", tmp_path)
    monkeypatch.syspath_prepend(tmp_path / "count-runs")
    (tmp_path / "jobs.py").write_text("from systemprompt_jobs import job\n@job\ndef a(): ...\n")
    config = tmp_path / "services" / "scheduler" / "config.yaml"
    config.parent.mkdir(parents=True)
    config.write_text("scheduler: {local_plugins: [jobs.py]}")
    environ = {"SYSTEMPROMPT_PLUGINS": ""}
    runtime = Runtime(tmp_path, plugins=["count_runs"], environ=environ)
    with structlog.testing.capture_logs() as logged, runtime:
        runtime.run("a")
        runtime.run("a")
    (line,) = [entry for entry in logged if entry["event"] == "runs counted"]
    assert (line["job"], line["state"], line["number"]) == ("jobs:a", "succeeded", 2)
