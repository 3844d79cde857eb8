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
from systemprompt_jobs.errors import UsageError, text_of
from systemprompt_jobs.model import State

from ._voice import CarriedVoice
from ._wire import line, value_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from structlog.typing import EventDict, Processor, WrappedLogger

    from systemprompt_jobs.interfaces import Attempt

_PR_SET_PDEATHSIG = 1

_JOBS = "systemprompt_jobs.job"

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
        self._voice = CarriedVoice(self._send)
        self._terminated = False
        null = os.open(os.devnull, os.O_RDWR)  # else our end would not be seen while a child lives
        os.register_at_fork(after_in_child=lambda: self._leave(null))
        threading.Thread(target=self._watch, args=(_signals(),), daemon=True).start()

    def work(self) -> None:
        """Answer each run with its report until there are no more."""
        hello = value_of(self._lines.readline())
        sys.path[:] = hello["path"]
        self._origin = hello["origin"]
        with suppress(Exception):  # else each run will say what is wrong
            self._loaded()
        for text in self._lines:
            report = self._report(**value_of(text))
            if os.getpid() != self._pid:  # the function has forked, and this is its child
                os._exit(0)
            for stream in (sys.stdout, sys.stderr):
                with suppress(Exception):  # the function may have closed it
                    stream.flush()
            self._send(report)
        if self._runtime is not None:
            self._runtime.stop()

    def _send(self, value: object) -> None:
        self._channel.sendall(line(value))

    def _leave(self, null: int) -> None:
        """Say nothing to the scheduler any more, in a process that a function has forked."""
        os.dup2(null, self._channel.fileno())
        self._voice.mute()

    def _loaded(self) -> Runtime:
        if self._runtime is None:
            self._runtime = Runtime(**self._origin)
        return self._runtime

    def _report(self, run: Run, config: Mapping[str, Any]) -> Report:
        now = datetime.now(UTC)
        self._voice = voice = CarriedVoice(self._send)
        try:
            self._attempt = attempt = self._new_attempt(run, config)
        except Exception as error:  # noqa: BLE001  # whatever a plugin does when it loads here
            reason = f"the worker process cannot run it: {text_of(error)}"
            return Report(State.FAILED, now, now, error=reason)
        if self._terminated:
            attempt.interrupt()
        report = attempt.call()
        voice.end()
        return report

    def _new_attempt(self, run: Run, config: Mapping[str, Any]) -> Attempt:
        runtime = self._loaded()
        with suppress(UsageError):
            return runtime.attempt(run, said=self._voice, config=config)
        runtime.reload()  # a configuration that degrades the job may be older than the scheduler's
        return runtime.attempt(run, said=self._voice, config=config)

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
    """Log lines that are kept as those of other executors, and logged again by the scheduler."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
    ]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder()],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                _line,
            ],
        )
    )
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
    )


def _line(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    """Return e.g. `2026-05-01 02:30:00 info copied rows=3`, without the run."""
    said, exception = event.pop("event", ""), event.pop("exception", None)
    level, logger = event.pop("level"), event.pop("logger")
    source = "" if logger == _JOBS else f"{logger}: "
    own = "".join(f" {key}={_value(value)}" for key, value in event.items() if key not in _RUN)
    text = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} {level} {source}{said}{own}"
    return f"{text}\n{exception}" if exception else text


def _value(value: object) -> str:
    return repr(value) if isinstance(value, str) and (not value or " " in value) else str(value)


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
