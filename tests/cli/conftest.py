from __future__ import annotations

import fcntl
import json
import logging
import os
import pty
import struct
import subprocess
import sys
import termios
import threading
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
import structlog

from systemprompt_jobs.builtin.cli import main

if TYPE_CHECKING:
    import signal
    from pathlib import Path

COMMAND = (
    sys.executable,
    "-c",
    "import sys; from systemprompt_jobs.builtin.cli import command_line; sys.exit(command_line())",
)
JOBS = '''
from systemprompt_jobs import JobResult, job


@job(
    schedule="0 */10 * * * *",
    tags=["polite"],
    parameters={"name": "world"},
    silence=["dry-run"],
)
def greet(ctx, *, name: str) -> str:
    """Say hello."""
    print("printed by the job")
    ctx.log.info("logged_by_the_job")
    return f"Hello, {name}! enforce={ctx.enforce}"


@job(tags=["rude"])
def fail():
    """Fail always."""
    raise ValueError("it [red]broke[/red] \\x1b[2J\\nin two lines")


@job(schedule="0 0 3 * * *", enabled=False, tags=["polite"])
def off():
    """Do nothing."""
'''
PATIENCE_S = 180
CONFIG = """
scheduler:
  local_plugins: [jobs.py]
  jobs:
    - {extension: jobs, job: greet, enabled: true}
"""
DEGRADED = '\n@job(schedule="not a schedule")\ndef broken(): ...\n'


def events(text):
    """Return the events of a log in JSON, without what a busy machine may add to them."""
    names = [json.loads(line)["event"] for line in text.splitlines()]
    return [name for name in names if name != "process_stalled"]


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str = ""

    @property
    def json(self):
        return json.loads(self.out)


@pytest.fixture(autouse=True)
def _alone(monkeypatch, tmp_path):
    """Neither the installed plugins nor what surrounds the test has a say."""
    for name in [*os.environ]:
        if name.startswith(("SYSTEMPROMPT_", "NO_COLOR", "FORCE_COLOR", "COLUMNS")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("SYSTEMPROMPT_PLUGINS", "")
    monkeypatch.setenv("TERM", "xterm-256color")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")


@pytest.fixture
def project(tmp_path):
    """Make a project with a job that greets, one that fails and one that is disabled."""
    return make_project(tmp_path / "project")


@pytest.fixture
def degraded_project(tmp_path):
    """Make the same with one more job, whose schedule does not parse."""
    return make_project(tmp_path / "project", JOBS + DEGRADED)


@pytest.fixture
def new_project(tmp_path):
    """Return a function that makes a project of the given `jobs.py` and `config.yaml`."""
    return lambda jobs=JOBS, config=CONFIG: make_project(tmp_path / "project", jobs, config)


def make_project(root: Path, jobs: str = JOBS, config: str = CONFIG) -> Path:
    (root / "services/scheduler").mkdir(parents=True)
    (root / "services/scheduler/config.yaml").write_text(config)
    (root / "jobs.py").write_text(jobs)
    (root / "jobs.py").chmod(0o644)
    return root


@pytest.fixture
def cli(capsys):
    """Return a function that calls the command line in this process."""
    root, shown = logging.getLogger(), warnings.showwarning
    handlers, level = root.handlers[:], root.level

    def call(*arguments: object) -> Answer:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        return Answer(code, *capsys.readouterr())

    yield call
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)
    warnings.showwarning = shown
    structlog.reset_defaults()


@pytest.fixture
def jobs(cli, project):
    """Return a function that calls `infra jobs …` on `project` in this process."""
    return lambda *arguments: cli("--root", project, "infra", "jobs", *arguments)


@pytest.fixture
def started():
    """Yield a function that starts the command line as a process, ended with the test."""
    processes = []

    def start(*arguments: object) -> Process:
        processes.append(Process(arguments))
        return processes[-1]

    yield start
    for process in processes:
        process.close()


class Process:
    """The command line as a process; killed if it takes for ever."""

    def __init__(self, arguments) -> None:
        self.popen = subprocess.Popen(
            [*COMMAND, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._watchdog = threading.Timer(PATIENCE_S, self.popen.kill)
        self._watchdog.start()

    def line_with(self, text: str) -> str:
        for line in self.popen.stdout:
            if text in line:
                return line
        raise AssertionError(f"no line with {text!r}; {self.popen.stderr.read()}")

    def signal(self, number: signal.Signals) -> None:
        self.popen.send_signal(number)

    def end(self) -> Answer:
        out, err = self.popen.communicate()
        return Answer(self.popen.returncode, out, err)

    def close(self) -> None:
        self._watchdog.cancel()
        self.popen.kill()
        self.popen.wait()
        self.popen.stdout.close()
        self.popen.stderr.close()


@pytest.fixture
def terminal():
    """Yield a function that starts the command line on a terminal of 80 columns."""
    opened = []

    def start(*arguments: object, columns: int = 80) -> Terminal:
        opened.append(Terminal(arguments, columns))
        return opened[-1]

    yield start
    for terminal in opened:
        terminal.close()


class Terminal:
    def __init__(self, arguments, columns: int) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self.popen = subprocess.Popen(
            [*COMMAND, *map(str, arguments)], stdin=slave, stdout=slave, stderr=slave
        )
        os.close(slave)
        self._watchdog = threading.Timer(PATIENCE_S, self.popen.kill)
        self._watchdog.start()
        self._text = ""

    def read_until(self, text: str) -> str:
        while text not in self._text:
            piece = self._read()
            assert piece, f"no {text!r} in {self._text}"
            self._text += piece
        return self._text

    def write(self, text: str) -> None:
        os.write(self._master, text.encode())

    def end(self) -> Answer:
        while piece := self._read():
            self._text += piece
        return Answer(self.popen.wait(), self._text.replace("\r\n", "\n"))

    def _read(self) -> str:
        try:
            return os.read(self._master, 65536).decode(errors="replace")
        except OSError:  # the other side is closed
            return ""

    def close(self) -> None:
        self._watchdog.cancel()
        self.popen.kill()
        self.popen.wait()
        os.close(self._master)
