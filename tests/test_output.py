"""What a run logs is kept with it: its own lines and those of libraries, and no other's."""

from __future__ import annotations

import contextvars
import dataclasses
import io
import logging
import threading

import pytest
import structlog

from systemprompt_jobs import job
from systemprompt_jobs._context import Resources
from systemprompt_jobs._output import LogTap
from systemprompt_jobs._run import Attempt
from systemprompt_jobs._services import ServiceRegistry
from systemprompt_jobs.model import Run, State, Trigger
from tests.support import START, make_plan


@pytest.fixture(autouse=True)
def _as_before():
    level = logging.root.level
    yield
    logging.root.setLevel(level)
    structlog.reset_defaults()


@pytest.fixture
def tap():
    tap = LogTap()
    tap.attach()
    yield tap
    tap.detach()


@pytest.fixture
def kept(tap):
    """Return a function: the kept lines of a function's run, without their time."""

    def kept(function, run=7):
        plan = dataclasses.replace(make_plan(), job=job(function))
        value = Run(run, plan.id, Trigger.MANUAL, State.RUNNING, attempt=1, node="h:1:b")
        attempt = Attempt(plan, value, Resources({}, ServiceRegistry()), lambda: START)
        report = attempt.said.onto(attempt.call())
        assert report.error == ""
        return [line[20:] if line[:2] == "20" else line for line in report.log.split("\n")]

    return kept


def over_logging(**more):
    """Configure structlog as a host may: rendered by the standard logging."""
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, structlog.stdlib.render_to_log_kwargs],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        **more,
    )


def test_records_of_libraries_are_kept_with_their_logger_and_fields(kept):
    def function():
        logging.getLogger("lib.rary").warning("%s rows", 3, extra={"table": "my table"})

    assert kept(function) == ["warning lib.rary: 3 rows table='my table'"]


def test_what_levels_keep_out_is_not_kept(kept):
    def function():
        logging.getLogger("quiet").info("chatter")
        logging.getLogger("quiet").error("trouble")

    logging.root.setLevel(logging.WARNING)
    assert kept(function) == ["error quiet: trouble"]


@pytest.mark.parametrize("configured", [False, True])
def test_ctx_log_is_kept_once_however_structlog_is_configured(kept, capsys, configured):
    logging.root.setLevel(logging.INFO)
    if configured:
        over_logging()

    def function(ctx):
        ctx.log.bind(step=1).info("copied", rows=3)
        ctx.log.debug("chatter") if configured else None

    assert kept(function) == ["info copied step=1 rows=3"]


def test_ctx_log_of_a_thread_that_the_job_starts_is_kept_too(kept, capsys):
    logging.root.setLevel(logging.INFO)
    for configure in (structlog.reset_defaults, over_logging):
        configure()

        def function(ctx):
            thread = threading.Thread(target=lambda: ctx.log.info("from a thread"))
            thread.start()
            thread.join()

        assert kept(function) == ["info from a thread"]


def test_other_logs_of_such_a_thread_need_its_context_copied(kept):
    def function():
        log = logging.getLogger("lib")
        context = contextvars.copy_context()
        for target in (lambda: log.error("lost"), lambda: context.run(log.error, "found")):
            thread = threading.Thread(target=target)
            thread.start()
            thread.join()

    assert kept(function) == ["error lib: found"]


def test_tracebacks_are_kept_below_their_line(kept, capsys):
    def function(ctx):
        try:
            int("broke")
        except ValueError:
            logging.getLogger("lib").exception("one")
            ctx.log.exception("two")

    lines = kept(function)
    assert lines[0] == "error lib: one"
    assert lines[1] == "Traceback (most recent call last):"
    assert "error two" in lines
    assert lines[-1].endswith("with base 10: 'broke'")


def test_two_runs_at_once_do_not_mix(kept):
    both = threading.Barrier(2)
    lines = {}

    def run(number):
        def function():
            both.wait(30)
            logging.getLogger("lib").error("of %s", number)
            both.wait(30)

        lines[number] = kept(function, number)

    threads = [threading.Thread(target=run, args=(n,)) for n in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert lines == {1: ["error lib: of 1"], 2: ["error lib: of 2"]}


def test_two_runtimes_keep_a_line_once(kept):
    second = LogTap()
    second.attach()
    try:
        assert kept(lambda: logging.getLogger("lib").error("x")) == ["error lib: x"]
    finally:
        second.detach()


def test_what_is_logged_outside_of_runs_belongs_to_none(kept):
    assert kept(lambda: None) == [""]
    logging.getLogger("lib").error("afterwards")
    assert kept(lambda: None, 8) == [""]


def test_a_record_that_cannot_be_shown_hurts_nobody(kept, monkeypatch):
    monkeypatch.setattr(logging, "raiseExceptions", False)
    assert kept(lambda: logging.getLogger("lib").error("%d", "x")) == [""]


def test_every_line_is_bound_to_the_run_and_nothing_of_it_is_left_behind(kept):
    bound = []

    def function(ctx):
        bound.append(structlog.contextvars.get_contextvars())
        structlog.contextvars.bind_contextvars(mine=1)

    kept(function)
    kept(function, 8)
    assert bound == [
        {"job": "ext:cleanup", "run": n, "attempt": 1, "node": "h:1:b"} for n in (7, 8)
    ]
    assert structlog.contextvars.get_contextvars() == {}


def test_the_caller_that_a_formatter_shows_is_the_jobs(kept):
    over_logging()
    logging.root.setLevel(logging.INFO)
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(filename)s"))
    logging.root.addHandler(handler)

    def function(ctx):
        ctx.log.info("here")
        thread = threading.Thread(target=lambda: ctx.log.info("there"))
        thread.start()
        thread.join()

    kept(function)
    logging.root.removeHandler(handler)
    assert stream.getvalue().split() == ["test_output.py", "test_output.py"]
