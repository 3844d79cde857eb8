from __future__ import annotations

import io
import json
import logging
import warnings
from types import SimpleNamespace

import pytest
import structlog

from systemprompt_jobs.builtin import logs
from systemprompt_jobs.builtin.cli._logging import configure


@pytest.fixture
def log(cli):
    """Return a function that configures the log and returns the stream it goes to."""

    def start(manner: str = "serve", *, human: bool = False) -> io.StringIO:
        stream = io.StringIO()
        configure(stream, manner, human=human)
        return stream

    return start


def lines(stream):
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_json_lines_have_event_time_level_logger_and_fields(log):
    stream = log()
    structlog.get_logger("systemprompt_jobs").warning("happened", job="a:b", n=3)
    (line,) = lines(stream)
    assert list(line) == ["timestamp", "level", "event", "logger", "job", "n"]
    assert line["timestamp"].endswith("Z")
    assert (line["level"], line["event"], line["n"]) == ("warning", "happened", 3)


def test_standard_records_come_out_the_same(log):
    stream = log()
    logging.getLogger("some.library").info("%s rows", 3, extra={"table": "t"})
    (line,) = lines(stream)
    assert line.pop("timestamp").endswith("Z")
    assert line == {"level": "info", "event": "3 rows", "logger": "some.library", "table": "t"}


@pytest.mark.parametrize("name", ["structlog", "logging"])
def test_a_traceback_is_the_field_exception(log, name):
    stream = log()
    logger = structlog.get_logger("x") if name == "structlog" else logging.getLogger("x")
    try:
        int("broke")
    except ValueError:
        logger.exception("failed")
    (line,) = lines(stream)
    assert line["exception"].startswith("Traceback")
    assert line["exception"].endswith("with base 10: 'broke'")


class Kept(logging.Handler):
    def __init__(self):
        super().__init__()
        self.records = []

    def emit(self, record):
        self.records.append(record)


@pytest.mark.parametrize(
    "fields",
    [
        {"job": "a:b", "duration_s": 0.5, "message": "ü\ud800"},
        {"api_key": "hidden", "token": 7, "url": "amqp://me:word@host"},
        {"settings": {"password": "hidden", "n": 3}, "urls": ["http://me:word@host"]},
        {"message": "{://", "odd": object, "none": None},
        {"level": "mine", "logger": "mine", "timestamp": "mine", "job": "a:b"},
    ],
)
def test_our_lines_are_the_same_whether_another_handler_listens_or_not(log, fields):
    stream, other = log(), Kept()
    ours = structlog.get_logger("systemprompt_jobs").bind(loop="keep")
    with structlog.contextvars.bound_contextvars(request="r1"):
        ours.info("run_started", **fields)
        ours.info("run_started %s", "now", **fields)
        logging.root.addHandler(other)
        ours.info("run_started", **fields)
        ours.info("run_started %s", "now", **fields)
    assert not any(secret in stream.getvalue() for secret in ("hidden", "word@", '"token": 7'))
    *alone, heard, formatted = lines(stream)
    for line in (*alone, heard, formatted):
        assert line.pop("timestamp").endswith("Z")
        assert (line["level"], line["loop"], line["request"]) == ("info", "keep", "r1")
    assert alone == [heard, formatted]
    assert [list(line) for line in alone] == [list(heard), list(formatted)]
    assert [r.msg["event"] for r in other.records] == ["run_started", "run_started now"]


def test_transitions_are_logged_as_structlog_is_configured_by_then(log):
    node = SimpleNamespace(id="n1")
    streams = []
    for human in (False, True, False):
        streams.append(log(human=human))
        logs.scheduler_stopped(node)
    with structlog.testing.capture_logs() as captured:
        logs.scheduler_stopped(node)
    logs.scheduler_stopped(node)
    assert [stream.getvalue().count("scheduler_stopped") for stream in streams] == [1, 1, 2]
    assert [event["node"] for event in captured] == ["n1"]


def test_our_lines_can_be_captured_and_switched_off(log):
    stream = log()
    ours = structlog.get_logger("systemprompt_jobs")
    with structlog.testing.capture_logs() as captured:
        ours.info("seen", n=1)
    assert captured == [{"event": "seen", "log_level": "info", "n": 1}]
    logging.getLogger("systemprompt_jobs").setLevel(logging.WARNING)
    ours.info("unwanted")
    assert stream.getvalue() == ""


def test_a_log_that_cannot_be_written_to_hurts_nobody(log, monkeypatch):
    log().close()
    monkeypatch.setattr(logging, "raiseExceptions", False)
    structlog.get_logger("systemprompt_jobs").info("run_started")


def test_people_get_one_line_with_the_fields_and_the_traceback_below(log):
    stream = log(human=True)
    structlog.get_logger("x").error("failed", job="a:b", exception="Traceback\n  File")
    first, *rest = stream.getvalue().splitlines()
    assert first.rstrip().endswith("job=a:b")
    assert "[error    ] failed" in first
    assert rest == ["Traceback", "  File"]


def test_what_cannot_be_json_is_shown_all_the_same(log):
    stream = log()
    structlog.get_logger("x").info("odd", value=object(), text="\ud800")
    assert lines(stream)[0]["value"].startswith("<object object")


@pytest.mark.parametrize(
    ("manner", "seen"),
    [
        ("serve", ["ours", "run_failed", "job", "other", "warned"]),
        ("run", ["job", "other", "warned"]),
        ("quiet", ["run_failed", "job", "warned"]),
    ],
)
def test_levels_by_kind_of_command(log, manner, seen):
    stream = log(manner)
    structlog.get_logger("systemprompt_jobs").info("ours")
    structlog.get_logger("systemprompt_jobs").error("run_failed")
    structlog.get_logger("systemprompt_jobs.job").info("job")
    logging.getLogger("other").info("other")
    logging.getLogger("alembic.runtime").info("alembic")
    logging.getLogger("other").warning("warned")
    assert [line["event"] for line in lines(stream)] == seen


def test_warnings_are_logged(log):
    stream = log()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=False)
        logging.captureWarnings(capture=True)
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    assert "DeprecationWarning: old" in lines(stream)[0]["event"]
