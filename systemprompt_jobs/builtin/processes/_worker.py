"""The scheduler's side of one worker process."""

from __future__ import annotations

import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog

from systemprompt_jobs.model import Report, State

from ._wire import LOGGED, line, value_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from systemprompt_jobs.interfaces import Attempt

MODULE = "systemprompt_jobs.builtin.processes"

_CHUNK = 65_536
_LONGEST_LINE = 10_000
_LAST_OUTPUT = 1_000_000
"""Bytes that are still read after a report: a thread of the function may write for ever."""


class Worker:
    """A process that calls functions, one at a time, until it ends or is interrupted.

    Only the thread that made it may use it, except for `interrupt`: on Linux the process dies
    with that thread. It is the leader of its own process group, so that Ctrl-C does not reach
    it, and a kill reaches what its functions have started.
    """

    def __init__(self, origin: Mapping[str, Any], grace_s: float) -> None:
        self._grace_s = grace_s
        self._lock = threading.Lock()
        self._killer: threading.Timer | None = None
        self._rest = b""
        self._buried = False
        ours, theirs = socket.socketpair()
        with theirs:
            number = theirs.fileno()
            self._process = subprocess.Popen(  # noqa: S603  # ourselves
                [sys.executable, "-P", "-m", MODULE, str(number), str(os.getpid())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=(number,),
                process_group=0,
            )
        self._channel = ours
        assert self._process.stdout is not None  # noqa: S101  # it is a pipe
        self._output = self._process.stdout.fileno()
        os.set_blocking(self._output, False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(ours, selectors.EVENT_READ)
        self._selector.register(self._output, selectors.EVENT_READ)
        self._send({"origin": origin, "path": sys.path})

    @property
    def usable(self) -> bool:
        """Whether it can be given another run: it lives and was not told to end."""
        return not self.spent and self._process.poll() is None

    @property
    def spent(self) -> bool:
        """Whether it was told to end, or has ended in the middle of a run. Asks nobody."""
        return self._killer is not None or self._buried

    def call(self, attempt: Attempt) -> Report:
        """Have the function called there; return what it ended in, or how the process did."""
        started = datetime.now(UTC)
        attempt.began()
        self._send({"run": attempt.run, "config": attempt.config})
        output = partial(_take_line, attempt)
        heard = b""
        while True:
            ready = {key.fd for key, _ in self._selector.select()}
            if self._output in ready:
                self._read_output(output, _CHUNK)
            if self._channel.fileno() in ready:
                data = self._receive()
                if not data:
                    return self._obituary(attempt, started)
                *said, heard = (heard + data).split(b"\n")
                report = _take_said(attempt, said)
                if report is not None:
                    self._read_last_output(output)
                    return report

    def interrupt(self) -> None:
        """Ask it to end, and kill it if it does not in time. Any thread may call."""
        with self._lock:
            if self._killer is None and self._process.returncode is None:
                self._process.terminate()
                self._killer = threading.Timer(self._grace_s, self._kill)
                self._killer.daemon = True
                self._killer.start()

    def end(self) -> None:
        """Wait until the process has ended; it has no more runs."""
        with suppress(OSError):
            self._channel.shutdown(socket.SHUT_WR)
        self._bury()

    def _send(self, value: object) -> None:
        with suppress(OSError):  # it has died, which shows when it is listened to
            self._channel.sendall(line(value))

    def _receive(self) -> bytes:
        try:
            return self._channel.recv(_CHUNK)
        except ConnectionError:
            return b""

    def _read_output(self, output: Callable[[str], None], limit: int) -> None:
        """Hand on what it has written so far, line by line."""
        while limit > 0:
            try:
                data = os.read(self._output, _CHUNK)
            except BlockingIOError:
                break
            if not data:
                with suppress(KeyError):
                    self._selector.unregister(self._output)
                break
            limit -= len(data)
            *lines, self._rest = (self._rest + data).split(b"\n")
            if len(self._rest) > _LONGEST_LINE:
                lines, self._rest = [*lines, self._rest], b""
            for text in lines:
                output(text[:_LONGEST_LINE].decode(errors="replace"))

    def _read_last_output(self, output: Callable[[str], None]) -> None:
        self._read_output(output, _LAST_OUTPUT)
        if self._rest:  # a line without an end
            output(self._rest[:_LONGEST_LINE].decode(errors="replace"))
            self._rest = b""

    def _obituary(self, attempt: Attempt, started: datetime) -> Report:
        self._bury(partial(_take_line, attempt))
        end = _end(self._process.returncode)
        if self._killer is not None:
            message = f"its worker process was told to end, and {end}"
            return Report(State.CANCELLED, started, datetime.now(UTC), message=message)
        return Report(State.FAILED, started, datetime.now(UTC), error=f"the worker process {end}")

    def _bury(self, output: Callable[[str], None] = lambda _: None) -> None:
        """Wait for its end, kill it if need be, and give everything back."""
        if self._buried:
            return
        self._buried = True
        try:
            self._process.wait(self._grace_s)
        except subprocess.TimeoutExpired:
            self._kill()
            self._process.wait()
        with self._lock:
            if self._killer is not None:
                self._killer.cancel()
        self._read_last_output(output)
        self._selector.close()
        self._channel.close()
        self._process.stdout.close()  # type: ignore[union-attr]  # it is a pipe

    def _kill(self) -> None:
        """Kill the process and what it has started, unless it is gone already."""
        with self._lock, suppress(ProcessLookupError):
            if self._process.returncode is None:
                os.killpg(self._process.pid, signal.SIGKILL)


def _take_said(attempt: Attempt, lines: Iterable[bytes]) -> Report | None:
    """Hand on what an attempt says; return its report, which is the last that it says."""
    for text in lines:
        said = value_of(text)
        if isinstance(said, Report):
            return said
        what, *arguments = said
        (attempt.said.progress if what == "progress" else attempt.said.annotate)(*arguments)
    return None


def _take_line(attempt: Attempt, text: str) -> None:
    """Keep a line with the attempt, and log it as if it had been logged here."""
    attempt.said.output(text)
    found = LOGGED.match(text)
    level, event = (found[1], text[found.end() :]) if found else ("info", text)
    run = attempt.run
    log = structlog.get_logger("systemprompt_jobs.job")
    getattr(log, level)(event, job=run.job_id, run=run.id, attempt=run.attempt, node=run.node)


def _end(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    with suppress(ValueError):
        name = signal.Signals(-code).name
        return f"was killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
    return f"was killed by signal {-code}"
