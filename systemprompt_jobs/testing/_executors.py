"""What every executor must do, as tests."""

from __future__ import annotations

import itertools
import queue
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

from systemprompt_jobs import Report, Run, Runtime
from systemprompt_jobs.model import State, Trigger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from systemprompt_jobs.interfaces import Attempt, Executor, RemoteExecutor

from ._recorded import RecordedBench, write_project
from ._voices import HeardVoice

JOBS = "systemprompt_jobs.testing.jobs"

PATIENCE_S = 60.0
"""How long to wait for what should come at once, before a test fails."""

_THREADS, _EACH = 8, 10

_ERRORS = ("ValueError", "KeyboardInterrupt", "MemoryError", "GeneratorExit")

_CUT = 20_000
"""No message that is kept is longer."""


class ExecutorContract:
    """Base class for the tests of an executor.

    Derive a class whose name begins with `Test`, and give it a fixture `executor` that makes a
    fresh executor of a size from 2 to 5. The fixture `origin` holds what `make_executor` is given
    under that name. Each test closes the executor.

    Of a remote executor the fixture `size` is the size of its worker, which `executor` starts:
    `Runtime(**origin)` at `work` for the pool `default`.

    Example::

        class TestGreenlets(ExecutorContract):
            @pytest.fixture
            def executor(self, origin):
                return Greenlets(size=3)
    """

    @pytest.fixture
    def origin(self, tmp_path: Path) -> Mapping[str, Any]:
        """Return the arguments of a runtime that has the jobs of these tests."""
        return {
            "root": str(tmp_path),
            "plugins": [JOBS],
            "no_plugins": [],
            "environ": {"SYSTEMPROMPT_PLUGINS": ""},
        }

    @pytest.fixture
    def size(self, executor: Executor) -> int:
        """Return how many functions run at once."""
        return executor.size

    @pytest.fixture
    def bench(
        self, origin: Mapping[str, Any], executor: Executor, size: int, tmp_path: Path
    ) -> Iterator[_Bench | RecordedBench]:
        """Yield what these tests submit attempts with."""
        bench: _Bench | RecordedBench
        if executor.capabilities.remote:
            write_project(Path(origin["root"]))
            bench = RecordedBench(origin, cast("RemoteExecutor", executor), size, tmp_path)
        else:
            bench = _Bench(Runtime(**origin), executor, tmp_path)
        yield bench
        bench.close()

    def test_each_attempt_is_reported_once_with_what_it_ended_in(
        self, bench: _Bench | RecordedBench
    ) -> None:
        runs = [bench.submit("say", text=f"number {n}") for n in range(3 * bench.size)]
        reports = bench.reports(len(runs))
        assert {run: report.message for run, report in reports.items()} == {
            run: f"number {n}" for n, run in enumerate(runs)
        }
        assert {report.outcome for report in reports.values()} == {State.SUCCEEDED}

    def test_as_many_run_at_once_as_its_size_and_no_more(
        self, bench: _Bench | RecordedBench
    ) -> None:
        for _ in range(2 * bench.size):
            bench.hold()
        bench.until_running(bench.size)
        bench.release()
        at_once = {int(report.message) for report in bench.reports(2 * bench.size).values()}
        assert max(at_once) == bench.size

    def test_an_error_of_any_kind_becomes_a_report_and_the_next_attempt_runs(
        self, bench: _Bench
    ) -> None:
        for _ in range(bench.size):
            failing = {bench.submit("fail", error=error): error for error in _ERRORS}
            leaving = bench.submit("leave")
            reports = bench.reports(len(failing) + 1)
            assert {report.outcome for report in reports.values()} == {State.FAILED}
            assert {run: reports[run].error for run in failing} == {
                run: f"{error}: as told" for run, error in failing.items()
            }
            assert "sys.exit(3)" in reports[leaving].error
        said = bench.submit("say", text="still here")
        assert bench.reports(1)[said].message == "still here"

    def test_what_it_says_comes_to_the_attempt_before_its_report(
        self, bench: _Bench | RecordedBench
    ) -> None:
        run = bench.submit("tell")
        assert bench.reports(1)[run].outcome == State.SUCCEEDED
        said = bench.voices[run]
        assert said.progressed[-1] == (1_000, 1_000, "step 1000")
        assert said.notes == {"noted": run}
        assert [line for line in said.lines if line.endswith("warning told rows=3")]
        assert len(said.lines) == 1

    def test_a_huge_message_is_cut(self, bench: _Bench | RecordedBench) -> None:
        run = bench.submit("say", text="x", times=50_000_000)
        report = bench.reports(1)[run]
        assert report.outcome == State.SUCCEEDED
        assert len(report.message) < _CUT

    def test_a_result_that_does_not_serialize_is_named_and_ignored(self, bench: _Bench) -> None:
        run = bench.submit("give-anything")
        report = bench.reports(1)[run]
        assert report.outcome == State.SUCCEEDED
        assert report.message == "returned lock, ignored: return None, text or a JobResult"

    def test_what_a_function_forks_ends_with_it_and_says_nothing(self, bench: _Bench) -> None:
        run = bench.submit("fork")
        assert bench.reports(1)[run].message == "parent"
        said = bench.submit("say", text="still here")
        assert bench.reports(1)[said].message == "still here"

    def test_threads_that_functions_leave_behind_take_no_place(self, bench: _Bench) -> None:
        runs = [bench.submit("leave-a-thread") for _ in range(2 * bench.size)]
        said = bench.submit("say", text="still here")
        reports = bench.reports(len(runs) + 1)
        assert reports[said].message == "still here"
        assert {report.outcome for report in reports.values()} == {State.SUCCEEDED}

    def test_attempts_may_come_from_many_threads(self, bench: _Bench | RecordedBench) -> None:
        def submit() -> None:
            for _ in range(_EACH):
                bench.submit("say", text="x")

        threads = [threading.Thread(target=submit) for _ in range(_THREADS)]
        for thread in threads:
            thread.start()
        bench.reports(_EACH * _THREADS)
        for thread in threads:
            thread.join()

    def test_no_report_is_lost_when_it_is_closed(self, bench: _Bench | RecordedBench) -> None:
        runs = [bench.hold() for _ in range(2 * bench.size)]
        bench.until_running(bench.size)
        bench.stop_taking()
        bench.release()
        reports = bench.reports(len(runs))
        assert {report.outcome for report in reports.values()} == {State.SUCCEEDED}

    def test_it_ends_an_interrupted_attempt_if_it_says_that_it_kills(
        self, bench: _Bench | RecordedBench
    ) -> None:
        run = bench.hold()
        bench.until_running(1)
        bench.interrupt(run)
        if not bench.kills:
            bench.release()
        report = bench.reports(1)[run]
        if bench.kills:
            assert report.outcome != State.SUCCEEDED

    def test_an_interrupted_attempt_gives_its_place_back(
        self, bench: _Bench | RecordedBench
    ) -> None:
        runs = [bench.hold() for _ in range(bench.size)]
        bench.until_running(bench.size)
        for run in runs:
            bench.interrupt(run)
        if not bench.frees:
            bench.release()
        said = bench.submit("say", text="next")
        while said not in bench.seen:
            bench.reports(1)
        bench.release()
        bench.reports(len({*runs, said} - bench.seen.keys()))

    def test_one_that_is_interrupted_while_it_waits_is_reported_too(
        self, bench: _Bench | RecordedBench
    ) -> None:
        for _ in range(bench.size):
            bench.hold()
        bench.until_running(bench.size)
        waiting = bench.hold()
        bench.interrupt(waiting)
        bench.release()
        assert waiting in bench.reports(bench.size + 1)

    def test_to_interrupt_what_has_ended_does_nothing(self, bench: _Bench | RecordedBench) -> None:
        run = bench.submit("say", text="x")
        bench.reports(1)
        bench.interrupt(run)
        said = bench.submit("say", text="next")
        assert bench.reports(1)[said].outcome == State.SUCCEEDED


class _Bench:
    """Submits attempts of the contract's jobs and collects their reports, by run id."""

    def __init__(self, runtime: Runtime, executor: Executor, folder: Path) -> None:
        self.executor = executor
        self.size = executor.size
        self.kills = executor.capabilities.kills
        self.frees = True
        self.attempts: dict[int, Attempt] = {}
        self.voices: dict[int, HeardVoice] = {}
        self.seen: dict[int, Report] = {}
        self._runtime = runtime
        self._folder = folder
        self._ids = itertools.count(1)
        self._reports: queue.SimpleQueue[tuple[int, Report]] = queue.SimpleQueue()

    def submit(self, name: str, **parameters: Any) -> int:
        """Submit an attempt; return the id of its run."""
        name += "-async" if self.executor.capabilities.asynchronous else ""
        run = Run(
            next(self._ids),
            f"jobs:{name}",
            Trigger.MANUAL,
            State.RUNNING,
            attempt=1,
            parameters=parameters,
        )
        self.voices[run.id] = voice = HeardVoice()
        attempt = self._runtime.attempt(
            run, lambda report: self._reports.put((run.id, report)), voice
        )
        self.attempts[run.id] = attempt
        self.executor.submit(attempt)
        return run.id

    def hold(self) -> int:
        """Submit an attempt that runs until `release`."""
        return self.submit("hold", folder=str(self._folder))

    def until_running(self, count: int) -> None:
        """Wait until `count` of them have begun."""
        _until(lambda: len([*self._folder.glob("*.running")]) >= count)

    def release(self) -> None:
        """Let all of them end."""
        (self._folder / "release").touch()

    def interrupt(self, run: int) -> None:
        """End an attempt early."""
        self.executor.interrupt(self.attempts[run])

    def stop_taking(self) -> None:
        """Close the executor."""
        self.executor.close()

    def reports(self, count: int) -> Mapping[int, Report]:
        """Return the next reports. None may be one of a run that was reported before."""
        found: dict[int, Report] = {}
        for _ in range(count):
            run, report = self._reports.get(timeout=PATIENCE_S)
            assert run not in self.seen, f"run {run} was reported twice"
            self.seen[run] = found[run] = report
        return found

    def close(self) -> None:
        """Close the executor, and see that nothing was reported twice."""
        self.release()
        self.executor.close()
        self.reports(len(self.attempts) - len(self.seen))
        self._runtime.stop()
        assert self._reports.empty(), "a run was reported twice"


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)
