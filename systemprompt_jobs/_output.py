"""What a run logs is kept with its attempt: records of `logging`, and structlog's events.

`LogTap` is a handler of the root logger, which gets what the levels that others configured let
through: libraries' records, and structlog over `logging`. `bound_logger` makes `ctx.log`, which
is kept whatever structlog is configured to do, also from threads that the job starts.
"""

from __future__ import annotations

import logging
import sys
import traceback
from contextlib import suppress
from contextvars import copy_context
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog

from ._said import speaking
from .secrets import masked

if TYPE_CHECKING:
    from collections.abc import Mapping

    from structlog.typing import EventDict, Processor, WrappedLogger

    from .interfaces import Voice
    from .model import Run

JOB_LOGGER = "systemprompt_jobs.job"

_SPEAKING = frozenset(
    {"debug", "info", "warning", "warn", "error", "critical", "fatal", "exception", "log", "msg"}
)
_OF_EVERY_RECORD = frozenset({*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"})
_LEFT_OUT = frozenset(
    {
        *("job", "run", "attempt", "node"),  # the same in every line of an attempt
        *("timestamp", "level", "logger", "event", "exc_info", "exception", "stack_info"),
        *("_logger", "_name", "_record", "_from_structlog"),
    }
)


def identity(run: Run) -> dict[str, Any]:
    """Return what every line of a run is bound to."""
    return {"job": run.job_id, "run": run.id, "attempt": run.attempt, "node": run.node}


# --- the standard logging ---


class LogTap(logging.Handler):
    """Hands every record of a running attempt to its voice, while it is attached.

    By its name others know that it takes no other records.
    """

    def __init__(self) -> None:
        super().__init__()
        self.name = "systemprompt_jobs.attempts"

    def attach(self) -> None:
        """Listen to the root logger, and so to all that hand their records up to it."""
        logging.root.addHandler(self)

    def detach(self) -> None:
        """Listen no more."""
        logging.root.removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the record if the code that logs it runs for an attempt, once for all runtimes."""
        voice = speaking.get()
        if voice is None:
            return
        first = next((h for h in logging.root.handlers if isinstance(h, LogTap)), self)
        if first is not self:
            return
        with suppress(Exception):  # one that cannot be formatted: other handlers complain
            voice.output(_record_text(record))


def _record_text(record: logging.LogRecord) -> str:
    if isinstance(record.msg, dict):  # of structlog, to be rendered by a formatter
        fields, error = record.msg, record.msg.get("exc_info")
        said = str(fields.get("event", ""))
    else:
        fields = {k: v for k, v in vars(record).items() if k not in _OF_EVERY_RECORD}
        said, error = record.getMessage(), record.exc_info
    return _text(record.created, record.levelname, record.name, said, fields, error)


# --- ctx.log ---


def bound_logger(voice: Voice, run: Run) -> structlog.typing.FilteringBoundLogger:
    """Return a structlog logger, configured as the process's are, whose events `voice` keeps."""
    config = structlog.get_config()
    logger = config["logger_factory"](JOB_LOGGER)
    processors: list[Processor] = [*config["processors"]]
    if isinstance(logger, logging.Logger):  # its records come to the tap
        logger = _Speaker(logger, voice)
    else:
        processors.insert(-1, partial(_keep, voice))  # the last one makes a text of the event
    bound: structlog.typing.FilteringBoundLogger = structlog.wrap_logger(
        logger, processors, cache_logger_on_first_use=False
    ).bind(**identity(run))
    return bound


class _Speaker:
    """A logger that logs for an attempt, whichever thread calls."""

    def __init__(self, logger: logging.Logger, voice: Voice) -> None:
        self._logger, self._voice = logger, voice

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._logger, name)
        if name not in _SPEAKING or speaking.get() is self._voice:
            return attribute
        context = copy_context()
        context.run(speaking.set, self._voice)
        return partial(context.run, attribute)  # no frame of ours: loggers look for the caller's


def _keep(voice: Voice, _logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    with suppress(Exception):
        at, said = datetime.now(UTC).timestamp(), str(event.get("event", ""))
        voice.output(_text(at, method, JOB_LOGGER, said, event, event.get("exc_info")))
    return event


# --- how it is kept ---


def _text(
    at: float, level: str, logger: str, said: str, fields: Mapping[str, Any], error: Any
) -> str:
    """Return e.g. `2026-05-01 02:30:00 info copied rows=3`, and the traceback below."""
    when = datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S")
    source = "" if logger == JOB_LOGGER else f"{logger}: "
    shown = (
        f" {name}={_value(masked(v, name))}" for name, v in fields.items() if name not in _LEFT_OUT
    )
    line = f"{when} {level.lower()} {source}{said}{''.join(shown)}"
    below = fields.get("exception") or _traceback(error)
    return f"{line}\n{below.rstrip()}" if below else line


def _value(value: object) -> str:
    return repr(value) if isinstance(value, str) and (not value or " " in value) else str(value)


def _traceback(error: Any) -> str:
    """Return the traceback of what loggers take as `exc_info`."""
    if error and not isinstance(error, tuple | BaseException):
        error = sys.exc_info()
    if isinstance(error, tuple):
        error = error[1]
    return "".join(traceback.format_exception(error)) if error else ""
