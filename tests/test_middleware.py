"""Plugins wrap every call of a function, in a known order, and never decide how it ended."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import threading

import pluggy
import pytest

from systemprompt_jobs import JobResult, hookimpl, hookspecs, job
from systemprompt_jobs._context import Resources
from systemprompt_jobs._middleware import Middleware
from systemprompt_jobs._run import Attempt
from systemprompt_jobs._services import ServiceRegistry
from systemprompt_jobs.model import Run, State, Trigger
from tests.support import START, make_plan


class Wraps:
    """A plugin that notes when it is entered and left, and what it sees."""

    def __init__(self, name, seen, *, on_exit=lambda error: False):
        self.name, self.seen, self.on_exit = name, seen, on_exit

    @hookimpl
    def attempt_context(self, attempt):
        return self

    def __enter__(self):
        self.seen.append(f"{self.name} in")

    def __exit__(self, kind, error, traceback):
        self.seen.append(f"{self.name} out" + (f": {error!r}" if error else ""))
        return self.on_exit(error)


contextlib.AbstractContextManager.register(Wraps)


class Returns:
    """A plugin whose hook does as told."""

    def __init__(self, make):
        self.make = make

    @hookimpl
    def attempt_context(self, attempt):
        return self.make(attempt)


@pytest.fixture
def registry():
    return ServiceRegistry()


@pytest.fixture
def call(registry):
    """Return a function: the report of a function called with these plugins, the last outermost."""
    resources = Resources({}, registry)

    def call(function, **plugins):
        return make(function, **plugins).call()

    def make(function, **plugins):
        manager = pluggy.PluginManager(hookspecs.PROJECT)
        manager.add_hookspecs(hookspecs)
        for name, plugin in plugins.items():
            manager.register(plugin, name)
        plan = dataclasses.replace(make_plan(), job=job(function))
        run = Run(7, plan.id, Trigger.MANUAL, State.RUNNING)
        return Attempt(plan, run, resources, lambda: START, middleware=Middleware(manager))

    call.attempt = make
    yield call
    resources.close()


def fails():
    raise ValueError("no luck")


def test_the_first_plugin_called_is_the_outermost_and_services_are_innermost(call, registry):
    seen = []

    def service():
        seen.append("service in")
        yield "service"
        seen.append("service out")

    registry.register_factory(str, service)
    report = call(lambda ctx: ctx.get(str), a=Wraps("a", seen), b=Wraps("b", seen))
    assert report.message == "service"
    assert seen == ["b in", "a in", "service in", "service out", "a out", "b out"]


def test_it_sees_a_commit_that_fails(call, registry):
    seen = []

    def transaction():
        yield "transaction"
        raise OSError("COMMIT failed")

    registry.register_factory(str, transaction)
    report = call(lambda ctx: ctx.get(str), tracer=Wraps("span", seen))
    assert report.outcome is State.FAILED
    assert seen[-1] == "span out: OSError('COMMIT failed')"


def test_it_sees_the_error_of_the_function_and_a_declared_failure(call):
    seen = []
    call(fails, tracer=Wraps("span", seen))
    call(lambda: JobResult.failure("disk full"), tracer=Wraps("span", seen))
    assert seen[1] == "span out: ValueError('no luck')"
    assert "disk full" in seen[3]


def test_it_is_entered_in_the_thread_where_the_function_runs(call):
    threads = []

    def note(attempt):
        threads.append(threading.current_thread())

    attempt = call.attempt(lambda: threads.append(threading.current_thread()), one=Returns(note))
    worker = threading.Thread(target=attempt.call)
    worker.start()
    worker.join()
    assert threads == [worker, worker]


def test_that_of_an_async_function_in_its_task(call):
    seen = []

    async def function():
        seen.append("function")

    assert call(function, one=Wraps("one", seen)).outcome is State.SUCCEEDED
    assert seen == ["one in", "function", "one out"]


def test_it_is_told_which_run_and_job(call):
    seen = []
    report = call(
        fails, one=Returns(lambda attempt: seen.append((attempt.run.id, attempt.job.name)))
    )
    assert seen == [(7, "fails")]
    assert report.error == "ValueError: no luck"


class Broken(contextlib.AbstractContextManager):
    def __enter__(self):
        raise LookupError("no collector")

    def __exit__(self, *_):
        raise AssertionError("never entered")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda _: {}["key"], "raised KeyError: 'key'"),
        (lambda _: sys.exit(4), "raised SystemExit: it called sys.exit(4)"),
        (lambda _: Broken(), "returned what raised on entering: LookupError: no collector"),
        (lambda _: "span", "returned 'span': return a context manager or None"),
    ],
)
def test_one_that_fails_on_entering_fails_the_attempt_before_its_function(call, make, said):
    called, outer = [], []
    report = call(lambda: called.append(1), tracing=Returns(make), other=Wraps("other", outer))
    assert report.outcome is State.FAILED
    assert f"the plugin 'tracing' did not let the attempt begin: its attempt_context() {said}" in (
        report.error
    )
    assert called == []
    assert outer[1].startswith("other out: PluginError")


def test_one_that_raises_on_leaving_fails_the_attempt_and_is_named(call):
    def refuse(error):
        raise OSError("COMMIT failed")

    report = call(lambda: "done", transaction=Wraps("t", [], on_exit=refuse))
    assert (report.outcome, report.error) == (State.FAILED, "OSError: COMMIT failed")
    assert "raised on leaving the attempt_context() of the plugin 'transaction'" in report.traceback


def test_one_that_swallows_an_error_is_named_and_ignored(call):
    report = call(fails, hushes=Wraps("h", [], on_exit=lambda error: True))
    assert (report.outcome, report.error) == (State.FAILED, "ValueError: no luck")
    assert "the attempt_context() of the plugin 'hushes' swallowed this" in report.traceback


def test_suppress_cannot_make_a_success_of_a_declared_failure(call):
    report = call(
        lambda: JobResult.failure("no"), h=Returns(lambda _: contextlib.suppress(BaseException))
    )
    assert (report.outcome, report.error) == (State.FAILED, "no")


def test_what_a_plugin_notes_is_kept_with_the_attempt(call):
    attempt = call.attempt(
        fails, tracer=Returns(lambda attempt: attempt.annotate(trace="abc", n=3))
    )
    report = attempt.said.onto(attempt.call())
    assert report.annotations == {"trace": "abc", "n": 3}
