"""Attempts end early: over their timeout, cancelled, without a lease, or at the stop."""

from __future__ import annotations

from datetime import timedelta

import pytest

from systemprompt_jobs._interrupt import Interrupter
from systemprompt_jobs.interfaces import Capabilities
from systemprompt_jobs.model import Report, Run, State, Trigger
from tests.support import ManualClock, captured

LEASE_S = 30.0


class Attempt:
    def __init__(self, run):
        self.run = run

    def stack(self):
        return "in the endless loop"


class Executor:
    def __init__(self, *, kills=False, asynchronous=False):
        self.capabilities = Capabilities(kills=kills, asynchronous=asynchronous)
        self.interrupted = []

    def interrupt(self, attempt):
        self.interrupted.append(attempt.run.id)


class Rig:
    """An interrupter without its thread."""

    def __init__(self, workers=2):
        self.clock = ManualClock()
        self.reports = {}
        self.released = []
        self.woken = 0
        self.lease_until = self.clock.monotonic() + 1_000_000
        self.threads, self.processes = Executor(), Executor(kills=True)
        self.loop = Executor(asynchronous=True)
        self.interrupter = Interrupter(
            self.clock,
            workers={"default": workers, "asyncio": 100},
            lease_left=lambda: self.lease_until - self.clock.monotonic(),
            report=self._report,
            released=lambda run: self.released.append(run.id),
            wake=self._wake,
        )

    def _report(self, run, report):
        assert run.id not in self.reports, "a run is reported once"
        self.reports[run.id] = report

    def _wake(self):
        self.woken += 1

    def start(self, id_, executor=None, timeout_s=None, fence=1):
        run = Run(
            id_, f"ext:job{id_}", Trigger.SCHEDULE, State.RUNNING, fence=fence, pool="default"
        )
        timeout = None if timeout_s is None else timedelta(seconds=timeout_s)
        self.interrupter.watch(Attempt(run), executor or self.threads, timeout)
        self.interrupter.began(run)
        return run

    def end(self, run, outcome=State.SUCCEEDED, **values):
        now = self.clock.now()
        self.interrupter.ended(run, Report(outcome, now, now, **values))

    def pass_time(self, seconds):
        self.clock.advance(seconds)
        return self.interrupter.step()


@pytest.fixture
def rig():
    return Rig()


@pytest.fixture
def logged():
    with captured() as entries:
        yield entries


class TestTimeout:
    def test_an_attempt_that_ends_in_time_is_left_alone(self, rig):
        run = rig.start(1, timeout_s=5)
        rig.pass_time(4.9)
        rig.end(run, message="done")
        rig.pass_time(10)
        assert (rig.reports[1].outcome, rig.reports[1].message) == (State.SUCCEEDED, "done")
        assert rig.threads.interrupted == []

    def test_an_executor_that_raises_spares_no_other_attempt_its_timeout(self, rig, logged):
        class Broken(Executor):
            def interrupt(self, attempt):
                raise OSError("no such process")

        rig.start(1, executor=Broken(kills=True), timeout_s=5)
        rig.start(2, timeout_s=5)
        rig.pass_time(5)
        assert rig.reports[2].outcome is State.TIMED_OUT
        assert [(entry["event"], entry["run"]) for entry in logged] == [("interrupt_failed", 1)]

    def test_a_thread_is_reported_at_once_and_goes_on_as_a_stray(self, rig):
        rig.start(1, timeout_s=5)
        rig.pass_time(5)
        report = rig.reports[1]
        assert (report.outcome, report.stray) == (State.TIMED_OUT, True)
        assert report.duration == timedelta(seconds=5)
        assert "still ran after 5 s" in report.error
        assert "use the `processes` executor" in report.error
        assert report.traceback == "in the endless loop"
        assert rig.threads.interrupted == [1]
        assert [run.id for run in rig.interrupter.strays()] == [1]
        assert rig.interrupter.running() == []

    def test_what_a_stray_ends_in_is_dropped_and_its_slot_released(self, rig, logged):
        run = rig.start(1, timeout_s=5)
        rig.pass_time(5)
        assert rig.released == []
        rig.clock.advance(2.5)
        rig.end(run, message="too late")
        assert rig.reports[1].outcome is State.TIMED_OUT
        assert rig.released == [1]
        assert rig.interrupter.strays() == []
        event = {"job": "ext:job1", "run": 1, "ran_s": 7.5, "outcome": "succeeded"}
        assert logged == [{"event": "stray_ended", "log_level": "warning", **event}]

    def test_what_can_be_killed_is_reported_when_it_has_ended(self, rig):
        run = rig.start(1, rig.processes, timeout_s=5)
        rig.pass_time(5)
        assert rig.processes.interrupted == [1]
        assert rig.reports == {}
        rig.end(run, State.FAILED, error="killed by signal 9", traceback="where it was")
        report = rig.reports[1]
        assert (report.outcome, report.stray) == (State.TIMED_OUT, False)
        assert report.error_types == ("TimeoutError", "OSError", "Exception", "BaseException")
        assert report.error == "ended after 5 s, its timeout"
        assert report.traceback == "where it was"
        assert rig.released == []

    def test_a_coroutine_that_ends_by_its_cancelled_error_is_no_stray(self, rig, logged):
        run = rig.start(1, rig.loop, timeout_s=5)
        assert rig.pass_time(5) == 2
        assert (rig.loop.interrupted, rig.reports) == ([1], {})
        rig.end(run, State.CANCELLED, traceback="where it awaited")
        report = rig.reports[1]
        assert (report.outcome, report.stray) == (State.TIMED_OUT, False)
        assert report.error == "ended after 5 s, its timeout"
        assert report.error_types[0] == "TimeoutError"
        assert report.traceback == "where it awaited"
        rig.pass_time(2)
        assert (rig.loop.interrupted, rig.released, logged) == ([1], [], [])

    def test_a_coroutine_that_goes_on_is_a_stray_after_a_moment(self):
        rig = Rig(workers=1)
        run = rig.start(1, rig.loop, timeout_s=5)
        rig.pass_time(5)
        rig.pass_time(2)
        report = rig.reports[1]
        assert (report.outcome, report.stray) == (State.TIMED_OUT, True)
        assert (
            report.error
            == "still ran after 5 s, its timeout, and goes on in spite of its CancelledError"
        )
        assert rig.loop.interrupted == [1]
        assert rig.interrupter.exhausted == ("default",)
        rig.end(run)
        assert rig.released == [1]

    def test_what_succeeds_after_its_time_was_up_has_timed_out_all_the_same(self, rig):
        run = rig.start(1, rig.processes, timeout_s=5)
        rig.pass_time(5)
        rig.end(run)
        assert rig.reports[1].outcome is State.TIMED_OUT

    def test_the_time_runs_from_the_call_and_not_from_the_queue(self, rig):
        run = Run(1, "ext:job1", Trigger.SCHEDULE, State.RUNNING)
        rig.interrupter.watch(Attempt(run), rig.threads, timedelta(seconds=5))
        rig.pass_time(60)
        rig.interrupter.began(run)
        rig.pass_time(4.9)
        assert rig.reports == {}
        rig.pass_time(0.1)
        assert rig.reports[1].outcome is State.TIMED_OUT

    def test_the_thread_waits_until_the_first_deadline_and_is_woken_by_an_earlier_one(self, rig):
        rig.start(1, timeout_s=50)
        assert rig.woken == 1
        rig.start(2, timeout_s=60)
        assert rig.woken == 1
        rig.start(3, timeout_s=20)
        assert rig.woken == 2
        assert rig.interrupter.step() == 20

    def test_attempts_without_a_timeout_wake_nobody(self, rig):
        rig.start(1)
        assert (rig.woken, rig.interrupter.step()) == (0, 1_000_000)

    def test_deadlines_of_ended_attempts_do_not_pile_up(self, rig):
        for n in range(5_000):
            rig.end(rig.start(n, timeout_s=3600))
        assert len(rig.interrupter._deadlines) < 1_100

    def test_a_run_that_came_back_under_a_higher_fence_is_another_attempt(self, rig):
        old = rig.start(1, timeout_s=5)
        rig.pass_time(5)
        rig.reports.clear()
        new = rig.start(1, fence=2)
        rig.end(old)
        assert rig.reports == {}
        rig.end(new)
        assert rig.reports[1].outcome is State.SUCCEEDED


class TestExhausted:
    def test_as_many_strays_as_workers_exhaust_the_node_until_one_ends(self, rig, logged):
        first, _ = rig.start(1, timeout_s=5), rig.start(2, timeout_s=5)
        assert not rig.interrupter.exhausted
        rig.pass_time(5)
        assert rig.interrupter.exhausted == ("default",)
        event = {"event": "workers_exhausted", "log_level": "error"}
        assert logged == [
            {**event, "pool": "default", "strays": 2, "jobs": ["ext:job1", "ext:job2"]}
        ]
        rig.end(first)
        assert not rig.interrupter.exhausted


class TestCancel:
    def test_a_function_that_ends_when_told_is_cancelled(self, rig):
        run = rig.start(1)
        rig.interrupter.cancel([(1, 1, "cancelled by ada")])
        assert rig.threads.interrupted == [1]
        assert rig.reports == {}
        rig.end(run, State.CANCELLED, message="it was told to end", traceback="where")
        report = rig.reports[1]
        assert (report.outcome, report.message) == (State.CANCELLED, "cancelled by ada")
        assert report.traceback == ""

    def test_one_that_fails_on_its_way_out_is_cancelled_and_says_why_it_failed(self, rig):
        run = rig.start(1)
        rig.interrupter.cancel([(1, 1, "cancelled by ada")])
        rig.end(run, State.FAILED, error="ValueError: half done", retry_after=timedelta(hours=1))
        report = rig.reports[1]
        assert (report.outcome, report.error) == (State.CANCELLED, "ValueError: half done")
        assert report.retry_after is None

    def test_one_that_succeeds_all_the_same_has_succeeded(self, rig):
        run = rig.start(1)
        rig.interrupter.cancel([(1, 1, "cancelled by ada")])
        rig.end(run, message="done")
        assert (rig.reports[1].outcome, rig.reports[1].message) == (State.SUCCEEDED, "done")

    def test_a_killed_process_is_no_error(self, rig):
        run = rig.start(1, rig.processes)
        rig.interrupter.cancel([(1, 1, "cancelled")])
        rig.end(run, State.FAILED, error="killed by signal 15")
        assert (rig.reports[1].outcome, rig.reports[1].error) == (State.CANCELLED, "")

    def test_it_is_interrupted_once_however_often_the_node_hears_of_it(self, rig):
        rig.start(1)
        rig.interrupter.cancel([(1, 1, "x")])
        rig.interrupter.cancel([(1, 1, "x")])
        assert rig.threads.interrupted == [1]

    def test_another_fence_is_not_meant(self, rig):
        rig.start(1, fence=2)
        rig.interrupter.cancel([(1, 1, "x")])
        assert rig.threads.interrupted == []

    def test_one_that_ignores_it_still_has_its_timeout(self, rig):
        rig.start(1, timeout_s=5)
        rig.interrupter.cancel([(1, 1, "x")])
        rig.pass_time(5)
        assert rig.reports[1].outcome is State.TIMED_OUT


class TestLease:
    def test_a_node_without_a_lease_interrupts_all_it_runs(self, rig):
        rig.lease_until = rig.clock.monotonic() + LEASE_S
        run, _ = rig.start(1), rig.start(2, rig.processes)
        assert rig.pass_time(29) == 1
        assert rig.threads.interrupted == []
        rig.pass_time(1)
        assert (rig.threads.interrupted, rig.processes.interrupted) == ([1], [2])
        rig.end(run, State.CANCELLED)
        assert "could not renew its lease" in rig.reports[1].message
        assert rig.reports[1].retry_after == timedelta()  # by another node

    def test_it_sleeps_until_the_lease_may_run_out(self, rig):
        rig.lease_until = rig.clock.monotonic() + LEASE_S
        assert rig.interrupter.step() == LEASE_S


class TestStop:
    def test_what_does_not_end_is_reported_and_dropped_later(self, rig):
        run = rig.start(1)
        rig.interrupter.interrupt_all("the scheduler stops")
        rig.interrupter.abandon_all("the scheduler stops")
        report = rig.reports[1]
        assert (report.outcome, report.message) == (State.CANCELLED, "the scheduler stops")
        assert (report.error, report.traceback) == ("", "in the endless loop")
        assert report.retry_after == timedelta()
        rig.end(run)
        assert rig.reports[1] is report

    def test_what_somebody_had_cancelled_is_not_tried_again_after_the_stop(self, rig):
        rig.start(1)
        rig.interrupter.cancel([(1, 1, "cancelled by ada")])
        rig.interrupter.interrupt_all("the scheduler stops")
        rig.interrupter.abandon_all("the scheduler stops")
        assert rig.reports[1].retry_after is None

    @pytest.mark.parametrize("kills", [True, False])
    def test_it_is_known_whether_waiting_is_worth_it(self, rig, kills):
        run = rig.start(1, rig.processes if kills else rig.threads)
        assert rig.interrupter.can_kill is kills
        rig.end(run)
        assert not rig.interrupter.can_kill
