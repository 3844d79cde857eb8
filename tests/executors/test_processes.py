"""Worker processes: what would harm a scheduler costs one run, and nothing is left behind."""

from __future__ import annotations

import itertools
import os
import queue
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import structlog

from systemprompt_jobs import Run, Runtime
from systemprompt_jobs.builtin.processes import Processes
from systemprompt_jobs.builtin.processes._wire import line, value_of
from systemprompt_jobs.model import Report, State, Trigger
from tests.support import PATIENCE_S, START, until


def lives(pid):
    """Return whether a process runs; a zombie does not, once all its threads have ended."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()[0]
        return state != "Z" or len([*Path(f"/proc/{pid}/task").iterdir()]) > 1
    except (FileNotFoundError, ProcessLookupError):
        return False


class Bench:
    """An executor of one process, and a runtime whose attempts it is given."""

    def __init__(self, folder, **settings):
        self.folder = folder
        origin = {
            "root": str(folder),
            "plugins": ["tests.executors.poison"],
            "no_plugins": [],
            "environ": {"SYSTEMPROMPT_PLUGINS": ""},
        }
        self.runtime = Runtime(**origin)
        self.executor = Processes(origin, **({"size": 1, "grace": 0.2} | settings))
        self.said = {}
        self._ids = itertools.count(1)
        self._reports = queue.SimpleQueue()

    def submit(self, name, **parameters):
        run = Run(
            next(self._ids),
            f"poison:{name}",
            Trigger.MANUAL,
            State.RUNNING,
            attempt=1,
            parameters=parameters,
        )
        attempt = self.runtime.attempt(run, self._reports.put)
        self.said[run.id] = attempt.said
        self.executor.submit(attempt)
        return attempt

    def report(self):
        return self._reports.get(timeout=PATIENCE_S)

    def run(self, name, **parameters):
        self.submit(name, **parameters)
        return self.report()

    def said_at_last(self, report):
        """Return the report with what the last attempt said."""
        return self.said[max(self.said)].onto(report)

    def until_found(self, pattern):
        """Return the process number in the name of a file when it has been written."""
        until(lambda: [*self.folder.glob(pattern)])
        return int(next(self.folder.glob(pattern)).stem)


def benches(folder):
    bench = Bench(folder)
    yield bench
    bench.executor.close()
    bench.runtime.stop()


@pytest.fixture
def bench(tmp_path):
    yield from benches(tmp_path)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """Return a bench for tests that leave its process as they found it."""
    yield from benches(tmp_path_factory.mktemp("shared"))


def test_a_process_is_used_again_and_is_another_than_ours(shared):
    first, second = shared.run("pid"), shared.run("pid")
    assert first.message == second.message != str(os.getpid())


def test_an_async_function_is_awaited_there(shared):
    assert shared.run("coroutine").message == "awaited"


@pytest.mark.parametrize(
    ("job", "error"),
    [
        ("leaves_at_once", "the worker process ended with exit code 3"),
        ("out_of_memory", "the worker process was killed by SIGKILL (out of memory?)"),
    ],
)
def test_a_process_that_dies_is_one_failed_attempt_and_a_fresh_one_follows(bench, job, error):
    before = bench.run("pid").message
    report = bench.run(job)
    assert (report.outcome, report.error) == (State.FAILED, error)
    after = bench.run("pid")
    assert (after.outcome, after.message != before) == (State.SUCCEEDED, True)


def test_one_that_dies_while_it_has_nothing_to_do_harms_no_run(bench):
    pid = int(bench.run("pid").message)
    os.kill(pid, signal.SIGKILL)
    until(lambda: not lives(pid))
    assert bench.run("pid").outcome == State.SUCCEEDED


def test_a_function_that_forks_is_reported_once_by_the_parent(bench):
    assert bench.run("forks", folder=str(bench.folder)).message == "parent"
    assert bench.run("pid").message.isdigit()


def test_the_death_of_a_process_is_seen_although_its_child_lives_on(bench):
    report = bench.run("has_a_child_that_stays", folder=str(bench.folder))
    assert report.error == "the worker process ended with exit code 4"
    assert lives((bench.folder / "child").read_text("utf-8"))
    (bench.folder / "release").touch()


def test_multiprocessing_works_inside(shared):
    assert shared.run("multiprocesses").message == "0"


def test_one_that_holds_the_interpreters_lock_for_ever_is_killed(bench):
    attempt = bench.submit("holds_the_lock_for_ever", folder=str(bench.folder))
    pid = bench.until_found("*.locked")
    bench.executor.interrupt(attempt)
    report = bench.report()
    assert report.outcome == State.CANCELLED
    assert "its worker process was told to end, and was killed by SIGKILL" in report.message
    assert not lives(pid)
    assert bench.run("pid").outcome == State.SUCCEEDED


def test_one_that_is_told_to_end_may_end_by_itself(tmp_path):
    bench = Bench(tmp_path, grace=PATIENCE_S)
    attempt = bench.submit("waits_until_told", folder=str(tmp_path))
    bench.until_found("*.waiting")
    bench.executor.interrupt(attempt)
    assert bench.report().message == "ended by itself"
    bench.executor.close()
    bench.runtime.stop()


def test_what_a_function_has_started_is_killed_with_it(bench):
    attempt = bench.submit("starts_a_program", folder=str(bench.folder))
    bench.until_found("*.locked")
    program = bench.until_found("*.program")
    bench.executor.interrupt(attempt)
    bench.report()
    until(lambda: not lives(program))


def test_one_that_is_interrupted_while_it_waits_never_begins(bench):
    holding = bench.submit("holds_the_lock_for_ever", folder=str(bench.folder))
    bench.until_found("*.locked")
    bench.executor.interrupt(bench.submit("pid"))
    report = bench.report()
    assert (report.outcome, report.message) == (
        State.CANCELLED,
        "it was told to end before it began",
    )
    bench.executor.interrupt(holding)
    bench.report()


def of_run(entries):
    """Leave out what threads of earlier tests still log."""
    return [entry for entry in entries if "run" in entry]


def test_what_it_writes_and_logs_is_kept_in_its_order_and_logged_with_its_run(bench):
    with structlog.testing.capture_logs() as entries:
        report = bench.run("talks")
    entries = of_run(entries)
    assert [(entry["log_level"], entry["event"]) for entry in entries] == [
        ("info", "printed"),
        ("info", "to standard error"),
        ("info", "\ufffd\ufffd not text, \x1b[31m"),
        ("info", "said n=1 text='a b'"),
        ("warning", "lib: warned table=x"),
        ("info", "no end of line"),
    ]
    assert {(entry["job"], entry["run"], entry["attempt"]) for entry in entries} == {
        ("poison:talks", 1, 1)
    }
    kept = bench.said[1].onto(report).log.split("\n")
    assert [re.sub(r"^\d{4}-\d\d-\d\d [\d:]{8} ", "", line) for line in kept] == [
        "printed",
        "to standard error",
        "\ufffd\ufffd not text, \x1b[31m",
        "info said n=1 text='a b'",
        "warning lib: warned table=x",
        "no end of line",
    ]
    assert kept[3].startswith("20")


def test_what_it_said_before_it_died_is_kept(bench):
    report = bench.said_at_last(bench.run("says_and_dies"))
    assert report.log.startswith("printed\n20")
    assert report.log.endswith("error about to die")
    assert report.annotations == {"trace": "4bf9"}


def test_a_process_that_the_function_forks_says_nothing_in_its_name(bench):
    report = bench.said_at_last(bench.run("forks_one_that_says"))
    assert (report.progress.done, report.annotations) == (0, {"parent": 1})


def test_what_a_function_leaves_running_says_nothing_in_the_name_of_the_next(bench):
    bench.run("leaves_a_thread_that_says", folder=str(bench.folder))
    report = bench.said_at_last(bench.run("talks"))
    (bench.folder / "release").touch()
    until((bench.folder / "released").exists)
    assert (report.progress, report.annotations) == (None, {})


def test_more_output_than_a_pipe_holds_is_all_read_before_the_report(shared):
    with structlog.testing.capture_logs() as entries:
        assert shared.run("chatters").message == "done"
    assert len(of_run(entries)) == 2_000


def test_one_that_closes_its_output_goes_on(bench):
    assert bench.run("closes_its_output").message == "closed"
    assert bench.run("pid").outcome == State.SUCCEEDED


def test_a_huge_error_is_cut_before_it_crosses(shared):
    report = shared.run("raises_hugely")
    assert len(report.error) < 20_000
    assert len(report.traceback) < 200_000


@pytest.mark.parametrize("value", [{"$instant": "x"}, {"a": [1, None, {"$": 2}], "$b": 1.5}])
def test_parameters_arrive_as_they_are(shared, value):
    assert shared.run("echoes", value=value).message == repr(value)


def test_runs_and_reports_survive_the_wire():
    run = Run(1, "a:b", Trigger.SCHEDULE, State.RUNNING, tick=START, parameters={"$State": "x"})
    report = Report(State.FAILED, START, START, error="\udc80\0 ü\n")
    for value in (run, report):
        assert value_of(line(value)) == value
    assert type(value_of(line(run)).trigger) is Trigger
    assert line(report).count(b"\n") == 1


def test_a_job_that_the_process_cannot_find_fails_and_says_why(bench):
    bench.executor._origin = {**bench.executor._origin, "plugins": ["tests.executors.gone"]}
    report = bench.run("pid")
    assert report.outcome == State.FAILED
    assert report.error.startswith("the worker process cannot run it: ")
    assert "tests.executors.gone" in report.error


def test_the_processes_end_when_the_executor_is_closed(bench):
    pid = int(bench.run("pid").message)
    bench.executor.close()
    until(lambda: not lives(pid))


SCHEDULER = """
import sys
from pathlib import Path
from tests.executors.test_processes import Bench

bench = Bench(Path(sys.argv[1]), size=2)
bench.submit("holds_the_lock_for_ever", folder=sys.argv[1])
(bench.folder / (bench.run("pid").message + ".idle")).touch()
bench.report()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing kills what holds the lock")
def test_no_process_survives_a_scheduler_that_is_killed(tmp_path):
    root = Path(__file__).parents[2]
    with subprocess.Popen([sys.executable, "-c", SCHEDULER, tmp_path], cwd=root) as scheduler:
        until(lambda: [*tmp_path.glob("*.locked")] and [*tmp_path.glob("*.idle")])
        pids = [int(path.stem) for path in tmp_path.iterdir() if path.stem.isdigit()]
        assert len(pids) == 2
        assert all(map(lives, pids))
        scheduler.kill()
    until(lambda: not any(map(lives, pids)))
