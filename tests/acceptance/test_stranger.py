"""A stranger's day: writes a plugin, installs it, overrides it, counts it, kills it, finds all.

Real: the packages that pip builds and installs, the processes, the signals, the database.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import sqlite3
import subprocess
import sys
import sysconfig
import threading
import venv
from pathlib import Path

import pytest

PATIENCE_S = 180

PYPROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "acme-reports"
version = "1.2.3"
dependencies = ["systemprompt-jobs"]

[project.entry-points.systemprompt_jobs]
acme-reports = "acme_reports"

[tool.hatch.build.targets.wheel]
packages = ["acme_reports.py"]
only-include = ["acme_reports.py"]
"""

PLUGIN = '''
"""Reports, as a stranger writes them."""

import threading
from pathlib import Path

from systemprompt_jobs import hookimpl, job


@job(schedule="0 0 3 * * *")
def report(ctx, *, customer: str = "nobody"):
    """Write the report of one customer."""
    ctx.log.info("writing", customer=customer)
    return f"report for {customer}"


@job
def broken():
    """Fail, always."""
    raise RuntimeError("the printer is on fire")


@job(run_on_startup=True)
def slow():
    """Take longer than anybody wants to wait."""
    threading.Event().wait(600)


@hookimpl
def run_succeeded(run, report):
    with Path("counted.txt").open("a") as file:
        file.write(f"{run.id}\\n")
'''

CONFIG = """
scheduler:
  lease: 3s
  jobs:
    - extension: acme-reports
      job: report
      schedule: "* * * * * *"
      parameters: {customer: acme}
    - {extension: acme-reports, job: slow, enabled: true}
"""


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    """Return a folder with an environment in which pip has installed the stranger's plugin.

    The environment borrows the libraries of the one that runs the tests: what is tried here is
    the plugin's installation, not PyPI.
    """
    folder = tmp_path_factory.mktemp("machine")
    source = folder / "acme-reports"
    source.mkdir()
    (source / "pyproject.toml").write_text(PYPROJECT, encoding="utf-8")
    (source / "acme_reports.py").write_text(PLUGIN, encoding="utf-8")
    venv.create(folder / "venv", with_pip=False, symlinks=True)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder / "venv")}))
    (site / "borrowed.pth").write_text(
        f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n", encoding="utf-8"
    )
    python = folder / "venv" / "bin" / "python"
    subprocess.run(
        [
            *(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
            *("--no-deps", "--no-build-isolation", source),
        ],
        check=True,
    )
    return folder


@pytest.fixture
def project(machine, tmp_path):
    """Return the stranger's project and the means to run commands in it."""
    (tmp_path / "services" / "scheduler").mkdir(parents=True)
    (tmp_path / "services" / "scheduler" / "config.yaml").write_text(CONFIG, encoding="utf-8")
    return Project(machine / "venv" / "bin" / "python", tmp_path)


class Project:
    def __init__(self, python, root):
        self.root = root
        self.command = [
            *(str(python), "-m", "systemprompt_jobs.builtin.cli", "--log-format", "json"),
            *("infra", "jobs"),
        ]
        self.environ = {**os.environ, "SYSTEMPROMPT_PLUGINS": "acme-reports"}

    def run(self, *arguments):
        return subprocess.run(
            [*self.command, *arguments],
            cwd=self.root,
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )

    def json(self, *arguments):
        done = self.run(*arguments, "--json")
        assert done.stderr == "" or done.returncode, done.stderr
        return json.loads(done.stdout)

    def serve(self):
        return Scheduler(
            subprocess.Popen(
                [*self.command, "serve"],
                cwd=self.root,
                env=self.environ,
                stdout=subprocess.PIPE,
                text=True,
            )
        )


class Scheduler:
    """A scheduler process and its log, line by line."""

    def __init__(self, process):
        self.process = process
        self.events = []
        self._lines = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def until(self, event, **fields):
        """Wait for a log line with this event and these fields."""
        while True:
            line = self._lines.get(timeout=PATIENCE_S)
            assert line is not None, f"the scheduler ended before {event}: {self.events}"
            found = json.loads(line)
            self.events.append(found)
            if found["event"] == event and fields.items() <= found.items():
                return found

    def end(self, number):
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_S)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


def test_the_installed_plugin_is_listed_with_its_version(project):
    listed = {job["id"]: job for job in project.json("list")["jobs"]}
    report = listed["acme-reports:report"]
    assert report["distribution"] == "acme-reports"
    assert report["version"] == "1.2.3"
    assert report["schedule"] == "* * * * * *"  # the operator's, not the author's
    assert report["description"] == "Write the report of one customer."
    assert listed["acme-reports:slow"]["starts_up"] is True


def test_a_failure_is_explained(project):
    done = project.run("run", "broken")
    assert done.returncode == 1
    assert "the printer is on fire" in done.stdout + done.stderr
    shown = project.run("status", "broken").stdout
    assert "RuntimeError: the printer is on fire" in shown
    assert "acme_reports.py" in shown


def test_everything_is_found_again_after_a_kill(project):
    with project.serve() as first:
        first.until("run_started", job="acme-reports:slow", trigger="startup")
        first.until("run_succeeded", job="acme-reports:report")
        first.until("run_succeeded", job="acme-reports:report")
        assert first.end(signal.SIGKILL) == -signal.SIGKILL

    with project.serve() as second:
        lost = second.until("run_lost", job="acme-reports:slow")
        second.until("run_succeeded", job="acme-reports:report")
        second.process.send_signal(signal.SIGTERM)
        second.until("scheduler_stopping")
        second.process.send_signal(signal.SIGTERM)  # the slow job would take ten minutes
        assert second.process.wait(PATIENCE_S) == 130

    history = project.json("history", "-n", "1000")["runs"]
    by_id = {run["id"]: run for run in history}
    assert by_id[lost["run"]]["state"] == "lost"
    for event in first.events + second.events:
        if event["event"] == "run_succeeded":
            assert by_id[event["run"]]["state"] == "succeeded"
            assert by_id[event["run"]]["message"] == "report for acme"
    ticks = [run["tick"] for run in history if run["tick"]]
    assert len(ticks) == len(set(ticks))
    assert {run["version"] for run in history} == {"1.2.3"}


def test_a_drain_finishes_what_runs_exits_0_and_each_run_was_counted_once(project):
    config = project.root / "services/scheduler/config.yaml"
    config.write_text(CONFIG.replace("job: slow, enabled: true", "job: slow"), encoding="utf-8")
    with project.serve() as scheduler:
        for _ in range(2):
            scheduler.until("run_succeeded", job="acme-reports:report")
        assert scheduler.end(signal.SIGTERM) == 0
        scheduler.until("scheduler_stopped")
    runs = project.json("history", "-n", "1000")["runs"]
    assert not {run["state"] for run in runs} & {
        "claimed",
        "running",
        "cancelled",
        "failed",
        "lost",
    }
    recorded = [run["id"] for run in reversed(runs) if run["state"] == "succeeded"]
    counted = (project.root / "counted.txt").read_text().split()
    assert sorted(map(int, counted)) == recorded


def test_the_demo_deletes_exactly_the_expired_rows(tmp_path):
    """What `make run` shows."""
    create = Path(__file__).parents[2] / "docs" / "demo" / "create.py"
    subprocess.run([sys.executable, create, tmp_path], check=True, capture_output=True)
    command = [sys.executable, "-m", "systemprompt_jobs.builtin.cli", "--log-format", "json"]
    command += ["--root", str(tmp_path), "infra", "jobs", "serve"]
    with Scheduler(subprocess.Popen(command, stdout=subprocess.PIPE, text=True)) as scheduler:
        done = scheduler.until("run_succeeded", job="maintenance:cleanup", trigger="startup")
        assert scheduler.end(signal.SIGTERM) == 0
    assert done["message"] == "deleted 501 rows of sessions, 30 of login_attempts"
    connection = sqlite3.connect(tmp_path / "var" / "app.db")
    assert connection.execute("SELECT count(*) FROM sessions").fetchone() == (499,)
    assert connection.execute("SELECT count(*) FROM login_attempts").fetchone() == (30,)
    connection.close()
