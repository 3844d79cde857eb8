"""Retries, queues and slots where attempts are ended early: by a timeout, by somebody, at a stop."""

from __future__ import annotations

import threading
from datetime import timedelta
from queue import SimpleQueue

import pytest

from systemprompt_jobs import JobExtension, Runtime
from systemprompt_jobs._retry import settle
from systemprompt_jobs._store import cancels, said
from systemprompt_jobs._store import runs as run_rows
from systemprompt_jobs.builtin.threads import Threads
from systemprompt_jobs.errors import StoreError
from systemprompt_jobs.interfaces import Capabilities
from systemprompt_jobs.model import Concurrency, RetryPolicy, State, Trigger
from tests.support import answer_lost, report
from tests.test_retrying import Rig, flaky, queued

TIMEOUT = {"outcome": State.TIMED_OUT, "error_types": ("TimeoutError", "OSError")}


def cancel(rig, *runs):
    with rig.store.write() as connection:
        cancels.cancel(connection, [run.id for run in runs], "cancelled by ada", rig.clock.now())


# --- timeouts ---


def test_a_killed_timeout_is_tried_again_and_its_attempt_says_what_it_was(store):
    rig = Rig(store, flaky(attempts=2))
    rig.tick(60)
    rig.finish(*rig.started, **TIMEOUT, error="ended after 5 s, its timeout")
    assert rig.runs()[0].status == "retrying"
    rig.clock.advance(12)
    rig.take()
    assert rig.started[-1].attempt == 2
    rig.finish(rig.started[-1], **TIMEOUT)
    assert rig.states() == [State.TIMED_OUT]
    assert rig.slots() == []
    with store.read() as connection:
        assert [a.outcome for a in said.attempts_of(connection, 1)] == [State.TIMED_OUT] * 2
    assert rig.calls.names()[1:] == [
        "run_retrying",
        "run_started",
        "run_timed_out",
        "run_finished",
    ]


@pytest.mark.parametrize(
    ("policy", "again"),
    [
        (RetryPolicy(2, retry_on=("OSError",)), True),
        (RetryPolicy(2, retry_on=("ValueError",)), False),
        (RetryPolicy(2, give_up_on=("TimeoutError",)), False),
    ],
)
def test_policies_know_a_timeout_as_a_timeout_error(store, policy, again):
    rig = Rig(store, flaky(retry=policy))
    rig.tick(60)
    rig.finish(*rig.started, **TIMEOUT)
    assert (rig.states() == [State.PENDING]) == again


def test_a_stray_is_never_tried_again_and_keeps_its_slots_until_it_ends(store):
    rig = Rig(store, flaky(schedule="* * * * * *", concurrency=Concurrency("api", 1)))
    rig.tick()
    (run,) = rig.started
    rig.finish(run, **TIMEOUT, stray=True)
    ended = rig.runs()[0]
    assert (ended.state, ended.message) == (
        State.TIMED_OUT,
        "not tried again: its function still runs",
    )
    assert [row[0] for row in rig.slots()] == ["concurrency:api", "overlap:ext:cleanup"]
    rig.tick()
    assert (rig.runs()[1].state, rig.runs()[1].reason) == (State.SKIPPED, "overlap")
    rig.recorder.release(run)
    rig.recorder.step()
    assert rig.slots() == []
    rig.tick()
    assert rig.started[-1].id == 3


def test_a_queued_run_waits_until_the_stray_of_its_job_has_ended(store):
    rig = Rig(store, queued())
    rig.tick()
    (run,) = rig.started
    rig.finish(run, **TIMEOUT, stray=True)
    rig.tick()
    assert rig.take() == []
    rig.recorder.release(run)
    rig.recorder.step()
    rig.take()
    assert [r.id for r in rig.started] == [1, 2]


# --- cancelling ---


def test_to_cancel_a_run_that_waits_for_its_next_attempt_ends_it_and_frees_its_slots(store):
    rig = Rig(store, flaky(concurrency=Concurrency("api", 1)))
    rig.tick(60)
    rig.fail(*rig.started)
    cancel(rig, rig.runs()[0])
    (run,) = rig.runs()
    assert (run.state, run.message, run.error) == (State.CANCELLED, "cancelled by ada", "E: no")
    assert rig.slots() == []
    rig.clock.advance(12)
    assert rig.take() == []


def test_to_cancel_a_queued_run_frees_its_place_for_the_next(store):
    rig = Rig(store, queued())
    rig.tick()
    rig.tick()
    cancel(rig, rig.runs()[1])
    assert (rig.runs()[1].state, rig.runs()[1].reason) == (State.CANCELLED, "")
    assert [row[1:3] for row in rig.slots()] == [(0, 1)]
    rig.tick()
    assert (rig.runs()[2].state, rig.runs()[2].reason) == (State.PENDING, "overlap")


@pytest.mark.parametrize("outcome", [State.FAILED, State.TIMED_OUT])
def test_a_run_that_ends_badly_after_somebody_cancelled_it_is_not_tried_again(store, outcome):
    rig = Rig(store, flaky())
    rig.tick(60)
    cancel(rig, *rig.started)
    rig.finish(*rig.started, outcome=outcome, error="E: no")
    (run,) = rig.runs()
    assert (run.state, run.message) == (outcome, "not tried again: it was cancelled")
    assert rig.slots() == []
    assert rig.calls.names()[1:] == [f"run_{outcome}", "run_finished"]
    said = rig.calls.made[-1][1]["report"]
    assert (said.retry_after, said.message) == (None, run.message)


@pytest.mark.parametrize("before", [True, False])
def test_in_doubt_it_counts_whether_the_cancel_came_before_the_end_or_after(store, before):
    rig = Rig(store, flaky())
    rig.tick(60)
    (run,) = rig.started
    if before:
        cancel(rig, run)
    rig.recorder.report(run, report(run, rig.clock, State.FAILED))
    with answer_lost(store), pytest.raises(StoreError):
        rig.recorder.step()
    if not before:
        cancel(rig, run)
    rig.recorder.step()
    hooks = ["run_failed", "run_finished"] if before else ["run_retrying"]
    assert rig.calls.names()[1:] == hooks
    assert rig.states() == [State.FAILED if before else State.CANCELLED]


def test_whoever_waits_for_a_run_that_is_cancelled_before_it_starts_is_told_so(store):
    rig = Rig(store, flaky())
    rig.clock.advance(59.9)
    rig.claimer.step()
    cancel(rig, *rig.runs())
    rig.clock.advance(0.1)
    rig.recorder.step()
    assert rig.ended == rig.runs()
    assert rig.ended[0].state is State.CANCELLED


def test_whoever_waits_for_a_run_that_is_cancelled_between_two_attempts_is_told_at_once(store):
    rig = Rig(store, flaky(schedule=""))
    rig.fail(rig.hold(Trigger.MANUAL))
    cancel(rig, *rig.runs())
    rig.recorder.drop(rig.runs())
    assert [run.state for run in rig.ended] == [State.CANCELLED]
    assert rig.recorder.held() == []
    rig.clock.advance(60)
    rig.recorder.step()
    assert len(rig.started) == 1


# --- a node that stops or has no lease ---


def test_a_thread_that_a_stop_cut_off_frees_nothing_of_the_run_that_is_tried_again(store):
    rig = Rig(store, flaky())
    rig.tick(60)
    (run,) = rig.started
    rig.finish(run, outcome=State.CANCELLED, stray=True, retry_after=timedelta())
    rig.recorder.release(run)
    rig.recorder.flush()
    assert rig.slots() == [("overlap:ext:cleanup", 0, 1, 2)]
    other = Rig(store, flaky(), clock=rig.clock)
    other.take()
    assert [(r.id, r.attempt, r.fence) for r in other.started] == [(1, 2, 2)]


def test_a_cut_off_run_that_somebody_cancelled_meanwhile_is_not_tried_again(store):
    rig = Rig(store, flaky())
    rig.tick(60)
    cancel(rig, *rig.started)
    rig.finish(*rig.started, outcome=State.CANCELLED, message="stop", retry_after=timedelta())
    assert rig.states() == [State.CANCELLED]
    assert rig.slots() == []


def test_an_attempt_that_came_back_to_its_node_keeps_its_lease_when_the_old_one_ends(store):
    rig = Rig(store, flaky())
    rig.tick(60)
    (old,) = rig.started
    with store.write() as connection:
        run_rows.rescue(connection, {(old.id, old.fence, 0)}, rig.clock.now())
    rig.take()
    rig.fail(old)
    assert rig.recorder.held() == [(1, 2)]
    assert rig.calls.names()[-1] == "run_fenced"


def test_a_stray_asks_no_plugin_whether_it_is_tried_again(store):
    rig = Rig(store, flaky())
    rig.tick(60)
    (run,) = rig.started
    said = report(run, rig.clock, State.TIMED_OUT, stray=True)
    assert settle(run, said, None, None).retry_after is None


# --- a whole runtime ---

JOBS = """
import threading
from systemprompt_jobs import job

release, began = threading.Event(), threading.Event()

@job(timeout="0.05", max_attempts=2, retry_delay="0s")
def slow(ctx):
    if ctx.run.attempt == 1:
        ctx.sleep(30)
    return "at last"

@job(timeout="0.05", max_attempts=2, retry_delay="0s")
def hangs():
    release.wait(30)

@job(max_attempts=2, retry_delay="1h")
def fails():
    raise OSError("no")

@job(schedule="* * * * * *", max_attempts=2)
def waits(ctx):
    began.set()
    ctx.sleep(30)
"""


class KillingThreads(Threads):
    """Threads whose functions look: what they are told to end has ended when it is reported."""

    capabilities = Capabilities(kills=True)

    def interrupt(self, attempt):
        attempt.interrupt()


class Plugin(JobExtension):
    """Provides them if it shall, and keeps the names of the calls."""

    def __init__(self, *, kills=False):
        self.kills = kills
        self.calls = []
        self.retrying = threading.Event()

    def make_executor(self, kind, settings):
        return KillingThreads(settings["size"]) if self.kills else None

    def run_retrying(self, report):
        self.calls.append(("run_retrying", report.outcome))
        self.retrying.set()

    def run_finished(self, run):
        self.calls.append(("run_finished", run.state))


@pytest.fixture
def load(tmp_path):
    """Return a function that loads the jobs above, with or without an executor that kills."""
    (tmp_path / "services/scheduler").mkdir(parents=True)
    (tmp_path / "services/scheduler/config.yaml").write_text(
        "scheduler: {local_plugins: [jobs.py]}\n"
    )
    (tmp_path / "jobs.py").write_text(JOBS)
    (tmp_path / "jobs.py").chmod(0o644)
    runtimes = []

    def load(plugin=None):
        plugins = [plugin] if plugin else []
        runtimes.append(Runtime(tmp_path, plugins=plugins, environ={"SYSTEMPROMPT_PLUGINS": ""}))
        return runtimes[-1]

    yield load
    for runtime in runtimes:
        jobs_of(runtime)["release"].set()
        runtime.stop(timedelta(0))


def jobs_of(runtime):
    return runtime.find("slow").job.function.__globals__


def test_a_timeout_that_really_ended_the_function_is_tried_again(load):
    plugin = Plugin(kills=True)
    runtime = load(plugin)
    (run,) = runtime.run("slow")
    assert (run.state, run.attempt, run.message) == (State.SUCCEEDED, 2, "at last")
    attempts = runtime.attempts(run)
    assert [a.outcome for a in attempts] == [State.TIMED_OUT, State.SUCCEEDED]
    assert attempts[0].error == "ended after 0.05 s, its timeout"
    runtime.stop()
    assert plugin.calls == [
        ("run_retrying", State.TIMED_OUT),
        ("run_finished", State.SUCCEEDED),
    ]


def test_a_timeout_that_leaves_a_stray_is_not(load):
    plugin = Plugin()
    runtime = load(plugin)
    (run,) = runtime.run("hangs")
    assert (run.state, run.attempt) == (State.TIMED_OUT, 1)
    assert run.message == "not tried again: its function still runs"
    runtime.stop(timedelta(0))
    assert plugin.calls == [("run_finished", State.TIMED_OUT)]


def test_whoever_waits_an_hour_for_a_retry_hears_that_it_is_cancelled(load):
    here, there = Plugin(), Plugin()
    runtime, other = load(here), load(there)
    answer = SimpleQueue()
    waiting = threading.Thread(target=lambda: answer.put(runtime.run("fails")))
    waiting.start()
    assert here.retrying.wait(30)
    (run,) = other.history(states=["retrying"])
    cancelled = other.cancel(run.id, who="ada")
    (told,) = answer.get(timeout=30)
    waiting.join()
    assert told == cancelled
    assert (told.state, told.message) == (State.CANCELLED, "cancelled by ada")
    assert there.calls == [("run_finished", State.CANCELLED)]


def test_what_ends_when_a_stop_tells_it_to_is_left_to_others_if_attempts_are(load):
    runtime = load()
    runtime.start()
    assert jobs_of(runtime)["began"].wait(30)
    runtime.stop(timedelta(0))
    again = load()
    (run,) = again.history(job="jobs:waits", states=["retrying"])
    assert (run.state, run.attempt) == (State.PENDING, 1)
    assert "told to stop" in run.message
