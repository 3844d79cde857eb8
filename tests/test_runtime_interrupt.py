"""A whole runtime whose jobs hang, are cancelled, or are cut off at the stop."""

from __future__ import annotations

import sqlite3
import threading
from datetime import timedelta

import pytest
import structlog

from systemprompt_jobs import Runtime
from systemprompt_jobs.errors import StoreError, UsageError
from systemprompt_jobs.model import State, Trigger
from tests.support import PATIENCE_S, until
from tests.test_runtime import Watch, events, load, project  # noqa: F401  # fixtures

JOBS = """
import threading
from systemprompt_jobs import job

release = threading.Event()
began = threading.Event()
told = threading.Event()

@job(timeout="0.05")
def hangs(ctx):
    began.set()
    release.wait(30)
    return f"cancelled={ctx.cancelled}"

@job
def waits(ctx):
    began.set()
    ctx.sleep(30)

@job
def stubborn(ctx):
    began.set()
    ctx.interrupted.wait(30)
    told.set()
    release.wait(30)
    return "done all the same"

@job(schedule="* * * * * *")
def secondly():
    return "tick"
"""
OFF = "{extension: jobs, job: secondly, enabled: false}"


@pytest.fixture
def start(load):  # noqa: F811
    """Return a function that starts a scheduler on the jobs above."""
    runtimes = []

    def start(*entries, **arguments):
        runtime = load(*(entries or [OFF]), jobs=JOBS, **arguments)
        runtimes.append(runtime)
        runtime.start()
        return runtime

    yield start
    for runtime in runtimes:
        events(runtime).release.set()


@pytest.fixture
def by_hand():
    """Return a function that runs a job by hand on a thread; it returns what receives the run."""
    threads = []

    def run(runtime, name):
        answer = []
        thread = threading.Thread(target=lambda: answer.extend(runtime.run(name)))
        thread.start()
        threads.append(thread)
        return lambda: (thread.join(PATIENCE_S), answer[0])[1]

    yield run
    for thread in threads:
        thread.join(PATIENCE_S)


def slots(runtime):
    connection = sqlite3.connect(runtime.project.root / "var/jobs.db")
    found = connection.execute("SELECT run_id FROM jobs_slot").fetchall()
    connection.close()
    return [run_id for (run_id,) in found]


def test_who_waits_for_a_run_hears_when_the_node_stops_and_cannot_record_its_end(
    start, monkeypatch
):
    runtime = start()
    raised = []

    def by_hand():
        with pytest.raises(StoreError) as caught:
            runtime.run("waits")
        raised.append(str(caught.value))

    def away(*_arguments):
        raise StoreError("the disk is full")

    thread = threading.Thread(target=by_hand, daemon=True)
    thread.start()
    assert events(runtime).began.wait(PATIENCE_S)
    monkeypatch.setattr("systemprompt_jobs._store.runs.finish", away)
    runtime.stop(timedelta(0))
    thread.join(PATIENCE_S)
    assert raised == ["the scheduler has stopped, and could not record the end of the run"]


class TestTimeout:
    def test_a_run_that_hangs_times_out_and_its_thread_is_a_stray_until_it_ends(self, start):
        watch = Watch()
        runtime = start(watch=watch)
        with structlog.testing.capture_logs() as logged:
            (run,) = runtime.run("hangs")
            assert run.state is State.TIMED_OUT
            assert "goes on as a stray thread" in run.error
            assert "release.wait(30)" in runtime.traceback(run)
            assert slots(runtime) == [run.id]
            report = watch.until("run_timed_out").report
            assert report.stray
            assert watch.until("run_finished").report is report
            events(runtime).release.set()
            until(lambda: slots(runtime) == [])
        (ended,) = [entry for entry in logged if entry["event"] == "stray_ended"]
        assert (ended["job"], ended["outcome"]) == ("jobs:hangs", "succeeded")
        assert [r.state for r in runtime.history()] == [State.TIMED_OUT]

    def test_a_job_does_not_overlap_with_its_own_stray(self, start):
        runtime = start()
        runtime.run("hangs")
        (second,) = runtime.run("hangs")
        assert (second.state, second.reason) == (State.SKIPPED, "overlap")
        events(runtime).release.set()
        until(lambda: slots(runtime) == [])
        (third,) = runtime.run("hangs")
        assert (third.state, third.message) == (State.SUCCEEDED, "cancelled=False")

    def test_the_pool_stays_at_its_size(self, start):
        runtime = start(more="  workers: 2\n")
        runtime.run("hangs")
        (run,) = runtime.run("secondly")
        assert run.state is State.SUCCEEDED

    def test_a_node_whose_workers_are_all_strays_runs_nothing_until_one_ends(self, start, by_hand):
        on = "{extension: jobs, job: secondly, enabled: true}"
        runtime = start(on, more="  workers: 1\n  lease: 3s\n")
        answer = by_hand(runtime, "hangs")
        assert answer().state is State.TIMED_OUT
        until(lambda: runtime.status().nodes[0].strays == 1)
        until(lambda: not runtime.status().running)
        before = len(runtime.history(limit=1000))
        threading.Event().wait(1.5)
        assert len(runtime.history(limit=1000)) <= before + 1  # one may have been claimed ahead
        events(runtime).release.set()
        until(lambda: len(runtime.history(limit=1000, states=["succeeded"])) > before)
        until(lambda: runtime.status().nodes[0].strays == 0)


class TestCancel:
    def test_a_running_job_of_another_process_is_told_to_end(self, start, by_hand):
        runtime = start()
        other = Runtime(runtime.project.root, environ={"SYSTEMPROMPT_PLUGINS": ""})
        answer = by_hand(runtime, "waits")
        events(runtime).began.wait(PATIENCE_S)
        (running,) = runtime.history()
        asked = other.cancel(running.id, note="too long", who="ada")
        assert (asked.state, asked.message) == (State.RUNNING, "cancelled by ada: too long")
        ended = answer()
        assert (ended.state, ended.message) == (State.CANCELLED, "cancelled by ada: too long")
        other.stop()

    def test_one_that_takes_no_notice_and_succeeds_has_succeeded(self, start, by_hand):
        runtime = start()
        answer = by_hand(runtime, "stubborn")
        events(runtime).began.wait(PATIENCE_S)
        runtime.cancel(runtime.history()[0].id)
        assert events(runtime).told.wait(PATIENCE_S)
        events(runtime).release.set()
        assert (answer().state, answer().message) == (State.SUCCEEDED, "done all the same")

    def test_one_that_waits_is_cancelled_at_once_and_observed_where_it_was_done(self, start):
        runtime = start()
        with runtime._store.write() as connection:
            from systemprompt_jobs._rows import manual_key, run_values
            from systemprompt_jobs._store import runs as run_rows

            values = run_values(
                runtime.find("waits"), manual_key(), Trigger.MANUAL, runtime._clock.now()
            )
            (waiting,) = run_rows.add(connection, [values | {"state": State.PENDING}])
        watch = Watch()
        other = Runtime(runtime.project.root, plugins=[watch], environ={"SYSTEMPROMPT_PLUGINS": ""})
        run = other.cancel(waiting.id, who="ada")
        assert (run.state, run.message) == (State.CANCELLED, "cancelled by ada")
        call = watch.until("run_cancelled")
        assert (call.run, call.report.message) == (run, "cancelled by ada")
        assert watch.names() == ["run_cancelled"]
        assert runtime.history() == [run]
        other.stop()

    def test_one_that_has_ended_is_refused_and_nothing_is_audited(self, start):
        runtime = start()
        (run,) = runtime.run("secondly")
        with pytest.raises(UsageError, match=r"run 1 of jobs:secondly has ended: it is succeeded"):
            runtime.cancel(run.id)
        assert runtime.history() == [run]

    def test_one_that_does_not_exist_is_refused(self, start, load):  # noqa: F811
        with pytest.raises(UsageError, match=r"there is no run 7; `history` lists them"):
            start().cancel(7)
        with pytest.raises(UsageError, match=r"there is no run 7: nothing has run yet"):
            load(OFF, more="  database: sqlite:///var/other.db\n").cancel(7)


class TestStop:
    def test_what_outlasts_the_grace_is_told_and_may_end(self, start, by_hand):
        runtime = start()
        answer = by_hand(runtime, "waits")
        events(runtime).began.wait(PATIENCE_S)
        runtime.stop(timedelta(0))
        run = answer()
        assert run.state is State.CANCELLED
        assert run.message.startswith("still running when its process was told to stop")
        assert runtime.traceback(run) == ""  # it ended by itself

    def test_what_does_not_end_then_is_recorded_with_the_place_where_it_hangs(self, start, by_hand):
        runtime = start()
        answer = by_hand(runtime, "stubborn")
        events(runtime).began.wait(PATIENCE_S)
        runtime.stop(timedelta(0))
        run = answer()
        assert run.state is State.CANCELLED
        assert "release.wait(30)" in runtime.traceback(run)
        assert slots(runtime) == []

    def test_the_slots_of_strays_are_given_back(self, start):
        runtime = start()
        (run,) = runtime.run("hangs")
        assert slots(runtime) == [run.id]
        runtime.stop(timedelta(0))
        assert slots(runtime) == []
