"""The executor `asyncio`: cancelled tasks, contexts of their own, and who blocks the loop."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from queue import SimpleQueue

import pytest
import structlog

from systemprompt_jobs import Run, job
from systemprompt_jobs._context import Resources
from systemprompt_jobs._run import Attempt
from systemprompt_jobs._services import ServiceRegistry
from systemprompt_jobs.builtin.coroutines import Coroutines
from systemprompt_jobs.model import State, Trigger
from tests.support import START, make_plan

PATIENCE_S = 60


class Bench:
    def __init__(self, **settings):
        self.executor = Coroutines(**({"size": 2, "stall_s": 30} | settings))
        self._resources = Resources({}, ServiceRegistry())
        self._reports = SimpleQueue()

    def submit(self, function):
        run = Run(1, "ext:cleanup", Trigger.MANUAL, State.RUNNING, attempt=1)
        plan = make_plan()
        object.__setattr__(plan, "job", job(function))
        attempt = Attempt(plan, run, self._resources, lambda: START, ended=self._reports.put)
        self.executor.submit(attempt)
        return attempt

    def report(self):
        return self._reports.get(timeout=PATIENCE_S)


@pytest.fixture
def bench():
    bench = Bench()
    yield bench
    bench.executor.close()


def test_an_interrupted_function_gets_a_cancelled_error_where_it_awaits(bench):
    began, seen = threading.Event(), []

    async def waits():
        began.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    attempt = bench.submit(waits)
    began.wait(PATIENCE_S)
    bench.executor.interrupt(attempt)
    assert attempt.cancelled.is_set()
    assert bench.report().outcome in {State.FAILED, State.CANCELLED}
    assert seen == ["cancelled"]


def test_one_that_is_interrupted_while_it_waits_is_never_called(bench):
    began, release, seen = threading.Semaphore(0), threading.Event(), []

    async def waits():
        began.release()
        while not release.is_set():  # noqa: ASYNC110  # another thread sets it
            await asyncio.sleep(0.005)

    async def late():
        seen.append("began")

    for _ in range(2):
        bench.submit(waits)
        began.acquire(timeout=PATIENCE_S)
    bench.executor.interrupt(bench.submit(late))
    release.set()
    outcomes = sorted(bench.report().outcome for _ in range(3))
    assert outcomes == [State.CANCELLED, State.SUCCEEDED, State.SUCCEEDED]
    assert seen == []


def test_what_a_function_sets_in_its_context_stays_there(bench):
    variable = contextvars.ContextVar("variable", default="clean")
    seen = []

    async def sets():
        seen.append(variable.get())
        variable.set("dirty")
        await asyncio.sleep(0)

    for _ in range(3):
        bench.submit(sets)
        bench.report()
    assert seen == ["clean"] * 3


def test_one_that_blocks_the_loop_is_named_with_its_line():
    bench = Bench(stall_s=0.05)
    named = threading.Event()

    async def blocks():
        named.wait(PATIENCE_S)

    def note(_logger, _method, event):
        entries.append(event)
        named.set()
        raise structlog.DropEvent

    entries = []
    before = structlog.get_config()
    structlog.configure(processors=[note])
    try:
        bench.submit(blocks)
        bench.report()
    finally:
        structlog.configure(**before)
        bench.executor.close()
    assert (entries[0]["event"], entries[0]["job"]) == ("loop_blocked", "ext:cleanup")
    assert "threading.py:" in entries[0]["at"]


def test_its_threads_end_when_it_is_closed(bench):
    async def nothing(): ...

    bench.submit(nothing)
    bench.report()
    bench.executor.close()
    bench.executor._thread.join(PATIENCE_S)
    assert not bench.executor._thread.is_alive()
