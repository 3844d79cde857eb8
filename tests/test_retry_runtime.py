"""Retries, skips and queues as a plugin's author meets them: real files, threads and database."""

from __future__ import annotations

import threading
from datetime import timedelta
from queue import SimpleQueue

import pytest

from systemprompt_jobs import GIVE_UP, JobExtension, Runtime
from systemprompt_jobs._record import Recorder
from systemprompt_jobs.model import State

JOBS = """
import threading
from systemprompt_jobs import JobResult, Retry, Skip, job

calls = []

@job(max_attempts=3, retry_delay="0.01s")
def flaky(ctx):
    calls.append(ctx.run.attempt)
    if len(calls) < 3:
        raise ConnectionError(f"no luck {len(calls)}")
    return "at last"

@job(max_attempts=3, retry_delay="0s", retry_on="OSError")
def wrong():
    raise ValueError("never again")

@job(max_attempts=2, retry_delay="0s")
def refuses():
    return JobResult.failure("no")

@job
def asks():
    raise Retry("the service is busy", after="5m")

@job(max_attempts=2, give_up_on="Exception")
def asks_once(ctx):
    if ctx.run.attempt == 1:
        raise Retry(after=0)

@job
def skips():
    raise Skip("nothing new")

release, began = threading.Event(), threading.Event()

@job(schedule="* * * * * *", max_attempts=2)
def waits():
    began.set()
    release.wait(30)

@job(max_attempts=2, retry_delay="1h")
def fails_in_the_end():
    began.set()
    release.wait(30)
    raise OSError("no")

@job(overlap="queue")
def queued(ctx):
    calls.append(("begin", ctx.run.id))
    calls.append(("end", ctx.run.id))
"""


class Watch(JobExtension):
    """Keeps the names of the calls, and says what it is told to say about retries."""

    def __init__(self, advice=None):
        self.calls = []
        self.advice = advice
        self.retrying = threading.Event()

    def run_retrying(self, run, report, delay):
        self.retrying.set()
        self.calls.append(("run_retrying", run.attempt, report.error, run.status))

    def run_failed(self, run):
        self.calls.append(("run_failed", run.attempt))

    def tick_skipped(self, run):
        self.calls.append(("tick_skipped", run.reason))

    def run_finished(self, run, report):
        self.calls.append(("run_finished", run.attempt))

    def retry_delay(self, run, report):
        if isinstance(self.advice, Exception):
            raise self.advice
        return self.advice


@pytest.fixture
def root(tmp_path):
    (tmp_path / "services/scheduler").mkdir(parents=True)
    (tmp_path / "services/scheduler/config.yaml").write_text(
        "scheduler: {local_plugins: [jobs.py]}\n"
    )
    (tmp_path / "jobs.py").write_text(JOBS)
    (tmp_path / "jobs.py").chmod(0o644)
    return tmp_path


@pytest.fixture
def run(root):
    """Return a function that runs a job by hand and returns its run, attempts and hook calls."""

    def call(*names, advice=None):
        watch = Watch(advice)
        runtime = Runtime(root, plugins=[watch], environ={"SYSTEMPROMPT_PLUGINS": ""})
        runs = runtime.run(*names)
        attempts = [runtime.attempts(found) for found in runs]
        runtime.stop()
        return runs, attempts, watch.calls

    return call


def test_a_run_by_hand_waits_for_its_final_end(run):
    (flaky,), (attempts,), calls = run("flaky")
    assert (flaky.state, flaky.attempt, flaky.message) == (State.SUCCEEDED, 3, "at last")
    assert [(a.number, a.error) for a in attempts] == [
        (1, "ConnectionError: no luck 1"),
        (2, "ConnectionError: no luck 2"),
        (3, ""),
    ]
    assert "no luck 1" in attempts[0].traceback
    assert calls == [
        ("run_retrying", 1, "ConnectionError: no luck 1", "retrying"),
        ("run_retrying", 2, "ConnectionError: no luck 2", "retrying"),
        ("run_finished", 3),
    ]


def test_what_retry_on_does_not_name_fails_at_once_and_says_so(run):
    (wrong,), _, calls = run("wrong")
    assert (wrong.state, wrong.attempt) == (State.FAILED, 1)
    assert wrong.message == "not tried again: retry_on does not name ValueError"
    assert calls == [("run_failed", 1), ("run_finished", 1)]


def test_a_declared_failure_is_tried_again_too(run):
    (refuses,), (attempts,), _ = run("refuses")
    assert (refuses.state, len(attempts)) == (State.FAILED, 2)


def test_asking_for_a_retry_needs_an_attempt_that_is_left(run):
    (asks,), _, _ = run("asks")
    assert asks.state is State.FAILED
    assert asks.error == (
        "systemprompt_jobs.Retry: the service is busy "
        "(not tried again: no attempt is left, max_attempts is 1)"
    )


def test_a_job_that_asks_is_tried_again_whatever_it_gives_up_on(run):
    (asked,), (attempts,), _ = run("asks_once")
    assert (asked.state, len(attempts)) == (State.SUCCEEDED, 2)


def test_a_job_that_skips_itself_is_skipped_and_finished(run):
    (skipped,), (attempts,), calls = run("skips")
    assert (skipped.state, skipped.reason) == (State.SKIPPED, "job")
    assert (skipped.message, skipped.error) == ("nothing new", "")
    assert [a.outcome for a in attempts] == [State.SKIPPED]
    assert calls == [("tick_skipped", "job"), ("run_finished", 1)]


def test_a_plugin_may_give_a_run_up(run):
    (flaky,), _, _ = run("flaky", advice=GIVE_UP)
    assert (flaky.state, flaky.attempt) == (State.FAILED, 1)
    assert flaky.message == "not tried again: a plugin's retry_delay gave it up"


def test_a_plugin_may_say_when(run):
    (wrong,), (attempts,), _ = run("wrong", advice="0s")
    assert (wrong.state, len(attempts)) == (State.FAILED, 3)


@pytest.mark.parametrize("advice", ["soon", [], ValueError("broken")])
def test_a_plugin_that_talks_nonsense_or_raises_does_not_count(run, advice):
    (flaky,), _, _ = run("flaky", advice=advice)
    assert (flaky.state, flaky.attempt) == (State.SUCCEEDED, 3)


def test_two_runs_by_hand_of_a_queued_job_go_one_after_the_other(run):
    runs, _, _ = run("queued", "queued")
    assert [found.state for found in runs] == [State.SUCCEEDED] * 2
    assert runs[0].finished <= runs[1].started


def test_what_still_runs_when_the_scheduler_must_stop_is_left_to_others_if_attempts_are(root):
    runtime = Runtime(root, environ={"SYSTEMPROMPT_PLUGINS": ""})
    jobs = runtime.find("waits").job.function.__globals__
    runtime.start()
    assert jobs["began"].wait(30)
    runtime.stop(timedelta(0))
    jobs["release"].set()
    again = Runtime(root, environ={"SYSTEMPROMPT_PLUGINS": ""})
    (waiting,) = again.history(job="jobs:waits", states=["retrying"])
    assert (waiting.state, waiting.attempt) == (State.PENDING, 1)
    assert "told to stop" in waiting.message
    assert [a.outcome for a in again.attempts(waiting)] == [State.CANCELLED]
    assert again.status().counts["retrying"] == 1
    again.stop()


@pytest.mark.parametrize("fails", ["before the stop", "while it drains"])
def test_whoever_waits_for_a_run_is_told_when_it_will_not_be_tried_again(root, monkeypatch, fails):
    watch = Watch()
    runtime = Runtime(root, plugins=[watch], environ={"SYSTEMPROMPT_PLUGINS": ""})
    jobs = runtime.find("fails_in_the_end").job.function.__globals__
    answer = SimpleQueue()
    waiting = threading.Thread(target=lambda: answer.put(runtime.run("fails_in_the_end")))
    waiting.start()
    assert jobs["began"].wait(30)
    if fails == "before the stop":
        jobs["release"].set()
        assert watch.retrying.wait(30)
    else:
        close = Recorder.close
        monkeypatch.setattr(Recorder, "close", lambda self: (close(self), jobs["release"].set())[0])
    runtime.stop()
    (run,) = answer.get(timeout=30)
    waiting.join()
    assert (run.state, run.attempt, run.error) == (State.CANCELLED, 1, "OSError: no")
    assert run.message == "its node stopped before it was tried again"
    assert [name for name, *_ in watch.calls] == ["run_retrying", "run_finished"]
