"""The worker process: calls functions, one at a time, for the scheduler that started it.

It makes a runtime of its own, finds functions through their plugins' names, and never opens the
scheduler's database. It ends when its scheduler tells it to, and dies with it.
"""

from __future__ import annotations

import ctypes
import logging
import os
import select
import signal
import socket
import sys
import threading
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import structlog

from systemprompt_jobs import Report, Run, Runtime
from systemprompt_jobs.errors import text_of
from systemprompt_jobs.model import State

from ._wire import line, value_of

if TYPE_CHECKING:
    from systemprompt_jobs.interfaces import Attempt

_PR_SET_PDEATHSIG = 1

_RUN = {"job", "run", "attempt", "node"}


class _Worker:
    """One run after the other, on the main thread: signals of a job find it there."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._lines = channel.makefile("rb")
        self._pid = os.getpid()
        self._origin: dict[str, Any] = {}
        self._runtime: Runtime | None = None
        self._attempt: Attempt | None = None
        self._terminated = False
        null = os.open(os.devnull, os.O_RDWR)  # else our end would not be seen while a child lives
        os.register_at_fork(after_in_child=lambda: os.dup2(null, channel.fileno()))
        threading.Thread(target=self._watch, args=(_signals(),), daemon=True).start()

    def work(self) -> None:
        """Answer each run with its report until there are no more."""
        hello = value_of(self._lines.readline())
        sys.path[:] = hello["path"]
        self._origin = hello["origin"]
        with suppress(Exception):  # else each run will say what is wrong
            self._loaded()
        for text in self._lines:
            report = self._report(value_of(text))
            if os.getpid() != self._pid:  # the function has forked, and this is its child
                os._exit(0)
            for stream in (sys.stdout, sys.stderr):
                with suppress(Exception):  # the function may have closed it
                    stream.flush()
            self._channel.sendall(line(report))
        if self._runtime is not None:
            self._runtime.stop()

    def _loaded(self) -> Runtime:
        if self._runtime is None:
            self._runtime = Runtime(**self._origin)
        return self._runtime

    def _report(self, run: Run) -> Report:
        now = datetime.now(UTC)
        try:
            attempt = self._loaded().attempt(run)
        except Exception as error:  # noqa: BLE001  # whatever a plugin does when it loads here
            reason = f"the worker process cannot run it: {text_of(error)}"
            return Report(State.FAILED, now, now, error=reason)
        self._attempt = attempt
        if self._terminated:
            attempt.interrupt()
        return attempt.call()

    def _watch(self, signals: int) -> None:
        """Tell the function of a SIGTERM; leave at once when the scheduler is gone."""
        poll = select.poll()
        poll.register(self._channel, 0)  # hang-ups only
        poll.register(signals, select.POLLIN)
        while True:
            for descriptor, _ in poll.poll():
                if descriptor != signals:
                    os._exit(1)
                if signal.SIGTERM in os.read(signals, 100):
                    self._terminated = True
                    if self._attempt is not None:
                        self._attempt.interrupt()


def _signals() -> int:
    """Return what the numbers of signals come out of.

    A handler itself may not tell the function: it could interrupt the very lock it needs.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    signal.signal(signal.SIGTERM, lambda *_: None)
    return reader


def _die_with(parent: int) -> None:
    """Have Linux kill this process when its scheduler dies, even one that holds the GIL."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _configure_logging() -> None:
    """Write lines that the scheduler logs again, with its own time and the run."""
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s", stream=sys.stderr)
    structlog.configure(
        processors=[
            structlog.processors.format_exc_info,
            _line,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def _line(_logger: Any, _method: str, event: Any) -> str:
    """Return the event without the run, which the scheduler adds."""
    said, exception = str(event.pop("event", "")), event.pop("exception", None)
    own = [f"{key}={value!r}" for key, value in event.items() if key not in _RUN]
    return " ".join([said, *own]) + (f"\n{exception}" if exception else "")


def main(descriptor: int, parent: int) -> None:
    """Work for the scheduler at the other end of a socket."""
    _die_with(parent)
    os.set_inheritable(descriptor, False)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    _configure_logging()
    _Worker(socket.socket(fileno=descriptor)).work()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
