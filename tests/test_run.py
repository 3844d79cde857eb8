"""One attempt: whatever a function does becomes a report, and nothing escapes."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import sys
from collections import UserString
from datetime import UTC, datetime, timedelta

import pytest
import svcs
from sqlalchemy import Engine, create_engine, text

from systemprompt_jobs import JobContext, JobResult, job
from systemprompt_jobs._context import Resources
from systemprompt_jobs._run import MAX_MESSAGE, MAX_TRACEBACK, Attempt
from systemprompt_jobs.errors import RunCancelled
from systemprompt_jobs.model import Run, State, Trigger
from tests.support import START, captured, make_plan


class Bench:
    """Runs functions as attempts, with databases and services of its own."""

    def __init__(self, databases):
        self.registry = svcs.Registry()
        self.resources = Resources(databases, self.registry)

    def attempt(self, function, *, config=None, **run):
        declared = job(function)
        plan = dataclasses.replace(make_plan(), job=declared, config=config or {})
        values = {"id": 7, "job_id": plan.id, "trigger": Trigger.SCHEDULE, "state": State.RUNNING}
        clock = itertools.count()
        return Attempt(
            plan,
            Run(**(values | {"tick": START, "attempt": 1} | run)),
            self.resources,
            lambda: START + timedelta(seconds=next(clock)),
        ).call()


@pytest.fixture
def bench(tmp_path):
    bench = Bench({"default": f"sqlite:///{tmp_path}/app.db", "odd": "nosuch://x", "bad": "://"})
    yield bench
    bench.resources.close()


@pytest.fixture
def logged():
    with captured() as entries:
        yield entries


class Number:
    """An integer of another library."""

    def __index__(self):
        return 12


class TestResults:
    def test_none_is_success(self, bench):
        report = bench.attempt(lambda: None)
        assert report.outcome is State.SUCCEEDED
        assert (report.message, report.error, report.traceback) == ("", "", "")
        assert (report.processed, report.failed) == (None, None)

    def test_times_are_those_of_the_call(self, bench):
        report = bench.attempt(lambda: None)
        assert (report.started, report.finished) == (START, START + timedelta(seconds=1))
        assert report.duration == timedelta(seconds=1)

    def test_a_clock_that_steps_back_makes_no_negative_duration(self, bench):
        steps = iter([START, START - timedelta(hours=1)])
        plan = dataclasses.replace(make_plan(), job=job(lambda: None))
        run = Run(1, plan.id, Trigger.MANUAL, State.RUNNING)
        report = Attempt(plan, run, bench.resources, lambda: next(steps)).call()
        assert report.duration == timedelta(0)

    def test_a_text_is_its_message(self, bench):
        report = bench.attempt(lambda: "42 rows")
        assert (report.outcome, report.message) == (State.SUCCEEDED, "42 rows")

    def test_a_result_says_more(self, bench):
        result = JobResult.success().with_message("most").with_stats(processed=9, failed=1)
        report = bench.attempt(lambda: result)
        assert (report.outcome, report.message) == (State.SUCCEEDED, "most")
        assert (report.processed, report.failed, report.error) == (9, 1, "")

    def test_a_failure_is_one_without_a_traceback(self, bench):
        report = bench.attempt(lambda: JobResult.failure("disk full").with_stats(processed=3))
        assert (report.outcome, report.message) == (State.FAILED, "disk full")
        assert (report.error, report.traceback, report.processed) == ("disk full", "", 3)

    def test_a_failure_without_words_has_an_error_all_the_same(self, bench):
        assert bench.attempt(lambda: JobResult.failure("")).error == "the job returned a failure"

    @pytest.mark.parametrize("odd", [5, True, [], {}, b"x", object(), UserString("x"), JobResult])
    def test_anything_else_succeeds_with_a_warning(self, bench, logged, odd):
        report = bench.attempt(lambda: odd)
        kind = type(odd).__name__
        assert report.outcome is State.SUCCEEDED
        assert report.message == f"returned {kind}, ignored: return None, text or a JobResult"
        assert logged == [
            {
                "event": "result_ignored",
                "log_level": "warning",
                "job": "ext:cleanup",
                "run": 7,
                "type": kind,
            }
        ]

    @pytest.mark.parametrize(
        ("given", "kept"),
        [
            (3, 3),
            (True, 1),
            (Number(), 12),
            (10**30, 2**63 - 1),
            (-(10**30), -(2**63 - 1)),
            pytest.param(10**5000, 2**63 - 1, id="5001 digits"),
            (1.5, None),
            ("3", None),
            (None, None),
        ],
    )
    def test_counts_fit_a_database(self, bench, given, kept):
        report = bench.attempt(lambda: JobResult.success().with_stats(given, given))
        assert (report.processed, report.failed) == (kept, kept)

    def test_a_message_of_another_type_is_shown_as_text(self, bench):
        report = bench.attempt(lambda: JobResult(ok=False, message=ValueError("no luck")))
        assert (report.message, report.error) == ("no luck", "no luck")


class TestTexts:
    HUGE = 50_000_000

    def test_a_huge_message_is_cut_and_says_so(self, bench):
        message = bench.attempt(lambda: "x" * self.HUGE).message
        assert message == "x" * MAX_MESSAGE + " … (cut, 50,000,000 characters in all)"

    def test_a_huge_error_is_cut_and_says_so(self, bench):
        def fails():
            raise ValueError("x" * self.HUGE + "the end")

        report = bench.attempt(fails)
        assert len(report.error) < MAX_MESSAGE + 100
        assert report.error.endswith("characters in all)")
        assert len(report.traceback) < MAX_TRACEBACK + 100
        assert report.traceback.startswith("(cut, 50,0")
        assert report.traceback.endswith("the end\n")

    def test_one_of_just_the_limit_is_whole(self, bench):
        assert bench.attempt(lambda: "x" * MAX_MESSAGE).message == "x" * MAX_MESSAGE

    @pytest.mark.parametrize("where", ["message", "failure", "error"])
    def test_what_databases_refuse_is_replaced(self, bench, where):
        bad = "a\0b\ud800c"

        def function():
            if where == "error":
                raise ValueError(bad)
            return bad if where == "message" else JobResult.failure(bad)

        report = bench.attempt(function)
        shown = report.message if where == "message" else report.error
        assert shown.endswith("a\ufffdb?c")
        for value in (report.message, report.error, report.traceback):
            assert "\0" not in value
            value.encode()


class OddError(Exception):
    """An error that cannot be shown."""

    def __str__(self):
        raise RuntimeError("nor this")


def raising(error):
    def raises_it():
        raise error

    return raises_it


class TestErrors:
    def test_an_error_is_named_with_its_module_and_text(self, bench):
        report = bench.attempt(raising(LookupError("no row")))
        assert (report.outcome, report.error) == (State.FAILED, "LookupError: no row")
        report = bench.attempt(raising(svcs.exceptions.ServiceNotFoundError("x")))
        assert report.error == "svcs.exceptions.ServiceNotFoundError: x"

    def test_one_without_a_text_has_no_colon(self, bench):
        assert bench.attempt(raising(ValueError())).error == "ValueError"

    def test_the_traceback_begins_in_the_jobs_own_code(self, bench):
        def inner():
            return 1 / 0

        def outer():
            inner()

        lines = bench.attempt(outer).traceback.splitlines()
        assert lines[0] == "Traceback (most recent call last):"
        assert lines[1].startswith(f'  File "{__file__}", line ')
        assert lines[1].endswith("in outer")
        assert lines[-1] == "ZeroDivisionError: division by zero"
        assert "systemprompt_jobs" not in "".join(lines)

    def test_that_of_an_async_job_too(self, bench):
        async def inner():
            await asyncio.sleep(0)
            return 1 / 0

        async def outer():
            await inner()

        lines = bench.attempt(outer).traceback.splitlines()
        assert lines[1].endswith("in outer")
        assert "asyncio" not in "".join(lines)

    def test_causes_are_kept(self, bench):
        def fails():
            try:
                {}["key"]
            except KeyError as error:
                raise ValueError("outer") from error

        assert "KeyError: 'key'" in bench.attempt(fails).traceback

    @pytest.mark.parametrize(
        ("error", "shown"),
        [
            (KeyboardInterrupt(), "KeyboardInterrupt"),
            (SystemExit(), "SystemExit: it called sys.exit(None)"),
            (SystemExit(0), "SystemExit: it called sys.exit(0)"),
            (SystemExit("bye"), "SystemExit: it called sys.exit('bye')"),
            (GeneratorExit(), "GeneratorExit"),
            (MemoryError(), "MemoryError"),
            (asyncio.CancelledError("x"), "asyncio.exceptions.CancelledError: x"),
            (StopIteration(1), "StopIteration: 1"),
            (OddError(), "OddError: <exception str() failed>"),
            (SyntaxError("bad template", ("t", 1, 1, "x", 1, 2)), "SyntaxError: bad template"),
        ],
        ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
    )
    def test_no_kind_of_error_escapes(self, bench, error, shown):
        report = bench.attempt(raising(error))
        assert report.outcome is State.FAILED
        assert report.error.endswith(shown)
        assert "in raises_it" in report.traceback

    @pytest.mark.parametrize(
        "error", [KeyboardInterrupt(), SystemExit(3), asyncio.CancelledError()]
    )
    def test_nor_from_an_async_job(self, bench, error):
        async def fails():
            raise error

        report = bench.attempt(fails)
        assert report.outcome is State.FAILED
        assert type(error).__name__ in report.error

    def test_notes_are_in_the_traceback_and_not_taken_for_the_error(self, bench):
        error = ValueError("no luck")
        error.add_note("tried 3 times")
        report = bench.attempt(raising(error))
        assert report.error == "ValueError: no luck"
        assert report.traceback.endswith("tried 3 times\n")

    def test_endless_recursion_ends(self, bench):
        def deeper():
            deeper()

        report = bench.attempt(deeper)
        assert report.error.startswith("RecursionError: maximum recursion depth")
        assert len(report.traceback) < MAX_TRACEBACK

    def test_a_group_shows_its_members(self, bench):
        report = bench.attempt(raising(ExceptionGroup("both", [ValueError("a"), OddError()])))
        assert report.error == "ExceptionGroup: both (2 sub-exceptions)"
        assert "ValueError: a" in report.traceback


class TestCalling:
    def test_an_async_job_is_awaited(self, bench):
        async def download(ctx, *, n: int = 2):
            await asyncio.sleep(0)
            return f"{ctx.run.id} {n}"

        assert bench.attempt(download).message == "7 2"

    def test_the_context_is_the_one_positional_argument_whatever_its_name(self, bench):
        def function(anything, /):
            return type(anything).__name__

        assert bench.attempt(function).message == "JobContext"

    def test_a_function_need_not_take_it(self, bench):
        assert bench.attempt(lambda *, n=1: str(n)).message == "1"

    def test_parameters_are_converted_by_annotation(self, bench):
        seen = []

        def function(ctx, *, age: timedelta, since: datetime, n: int = 3):
            seen.extend([{"age": age, "since": since, "n": n}, dict(ctx.parameters)])

        bench.attempt(function, parameters={"age": "30d", "since": "2026-01-01T00:00:00Z"})
        values = {"age": timedelta(days=30), "since": datetime(2026, 1, 1, tzinfo=UTC), "n": 3}
        assert seen == [values, values]

    def test_stored_parameters_that_no_longer_fit_fail_the_run_in_plain_words(self, bench):
        called = []

        def function(*, n: int):
            called.append(n)

        report = bench.attempt(function, parameters={"n": "many", "m": 1})
        assert report.outcome is State.FAILED
        assert report.traceback == ""
        assert "m" in report.error
        assert 'n: "many" does not fit int' in report.error
        assert called == []

    def test_a_job_that_prints_megabytes_is_no_trouble(self, bench, capsys):
        def chatty():
            for _ in range(30):
                sys.stdout.write("x" * 100_000)
            return "done"

        assert bench.attempt(chatty).message == "done"
        assert len(capsys.readouterr().out) == 30 * 100_000

    def test_a_job_that_closes_its_output_is_no_trouble(self, bench, monkeypatch):
        def rude():
            sys.stdout = None

        monkeypatch.setattr(sys, "stdout", sys.stdout)
        assert bench.attempt(rude).outcome is State.SUCCEEDED


class TestContext:
    def context(self, bench, **arguments):
        seen = []
        bench.attempt(lambda context: seen.append(context), **arguments)  # noqa: PLW0108
        return seen[0]

    def test_it_shows_the_run_and_its_tick(self, bench):
        context = self.context(bench)
        assert isinstance(context, JobContext)
        assert context.run.id == 7
        assert context.tick == START

    def test_a_run_by_hand_has_no_tick(self, bench):
        assert self.context(bench, tick=None).tick is None

    @pytest.mark.parametrize("enforce", [True, False])
    def test_enforce_is_the_runs(self, bench, enforce):
        assert self.context(bench, enforce=enforce).enforce is enforce

    def test_config_is_the_plans(self, bench):
        assert self.context(bench, config={"url": "x"}).config == {"url": "x"}

    def test_it_cannot_be_changed(self, bench):
        with pytest.raises(dataclasses.FrozenInstanceError):
            self.context(bench).enforce = True

    @pytest.mark.parametrize("mapping", ["parameters", "config"])
    def test_what_it_holds_cannot_be_changed(self, bench, mapping):
        def function(ctx, *, n=1):
            getattr(ctx, mapping)["n"] = 2

        report = bench.attempt(function, config={"n": 1})
        assert "does not support item assignment" in report.error

    def test_its_log_is_bound_to_job_run_attempt_and_node(self, bench, logged):
        def function(ctx):
            ctx.log.info("halfway", rows=5)

        bench.attempt(function)
        expected = {"job": "ext:cleanup", "run": 7, "attempt": 1, "node": "", "rows": 5}
        assert logged == [{"event": "halfway", "log_level": "info", **expected}]


class TestEnding:
    """Functions that are told to end."""

    def test_nobody_is_cancelled_by_default(self, bench):
        def function(ctx):
            ctx.check_cancelled()
            ctx.sleep(0)
            ctx.sleep(timedelta(microseconds=1))
            return str(ctx.cancelled)

        assert bench.attempt(function).message == "False"

    def test_the_context_says_so(self, bench):
        def function(ctx):
            ctx.interrupted.set()
            return str(ctx.cancelled)

        assert bench.attempt(function).message == "True"

    @pytest.mark.parametrize("how", ["check", "sleep", "sleep for a timedelta"])
    def test_checking_and_sleeping_end_it_past_every_except_exception(self, bench, how):
        def function(ctx):
            ctx.interrupted.set()
            try:
                if how == "check":
                    ctx.check_cancelled()
                ctx.sleep(3600 if how == "sleep" else timedelta(hours=1))
            except Exception:  # noqa: BLE001
                return "went on"

        report = bench.attempt(function)
        assert (report.outcome, report.error) == (State.CANCELLED, "")
        assert "ctx." in report.traceback  # where it was, should its time be up
        assert report.message == "run 7 was told to end"

    def test_an_async_job_that_is_cancelled_is_cancelled(self, bench):
        async def function(ctx):
            ctx.interrupted.set()
            raise asyncio.CancelledError

        assert bench.attempt(function).outcome is State.CANCELLED

    def test_its_services_see_that_it_did_not_succeed(self, bench):
        seen = []

        def mailer():
            try:
                yield "mailer"
            except BaseException as error:
                seen.append(type(error).__name__)
                raise

        bench.registry.register_factory(str, mailer, suppress_context_exit=False)

        def function(ctx):
            ctx.get(str)
            ctx.interrupted.set()
            ctx.check_cancelled()

        assert bench.attempt(function).outcome is State.CANCELLED
        assert seen == ["RunCancelled"]

    def test_raising_it_without_being_told_is_a_failure(self, bench):
        report = bench.attempt(raising(RunCancelled("just so")))
        assert report.outcome is State.FAILED
        assert "RunCancelled: just so" in report.error

    def test_one_that_was_told_before_it_began_is_not_called(self, bench):
        called = []
        plan = dataclasses.replace(make_plan(), job=job(lambda: called.append(1)))
        run = Run(1, plan.id, Trigger.MANUAL, State.RUNNING)
        attempt = Attempt(plan, run, bench.resources, lambda: START)
        attempt.interrupt()
        assert attempt.call().outcome is State.CANCELLED
        assert called == []

    def test_its_stack_shows_where_it_is_from_its_own_code_on(self, bench):
        stacks = []

        def deep():
            stacks.append(attempt.stack())

        def function():
            deep()

        plan = dataclasses.replace(make_plan(), job=job(function))
        run = Run(1, plan.id, Trigger.MANUAL, State.RUNNING)
        attempt = Attempt(plan, run, bench.resources, lambda: START)
        assert attempt.stack() == ""
        attempt.call()
        lines = stacks[0].splitlines()
        assert lines[0] == "Still at work (most recent call last):"
        assert lines[1].endswith("in function")
        assert "in deep" in stacks[0]
        assert attempt.stack() == ""


class TestDatabases:
    def test_a_real_one_is_written_and_read(self, bench):
        def write(ctx):
            with ctx.db_pool(Engine).begin() as connection:
                connection.execute(text("CREATE TABLE t (n INTEGER)"))
                connection.execute(text("INSERT INTO t VALUES (42)"))

        def read(ctx):
            with ctx.db_pool(Engine, "default").connect() as connection:
                return str(connection.scalar(text("SELECT n FROM t")))

        assert bench.attempt(write).error == ""
        assert bench.attempt(read).message == "42"

    def test_all_runs_share_one_engine(self, bench):
        engines = set()
        for _ in range(2):
            bench.attempt(lambda ctx: engines.add(ctx.db_pool(Engine)))
        assert len(engines) == 1

    @pytest.mark.parametrize(
        ("name", "said"),
        [
            ("nowhere", "no database 'nowhere' is configured; there is bad, default, odd"),
            ("odd", "database 'odd' cannot be used"),
            ("bad", "database 'bad' cannot be used"),
        ],
    )
    def test_one_that_cannot_be_used_is_named(self, bench, name, said):
        report = bench.attempt(lambda ctx: ctx.db_pool(Engine, name))
        assert report.error.startswith(f"systemprompt_jobs.errors.ServiceError: {said}")

    def test_without_any_the_error_says_how_to_add_one(self):
        error = Bench({}).attempt(lambda ctx: ctx.db_pool(Engine)).error
        assert "no database 'default' is configured; there is none" in error
        assert "scheduler.databases" in error

    @pytest.mark.parametrize("kind", [str, None, "Engine", create_engine])
    def test_it_takes_only_engine(self, bench, kind):
        error = bench.attempt(lambda ctx: ctx.db_pool(kind)).error
        assert f"db_pool takes sqlalchemy.Engine, got {kind!r}" in error


class Mailer:
    """A service."""


class TestServices:
    def test_a_registered_one_is_made_once_per_run(self, bench):
        bench.registry.register_factory(Mailer, Mailer)
        seen = []

        def function(ctx):
            seen.append((ctx.get(Mailer), ctx.get(Mailer)))

        bench.attempt(function)
        bench.attempt(function)
        assert seen[0][0] is seen[0][1]
        assert seen[0][0] is not seen[1][0]

    @pytest.mark.parametrize("error", [None, ValueError("no luck"), SystemExit(1)])
    def test_it_is_closed_when_the_run_ends_however_it_ends(self, bench, error):
        events = []

        def factory():
            events.append("open")
            yield Mailer()
            events.append("closed")

        def function(ctx):
            ctx.get(Mailer)
            events.append("working")
            if error:
                raise error

        bench.registry.register_factory(Mailer, factory)
        bench.attempt(function)
        assert events == ["open", "working", "closed"]

    def test_one_that_nobody_asks_for_is_not_made(self, bench):
        bench.registry.register_factory(Mailer, lambda: pytest.fail("made"))
        assert bench.attempt(lambda: None).error == ""

    def test_one_that_nobody_registered_says_where_to(self, bench):
        assert bench.attempt(lambda ctx: ctx.get(Mailer)).error == (
            f"systemprompt_jobs.errors.ServiceError: no service {__name__}.Mailer is registered: "
            "a plugin registers it in its register_services hook"
        )

    def test_a_factory_that_raises_fails_the_run(self, bench):
        bench.registry.register_factory(Mailer, raising(OSError("no route")))
        report = bench.attempt(lambda ctx: ctx.get(Mailer))
        assert (report.outcome, report.error) == (State.FAILED, "OSError: no route")
