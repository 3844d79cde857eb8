"""What running attempts say is written down once a second, under their fence."""

from __future__ import annotations

from dataclasses import replace

import pytest

from systemprompt_jobs._progress import EVERY_S, Scribe
from systemprompt_jobs._record import Recorder
from systemprompt_jobs._rows import run_values
from systemprompt_jobs._store import queries
from systemprompt_jobs._store import runs as run_rows
from systemprompt_jobs._store import said as said_rows
from systemprompt_jobs._store.schema import run as run_table
from systemprompt_jobs.errors import StoreError
from systemprompt_jobs.model import Progress, State, Trigger
from tests.support import START, Calls, ManualClock, answer_lost, make_plan, report


class Rig:
    """A recorder and a scribe without threads, and a run that has just been started."""

    def __init__(self, store):
        self.store, self.clock, self.calls = store, ManualClock(), Calls()
        self.started, self.woken = [], []
        self.recorder = Recorder(
            store,
            self.calls,
            self.clock,
            sizes={"default": 5},
            lease_until=lambda: 0,
            may_start=lambda: True,
            start=self.started.append,
            ended=lambda _: None,
            wake=lambda: None,
        )
        self.scribe = Scribe(store, self.calls, self.clock, lambda: self.woken.append(1))
        self.number = 0

    def start(self):
        """Start a run and return it with what it says."""
        self.number += 1
        plan = make_plan(f"job{self.number}")
        row = run_values(plan, f"m:{self.number}", Trigger.MANUAL, self.clock.now())
        with self.store.write() as connection:
            runs = run_rows.add(connection, [row | {"node": "me"}])
        self.recorder.offer(runs)
        self.recorder.step()
        run = self.started[-1]
        return run, self.scribe.listen(run)

    def read(self, run):
        with self.store.read() as connection:
            return queries.find_run(connection, run.id)

    def attempt(self, run):
        with self.store.read() as connection:
            return said_rows.attempts_of(connection, run.id)[-1]

    def finish(self, run, **values):
        self.recorder.report(run, self.scribe.complete(run, report(run, self.clock, **values)))
        self.recorder.step()


@pytest.fixture
def rig(store):
    return Rig(store)


def test_it_is_seen_and_observed_while_the_run_runs(rig):
    run, said = rig.start()
    said.progress(5, 10, "half")
    with rig.calls.new() as calls:
        assert rig.scribe.step() == EVERY_S
    expected = Progress(5, 10, "half", START)
    assert rig.read(run).progress == expected
    assert calls == ["run_progressed"]
    assert rig.calls.made[-1][1] == {"run": replace(run, progress=expected), "progress": expected}


def test_what_is_not_new_is_not_written_again(rig, monkeypatch):
    _, said = rig.start()
    said.progress(5, 10, "half")
    said.output("a line")
    rig.scribe.step()
    monkeypatch.setattr(rig.store, "write", None)
    assert rig.scribe.step() == EVERY_S


def test_many_runs_are_written_in_one_transaction(rig, monkeypatch):
    runs = [rig.start() for _ in range(5)]
    for n, (_, said) in enumerate(runs):
        said.progress(n, None, "")
    opened, write = [], rig.store.write
    monkeypatch.setattr(rig.store, "write", lambda: (opened.append(1), write())[1])
    rig.scribe.step()
    assert opened == [1]
    assert [rig.read(run).progress.done for run, _ in runs] == [0, 1, 2, 3, 4]


def test_the_last_value_is_written_at_the_end(rig):
    run, said = rig.start()
    said.progress(5, 10, "half")
    rig.scribe.step()
    said.progress(10, 10, "whole")
    rig.finish(run)
    assert rig.read(run).progress == Progress(10, 10, "whole", START)
    assert rig.calls.made[-1][1]["run"].progress.done == 10


def test_log_and_notes_are_seen_while_it_runs_and_whole_at_the_end(rig):
    run, said = rig.start()
    said.output("one")
    said.annotate({"trace": "abc"})
    rig.scribe.step()
    assert (rig.attempt(run).log, rig.attempt(run).annotations) == ("one", {"trace": "abc"})
    said.output("two")
    rig.finish(run)
    attempt = rig.attempt(run)
    assert (attempt.log, attempt.outcome) == ("one\ntwo", State.SUCCEEDED)
    assert rig.calls.made[-1][1]["report"].log == "one\ntwo"


def test_each_attempt_keeps_its_own_message(rig):
    run, _ = rig.start()
    rig.finish(run, message="3 rows")
    assert rig.attempt(run).message == "3 rows"


def test_a_run_that_was_taken_away_is_left_alone(rig):
    run, said = rig.start()
    with rig.store.write() as connection:
        run_rows.rescue(connection, [(run.id, run.fence, 0)], rig.clock.now())
    said.progress(5, 10, "half")
    said.output("late")
    with rig.calls.new() as calls:
        rig.scribe.step()
    assert rig.read(run).progress is None
    assert rig.attempt(run).log == ""
    assert calls == []


def test_progress_of_an_older_claim_is_not_shown(rig):
    run, said = rig.start()
    said.progress(5, 10, "half")
    rig.scribe.step()
    with rig.store.write() as connection:
        connection.execute(run_table.update().values(fence=run.fence + 1))
    assert rig.read(run).progress is None


def test_a_lost_answer_loses_nothing_at_the_end(rig):
    run, said = rig.start()
    said.output("one")
    with answer_lost(rig.store), pytest.raises(StoreError):
        rig.scribe.step()
    rig.finish(run)
    assert rig.attempt(run).log == "one"


def test_a_failed_write_is_made_up_for(rig, monkeypatch):
    run, said = rig.start()
    said.progress(5, 10, "half")
    said.output("one")

    def fail():
        raise StoreError("locked")

    with monkeypatch.context() as patch:
        patch.setattr(rig.store, "write", fail)
        with pytest.raises(StoreError):
            rig.scribe.step()
    rig.scribe.step()
    assert rig.read(run).progress == Progress(5, 10, "half", START)
    assert rig.attempt(run).log == "one"


def test_it_rests_until_an_attempt_speaks(rig):
    assert rig.scribe.step() is None
    run, said = rig.start()
    _, other = rig.start()
    assert rig.woken == []
    said.output("one")
    other.progress(5, 10, "half")
    assert rig.woken == [1]
    assert rig.scribe.step() == EVERY_S
    rig.finish(run)
    assert rig.scribe.step() == EVERY_S


@pytest.mark.parametrize(
    "speak",
    [
        lambda said: said.output("a line"),
        lambda said: said.annotate({"trace": "abc"}),
        lambda said: said.progress(5, 10, "half"),
    ],
)
def test_whatever_an_attempt_says_wakes_it(rig, speak):
    _, said = rig.start()
    speak(said)
    assert rig.woken == [1]


def test_a_report_for_a_run_that_said_nothing_is_left_alone(rig):
    run, _ = rig.start()
    done = report(run, rig.clock)
    assert rig.scribe.complete(run, done) is done
    assert rig.scribe.complete(run, done) is done
