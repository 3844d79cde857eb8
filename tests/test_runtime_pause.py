"""A program pauses jobs of the scheduler that runs in it, or in another process."""

from __future__ import annotations

from datetime import timedelta
from queue import SimpleQueue

import pytest

from systemprompt_jobs import JobExtension, Runtime, hookimpl, job
from systemprompt_jobs.errors import UnknownJobError
from systemprompt_jobs.model import State

PATIENCE_S = 90
JOBS = """
from systemprompt_jobs import job

@job(schedule="* * * * * *")
def secondly(): ...
"""


class Watch(JobExtension):
    """Keeps the calls of hooks."""

    def __init__(self):
        self.calls = SimpleQueue()

    @hookimpl
    def job_paused(self, job_id, until, note, who):
        self.calls.put(("job_paused", job_id, until is not None, note, who))

    @hookimpl
    def job_resumed(self, job_id, note, who):
        self.calls.put(("job_resumed", job_id, note, who))

    @hookimpl
    def run_started(self, run):
        self.calls.put(("run_started", run.job_id))

    def until(self, hook):
        while True:
            name, *arguments = self.calls.get(timeout=PATIENCE_S)
            if name == hook:
                return tuple(arguments)


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "services" / "scheduler"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("scheduler: {local_plugins: [jobs.py]}", "utf-8")
    (tmp_path / "jobs.py").write_text(JOBS, "utf-8")
    (tmp_path / "jobs.py").chmod(0o644)
    return tmp_path


def runtime(root, *plugins):
    return Runtime(root, plugins=plugins, environ={"SYSTEMPROMPT_PLUGINS": ""})


def test_a_pause_of_ones_own_scheduler_ends_by_itself_and_is_observed_once(root):
    watch = Watch()
    with runtime(root, watch) as running:
        watch.until("run_started")
        (pause,) = running.pause("secondly", until=timedelta(seconds=1), note="a", who="me")
        assert running.pauses() == {"jobs:secondly": pause}
        assert watch.until("job_paused") == ("jobs:secondly", True, "a", "me")
        assert watch.until("job_resumed") == ("jobs:secondly", "a", "")
        watch.until("run_started")
        assert running.pauses() == {}


def test_a_scheduler_notices_what_another_process_does(root):
    watch, other = Watch(), runtime(root)
    with runtime(root, watch):
        watch.until("run_started")
        other.pause("secondly")
        assert other.resume("secondly") == ["jobs:secondly"]
        watch.until("run_started")
    other.stop()
    names = [watch.calls.get()[0] for _ in range(watch.calls.qsize())]
    assert not {"job_paused", "job_resumed"} & {*names}  # the other one has observed them


def test_an_unknown_job_is_refused_and_none_is_paused(root):
    asked = runtime(root)
    with pytest.raises(UnknownJobError):
        asked.pause("secondly", "thirdly")
    assert (asked.pauses(), asked.held()) == ({}, {})
    asked.stop()


def test_a_start_up_run_waits_with_its_next_try_until_its_job_is_resumed(scheduler):
    @job(schedule="0 0 0 1 7 *", run_on_startup=True, max_attempts=3, retry_delay="1m")
    def fails():
        raise RuntimeError("at first")

    scheduler.add(fails)
    scheduler.configure(jobs=[{"extension": "tests", "job": "fails", "enabled": True}])
    scheduler.advance("10s")
    scheduler.runtime.pause("fails")
    scheduler.advance("1 hour")
    (run,) = scheduler.runs("fails")
    assert (run.attempt, run.state, run.reason) == (1, State.CLAIMED, "paused")
    scheduler.runtime.resume("fails")
    scheduler.advance("1 hour")
    (run,) = scheduler.runs("fails")
    assert (run.attempt, run.state) == (3, State.FAILED)
