"""Real brokers for tests, on free ports of this machine; gone with their process."""

from __future__ import annotations

import ctypes
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Self

PATIENCE_S = 90.0
_PR_SET_PDEATHSIG = 1
_RABBITMQ = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
"""What Debian's `rabbitmq-server` calls as another user, which a test need not be."""


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


class Broker:
    """A server process in a folder of its own, until the block ends."""

    def __init__(self) -> None:
        self.port = free_port()
        self._folder = Path(tempfile.mkdtemp(prefix="jobs-mq-", dir="/tmp"))
        self._processes: list[subprocess.Popen[bytes]] = []

    @property
    def pids(self) -> list[int]:
        """The processes that were started, for those who measure them."""
        return [process.pid for process in self._processes]

    @staticmethod
    def missing() -> str:
        """Return why there is no such server here, empty if there is one."""
        raise NotImplementedError

    def start(self) -> None:
        """Start it and wait until it answers."""
        raise NotImplementedError

    def stop(self) -> None:
        """Stop it; what is durable stays."""
        for process in reversed(self._processes):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self._processes.clear()

    def _spawn(self, *command: object, **environ: object) -> None:
        with (self._folder / "log").open("ab") as log:
            process = subprocess.Popen(
                [str(part) for part in command],
                cwd=self._folder,
                env={**os.environ, **{key: str(value) for key, value in environ.items()}},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_die_with_parent,  # noqa: PLW1509  # no threads matter to a test
            )
        self._processes.append(process)

    def _until_it_listens(self, port: int) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                return
            ended = [process for process in self._processes if process.poll() is not None]
            if ended or time.monotonic() > deadline:
                said = (self._folder / "log").read_text("utf-8", "replace")[-2_000:]
                raise AssertionError(f"{type(self).__name__} does not listen: {said}")
            time.sleep(0.1)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)


class RabbitMQ(Broker):
    """RabbitMQ, with an epmd of its own."""

    @staticmethod
    def missing() -> str:
        return "" if _RABBITMQ.exists() else "no rabbitmq-server is installed"

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}//"

    def start(self) -> None:
        names, home = free_port(), self._folder
        (home / "rabbitmq.conf").write_text(
            f"listeners.tcp.1 = 127.0.0.1:{self.port}\nvm_memory_high_watermark.absolute = 512MB\n"
        )
        (home / "plugins").write_text("[].")
        self._spawn("epmd", "-port", names, "-address", "127.0.0.1")
        self._until_it_listens(names)
        self._spawn(
            _RABBITMQ,
            HOME=home,
            ERL_EPMD_PORT=names,
            RABBITMQ_NODENAME=f"test{self.port}@localhost",
            RABBITMQ_DIST_PORT=free_port(),
            RABBITMQ_CONFIG_FILE=home / "rabbitmq.conf",
            RABBITMQ_CONF_ENV_FILE="/dev/null",
            RABBITMQ_ENABLED_PLUGINS_FILE=home / "plugins",
            RABBITMQ_MNESIA_BASE=home / "data",
            RABBITMQ_LOG_BASE=home,
            RABBITMQ_PID_FILE=home / "pid",
            RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="+S 1:1 +sbwt none +sbwtdcpu none +sbwtdio none",
            ERLANG_COOKIE=secrets.token_hex(8),
        )
        self._until_it_listens(self.port)


class Redis(Broker):
    """Redis, which keeps nothing on disk."""

    @staticmethod
    def missing() -> str:
        return "" if shutil.which("redis-server") else "no redis-server is installed"

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        options = ("--port", self.port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no")
        self._spawn("redis-server", *options)
        self._until_it_listens(self.port)


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)  # its script stops Erlang
