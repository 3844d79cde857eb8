"""Where the log of a command goes, and what it looks like.

structlog's events and records of the standard `logging` come out the same: lines for people, or
one JSON object a line with `event`, `timestamp` (ISO 8601, UTC), `level`, `logger` and the bound
fields; a traceback is the field `exception`.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

import structlog

from systemprompt_jobs.secrets import is_secret, masked

from ._text import many_lines, one_line

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager
    from typing import TextIO

    from structlog.typing import EventDict, Processor, WrappedLogger

OURS, JOBS = "systemprompt_jobs", "systemprompt_jobs.job"

_NOT_OTHERS = frozenset({OURS, "systemprompt_jobs.attempts"})
"""Handlers of the root logger that miss nothing where a line goes straight to the stream."""

MANNERS: Mapping[str, Mapping[str, int]] = {
    "serve": {"": logging.INFO, OURS: logging.INFO, "alembic": logging.WARNING},
    "dev": {"": logging.INFO, OURS: logging.INFO, "alembic": logging.WARNING},
    "run": {"": logging.INFO, OURS: logging.WARNING, "alembic": logging.WARNING},
    "quiet": {"": logging.WARNING, OURS: logging.WARNING, "alembic": logging.WARNING},
}
"""Kind of command → logger → its lowest level. What jobs log themselves is always shown."""

_FIRST = ("timestamp", "level", "event", "logger")
_PRINTED_BY_RUN = frozenset(
    {"run_failed", "run_timed_out", "run_cancelled", "run_lost", "tick_skipped"}
)


def _told(value: Any) -> Any:
    """Return what to show of a value that JSON does not know, as structlog's renderer does."""
    return value.__structlog__() if hasattr(value, "__structlog__") else repr(value)


_encode = json.JSONEncoder(default=_told).encode  # which `json.dumps` would make anew each time


def _as_json(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    return _encode(event)


class CurrentStderr:
    """Standard error as it is when a line is written: bars put theirs in its place."""

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.stderr, name)


def configure(stream: TextIO, manner: str, *, human: bool) -> None:
    """Log to `stream`, for people or as JSON, with the levels of a kind of command."""
    handler = logging.StreamHandler(stream)
    handler.name = OURS
    people = _for_people(stream, rich=manner == "dev") if human else _for_machines()
    formatter = _formatter(people)
    handler.setFormatter(formatter)
    logging.basicConfig(handlers=[handler], force=True)
    logging.captureWarnings(capture=True)
    own: list[Processor] = [structlog.stdlib.filter_by_level]
    if manner == "run":
        own.append(_leave_to_run)
    structlog.configure(
        processors=[
            *own,
            *_shared(),
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=(
            structlog.stdlib.BoundLogger
            if human
            else type("Straight", (_Straight,), {"handler": handler})
        ),
    )
    # Not before: structlog's factory sets the class of loggers, which finds the true caller.
    for name, level in {**MANNERS[manner], JOBS: logging.INFO}.items():
        logging.getLogger(name).setLevel(level)


def _shared() -> list[Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
    ]


def _formatter(shown: list[Processor]) -> _Formatter:
    return _Formatter(
        foreign_pre_chain=_shared(),
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            _without_secrets,
            *shown,
        ],
    )


class _Formatter(structlog.stdlib.ProcessorFormatter):
    """Renders events of structlog as they come; for each, structlog's own makes two records."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        event: Any = record.msg
        if not isinstance(event, dict) or not hasattr(record, "_logger"):
            return super().format(record)
        shown: Any = event.copy()  # others may format it too
        for processor in self.processors[1:]:  # the first one drops what `format` puts in
            shown = processor(record._logger, record._name, shown)  # type: ignore[attr-defined]  # noqa: SLF001
        return str(shown)


class _Straight(structlog.stdlib.BoundLogger):
    """Writes our own lines of what goes well as the processors would, at a third of the cost.

    Where another handler listens, or others have put processors in place, nothing is different.
    """

    handler: logging.StreamHandler[TextIO]

    def info(self, event: str | None = None, *args: Any, **fields: Any) -> Any:
        """Write a line."""
        if args or not self._is_plain(fields):
            return super().info(event, *args, **fields)
        try:
            self._write(self._line({**self._context, **fields}, event))
        except Exception:  # noqa: BLE001  # the handler knows what to do about it
            super().info(event, **fields)
        return None

    def _is_plain(self, fields: Mapping[str, Any]) -> bool:
        return (
            self._logger.name == OURS
            and self._logger.isEnabledFor(logging.INFO)
            and "exc_info" not in fields
            and self._processors[0] is structlog.stdlib.filter_by_level  # type: ignore[index]
            and all(handler.name in _NOT_OTHERS for handler in logging.root.handlers)
        )

    def _line(self, fields: EventDict, event: str | None) -> Any:
        now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        first = {"timestamp": now, "level": "info", "event": event, "logger": OURS}
        fields = structlog.contextvars.merge_contextvars(self._logger, "info", fields)
        shown = {**first, **fields, **first}
        line = _encode(shown)
        if "://" in line or line.find("{", 1) > 0 or any(map(is_secret, fields)):
            return _encode(_without_secrets(None, "info", shown))
        return line

    def _write(self, line: str) -> None:
        handler = self.handler
        with cast("AbstractContextManager[object]", handler.lock):
            handler.stream.write(line + handler.terminator)
            handler.stream.flush()


def _without_secrets(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Mask what is called a secret, and passwords in URLs."""
    return {key: masked(value, key) for key, value in event.items()}


def _for_machines() -> list[Processor]:
    return [
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _in_order,
        _as_json,
    ]


def _in_order(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    first = {key: event[key] for key in _FIRST if key in event}
    return first | dict(event)


def _for_people(stream: TextIO, *, rich: bool) -> list[Processor]:
    colors = stream.isatty() and not os.environ.get("NO_COLOR")
    return [
        structlog.processors.TimeStamper(fmt="%Y-%m-%d %H:%M:%SZ", utc=True),
        _printable,
        *([_highlighted] if rich and colors else []),
        structlog.dev.ConsoleRenderer(
            colors=colors,
            pad_event_to=20,
            sort_keys=False,
        ),
    ]


def _printable(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Keep what others wrote from moving or colouring anything on a terminal."""
    event.pop("logger", None)
    return {key: _shown(key, value) for key, value in event.items()}


def _highlighted(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Have rich show a traceback; it came as text, since the function may run elsewhere."""
    if text := event.get("exception"):
        from rich.console import Console
        from rich.syntax import Syntax

        console = Console(force_terminal=True)
        with console.capture() as shown:
            code = Syntax(text, "pytb", theme="ansi_dark", background_color="default")
            console.print(code, soft_wrap=True)
        event["exception"] = shown.get().rstrip()
    return event


def _shown(key: str, value: Any) -> Any:
    if key == "exception":
        return many_lines(str(value))
    if isinstance(value, float):
        return f"{value:.6f}".rstrip("0").rstrip(".")
    return value if isinstance(value, int) else one_line(value)


def _leave_to_run(logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Drop the ends of runs: the command `run` prints them itself."""
    if event["event"] in _PRINTED_BY_RUN and logger.name == OURS:
        raise structlog.DropEvent
    return event
