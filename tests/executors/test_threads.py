"""The executor `threads`: what it leaves alone, and what is kept of what functions say."""

from __future__ import annotations

import logging
import threading
from queue import SimpleQueue

import pytest

from systemprompt_jobs import Run, job
from systemprompt_jobs._context import Resources
from systemprompt_jobs._output import LogTap
from systemprompt_jobs._run import Attempt
from systemprompt_jobs._services import ServiceRegistry
from systemprompt_jobs.builtin.coroutines import Coroutines
from systemprompt_jobs.builtin.threads import Threads
from systemprompt_jobs.model import State, Trigger
from tests.support import START, make_plan

PATIENCE_S = 60


def submitted(executor, function):
    """Return an attempt that the executor has been given, and the queue of its report."""
    run = Run(1, "ext:cleanup", Trigger.MANUAL, State.RUNNING, attempt=1)
    plan, reports = make_plan(), SimpleQueue()
    object.__setattr__(plan, "job", job(function))
    attempt = Attempt(plan, run, Resources({}, ServiceRegistry()), lambda: START, ended=reports.put)
    executor.submit(attempt)
    return attempt, reports


def test_a_function_that_is_told_to_end_is_left_alone():
    executor, began, release = Threads(1), threading.Event(), threading.Event()

    def waits():
        began.set()
        release.wait(PATIENCE_S)
        return "to its end"

    attempt, reports = submitted(executor, waits)
    began.wait(PATIENCE_S)
    executor.interrupt(attempt)
    assert attempt.cancelled.is_set()
    release.set()
    assert reports.get(timeout=PATIENCE_S).message == "to its end"
    executor.close()


def plain():
    print("printed")  # noqa: T201
    logging.getLogger("lib").error("logged")


async def coroutine():
    plain()


@pytest.mark.parametrize(("kind", "function"), [(Threads, plain), (Coroutines, coroutine)])
def test_what_it_prints_is_not_kept_and_what_it_logs_is(kind, function, capsys):
    executor, tap = kind(1), LogTap()
    tap.attach()
    attempt, reports = submitted(executor, function)
    report = attempt.said.onto(reports.get(timeout=PATIENCE_S))
    tap.detach()
    executor.close()
    assert report.log.endswith(" error lib: logged")
    assert "printed" not in report.log
    assert "printed" in capsys.readouterr().out
