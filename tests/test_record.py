"""Gates and finishes are written in groups; what is not recorded does not start."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import func, select, text

from systemprompt_jobs._calendar import parse
from systemprompt_jobs._claim import Claimer
from systemprompt_jobs._node import new_node
from systemprompt_jobs._record import WINDOW_S, Recorder
from systemprompt_jobs._store import pending as pending_rows
from systemprompt_jobs._store import plans as plan_rows
from systemprompt_jobs._store import queries
from systemprompt_jobs._store import runs as run_rows
from systemprompt_jobs._store.schema import attempt, slot
from systemprompt_jobs._store.schema import run as run_table
from systemprompt_jobs.errors import StoreError
from systemprompt_jobs.model import Overlap, State
from tests.support import START, Calls, ManualClock, answer_lost, make_plan, report, until

WAITING = """SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND wait_event_type = 'Lock'"""


class Rig:
    """A claimer and a recorder without threads; `started` holds what the pool was given."""

    def __init__(self, store, *plans, size=10, sizes=None):
        self.store = store
        self.clock = ManualClock()
        self.calls = Calls()
        self.started = []
        self.ended = []
        self.lease_holds = True
        self.recorder = Recorder(
            store,
            self.calls,
            self.clock,
            sizes=sizes or {"default": size},
            lease_until=lambda: 0,
            may_start=lambda: self.lease_holds,
            start=self.started.append,
            ended=self.ended.append,
            wake=lambda: None,
        )
        self.claimer = Claimer(
            store,
            plans,
            new_node(),
            self.clock,
            lambda: 0,
            self.recorder.offer,
            failed=None,
            room=lambda: dict.fromkeys(sizes or ["default"], 10_000),
            lease_s=30.0,
        )
        self.claimer.install(parse)

    def tick(self, seconds=1.0):
        """Let time pass, claim, and gate."""
        self.clock.advance(seconds)
        self.claimer.step()
        self.recorder.step()

    def finish(self, *runs, **values):
        for run in runs:
            self.recorder.report(run, report(run, self.clock, **values))
        self.recorder.step()

    def states(self):
        with self.store.read() as connection:
            return [run.state for run in queries.history(connection, limit=10_000)]


def test_a_run_starts_when_its_time_has_come_and_not_before(store):
    rig = Rig(store, make_plan())
    rig.tick(0.9)  # claimed ahead
    assert rig.started == []
    assert rig.recorder.step() == pytest.approx(0.1)
    rig.clock.advance(0.1)
    rig.recorder.step()
    (run,) = rig.started
    assert (run.state, run.attempt, run.started) == (
        State.RUNNING,
        1,
        START + timedelta(seconds=1),
    )


def test_a_run_whose_time_has_not_come_on_the_databases_clock_waits(store):
    rig = Rig(store, make_plan())
    rig.tick(0.9)
    rig.clock.reached = lambda: START + timedelta(seconds=1)  # this node's guess is ahead
    rig.recorder.step()
    assert rig.started == []
    assert rig.recorder.held() == [(1, 1)]
    rig.clock.advance(0.1)
    rig.recorder.step()
    assert [run.id for run in rig.started] == [1]


def test_the_attempt_is_on_record_before_the_function_starts(store):
    rig = Rig(store, make_plan())
    seen = []

    def look(run):
        with store.read() as connection:
            row = connection.execute(select(attempt)).one()
        seen.append((row.run_id, row.fence, row.outcome))

    rig.recorder._start = look
    rig.tick()
    assert seen == [(1, 1, None)]


def test_what_cannot_be_recorded_does_not_start_and_starts_when_it_can(store, monkeypatch):
    rig = Rig(store, make_plan())
    rig.clock.advance(1)
    rig.claimer.step()
    with monkeypatch.context() as patch:
        patch.setattr(store, "write", _fail)
        with pytest.raises(StoreError):
            rig.recorder.step()
        with pytest.raises(StoreError):
            rig.recorder.step()
    assert rig.started == []
    rig.recorder.step()
    assert [run.id for run in rig.started] == [1]


def test_a_group_holds_no_run_while_it_waits_for_another(make_store):
    """Else it and one that locks them in their order, as a heartbeat does, wait for each other."""
    store = make_store("postgresql")
    later = make_plan("a", schedule="0 * * * * *", splay=timedelta(seconds=30))
    rig = Rig(store, later, make_plan("b", schedule="0 * * * * *"))
    rig.tick(60)
    (ending,) = rig.started
    assert (ending.job, ending.id) == ("b", 2)
    rig.clock.advance(30)
    rig.recorder.report(ending, report(ending, rig.clock))
    step = threading.Thread(target=rig.recorder.step)

    def waits():
        with store.read() as connection:
            return connection.execute(text(WAITING)).scalar()

    with store.write() as connection:
        run_rows.lock(connection, [1])
        step.start()
        until(waits)
        wanted = select(run_table.c.id).with_for_update(nowait=True)
        assert set(connection.execute(wanted).scalars()) == {1, 2}
    step.join()
    assert {*rig.states()} == {State.RUNNING, State.SUCCEEDED}


@pytest.mark.parametrize("changed", ["the clock was set back", "the lease ran out"])
def test_what_failed_to_be_recorded_starts_only_if_it_still_may(store, monkeypatch, changed):
    rig = Rig(store, make_plan())
    rig.clock.advance(1)
    rig.claimer.step()
    with monkeypatch.context() as patch:
        patch.setattr(store, "write", _fail)
        with pytest.raises(StoreError):
            rig.recorder.step()
    if changed == "the clock was set back":
        rig.clock.step(-5)
    else:
        rig.lease_holds = False
    rig.recorder.step()
    assert rig.started == []
    rig.clock.step(5)
    rig.lease_holds = True
    rig.recorder.step()
    assert [run.id for run in rig.started] == [1]


def _fail():
    raise StoreError("no")


def test_a_report_is_kept_until_it_can_be_recorded(store, monkeypatch):
    rig = Rig(store, make_plan())
    rig.tick()
    with monkeypatch.context() as patch:
        patch.setattr(store, "write", _fail)
        with pytest.raises(StoreError):
            rig.finish(*rig.started)
    assert rig.states() == [State.RUNNING]
    assert rig.recorder.held() == [(1, 1)]
    rig.recorder.step()
    assert rig.states() == [State.SUCCEEDED]
    assert rig.recorder.held() == []


def test_a_node_whose_lease_ran_out_starts_nothing(store):
    rig = Rig(store, make_plan())
    rig.lease_holds = False
    rig.tick()
    assert rig.started == []
    rig.lease_holds = True
    rig.recorder.step()
    assert len(rig.started) == 1


def test_a_run_that_was_taken_away_does_not_start(store):
    rig = Rig(store, make_plan())
    rig.clock.advance(1)
    rig.claimer.step()
    with store.write() as connection:
        run_rows.give_back(connection, [(1, 1)], rig.clock.now())
    rig.recorder.step()
    assert rig.started == []
    assert rig.states() == [State.PENDING]


def test_a_report_that_comes_too_late_is_discarded_and_observed(store):
    rig = Rig(store, make_plan())
    rig.tick()
    with store.write() as connection:
        run_rows.rescue(connection, {(1, 1, 0)}, rig.clock.now())
    rig.finish(*rig.started)
    assert rig.states() == [State.LOST]
    assert rig.calls.names() == ["run_started", "run_fenced"]


def test_overlap_skip_skips_the_tick_while_the_previous_run_goes_on(store):
    rig = Rig(store, make_plan())
    rig.tick()
    rig.tick()
    assert [run.id for run in rig.started] == [1]
    assert rig.states() == [State.SKIPPED, State.RUNNING]
    assert rig.calls.made[-1][1]["run"].reason == "overlap"
    rig.finish(rig.started[0])
    rig.tick()
    assert [run.id for run in rig.started] == [1, 3]


def test_a_finish_frees_the_slot_for_a_run_gated_in_the_same_group(store):
    rig = Rig(store, make_plan())
    rig.tick()
    rig.clock.advance(1)
    rig.claimer.step()
    rig.finish(rig.started[0])
    assert [run.id for run in rig.started] == [1, 2]


def test_overlap_allow_runs_them_side_by_side(store):
    rig = Rig(store, make_plan(overlap=Overlap.ALLOW))
    rig.tick()
    rig.tick()
    assert [run.id for run in rig.started] == [1, 2]


def test_of_two_due_runs_of_one_job_the_older_starts(store):
    rig = Rig(store, make_plan(), size=1)
    rig.lease_holds = False
    rig.tick()
    rig.tick()
    rig.lease_holds = True
    rig.recorder.step()
    assert [run.tick for run in rig.started] == [START + timedelta(seconds=1)]


def test_no_more_runs_are_gated_than_workers_are_free(store):
    rig = Rig(store, *[make_plan(f"job{n}") for n in range(50)], size=10)
    rig.tick()
    assert len(rig.started) == 10
    rig.finish(*rig.started[:3])
    assert len(rig.started) == 13


def test_a_fast_pool_is_given_as_many_more_as_it_started_lately(store):
    rig = Rig(store, *[make_plan(f"job{n}") for n in range(50)], size=10)
    rig.tick()
    for _ in range(10):
        rig.recorder.began(rig.started[0])
    rig.recorder.step()
    assert len(rig.started) == 20
    rig.clock.advance(2 * WINDOW_S)
    rig.finish(*rig.started[:1])
    assert len(rig.started) == 20


def test_outcome_and_slot_are_settled_in_one_transaction(store):
    rig = Rig(store, make_plan())
    rig.tick()
    rig.finish(
        *rig.started,
        outcome=State.FAILED,
        message="m",
        processed=2,
        failed=1,
        error="ValueError: no",
        traceback="Traceback …",
    )
    with store.read() as connection:
        (run,) = queries.history(connection)
        row = connection.execute(select(attempt)).one()
        slots = connection.execute(select(func.count()).select_from(slot)).scalar()
    assert (run.state, run.message, run.processed, run.failed) == (State.FAILED, "m", 2, 1)
    assert (row.outcome, row.error, row.traceback) == ("failed", "ValueError: no", "Traceback …")
    assert slots == 0


def test_each_transition_is_observed_once_and_in_order(store):
    rig = Rig(store, make_plan())
    rig.tick()
    rig.finish(*rig.started)
    rig.tick()
    rig.finish(rig.started[-1], outcome=State.FAILED)
    assert rig.calls.names() == [
        "run_started",
        "run_succeeded",
        "run_finished",
        "run_started",
        "run_failed",
        "run_finished",
    ]


def test_observers_see_the_run_as_it_stands_after_the_commit(store):
    rig = Rig(store, make_plan())
    rig.tick()
    rig.finish(*rig.started, message="done")
    seen = rig.calls.made[-1][1]["run"]
    with store.read() as connection:
        assert queries.history(connection) == [seen]


def test_there_is_room_for_twice_the_free_workers_and_for_none_after_the_close(store):
    rig = Rig(store, *[make_plan(f"job{n}") for n in range(4)], size=10)
    assert rig.recorder.room() == {"default": 20}
    rig.tick(0.9)
    assert rig.recorder.room() == {"default": 16}  # four wait for their time
    rig.clock.advance(0.1)
    rig.recorder.step()
    assert rig.recorder.room() == {"default": 12}  # four run
    rig.recorder.began(rig.started[0])
    assert rig.recorder.room() == {"default": 13}  # one more for each just begun
    rig.recorder.close()
    assert rig.recorder.room() == {}


def test_what_waits_for_a_later_time_takes_no_room(store):
    plan = make_plan(schedule="0 0 * * * *", splay=timedelta(hours=1))
    rig = Rig(store, plan, size=10)
    rig.tick(3600)
    assert rig.started == []
    assert rig.recorder.room() == {"default": 20}


def test_after_close_nothing_is_gated_and_the_unstarted_come_back(store):
    rig = Rig(store, make_plan("a"), make_plan("b"), size=1)
    rig.tick()
    assert [run.job for run in rig.recorder.close()] == ["b"]
    rig.finish(*rig.started)
    assert len(rig.started) == 1


def test_hundreds_of_reports_are_recorded_in_few_transactions(store, monkeypatch):
    plans = [make_plan(f"job{n}") for n in range(300)]
    rig = Rig(store, *plans, size=300)
    rig.tick()
    writes = []
    write = store.write
    monkeypatch.setattr(store, "write", lambda: (writes.append(1), write())[1])
    rig.finish(*rig.started)
    assert len(writes) == 1
    assert set(rig.states()) == {State.SUCCEEDED}


def test_of_two_reports_for_one_run_the_first_counts(store):
    rig = Rig(store, make_plan())
    rig.tick()
    (run,) = rig.started
    rig.recorder.report(run, report(run, rig.clock, State.CANCELLED))
    rig.recorder.report(run, report(run, rig.clock, State.SUCCEEDED))
    rig.recorder.step()
    assert rig.states() == [State.CANCELLED]
    assert rig.calls.names()[1:] == ["run_cancelled", "run_finished", "run_fenced"]


def test_a_late_report_of_an_old_fence_does_not_hide_that_of_the_new_one(store):
    rig = Rig(store, make_plan())
    rig.tick()
    (old,) = rig.started
    with store.write() as connection:
        connection.execute(run_table.update().values(fence=2))
        connection.execute(attempt.update().values(fence=2))
    new = replace(old, fence=2)
    rig.finish(old, new)
    assert rig.states() == [State.SUCCEEDED]
    assert rig.calls.names()[1:] == ["run_fenced", "run_succeeded", "run_finished"]


def test_whoever_waits_for_a_run_is_told_when_it_was_taken_away(store):
    rig = Rig(store, make_plan("a"), make_plan("b"))
    rig.clock.advance(1)
    rig.claimer.step()
    with store.write() as connection:
        run_rows.give_back(connection, [(1, 1)], rig.clock.now())
    rig.recorder.step()
    with store.write() as connection:
        run_rows.rescue(connection, {(2, 1, 0)}, rig.clock.now())
    rig.finish(*rig.started)
    assert [(run.id, run.state) for run in rig.ended] == [(1, State.PENDING), (2, State.LOST)]


def test_a_splayed_run_starts_when_it_is_due_and_keeps_that_time_when_given_back(store):
    rig = Rig(store, make_plan(schedule="0 * * * * *", splay=timedelta(seconds=30)))
    rig.tick(60)
    assert rig.started == []
    (run,) = rig.recorder.close()
    with store.write() as connection:
        run_rows.give_back(connection, [(run.id, run.fence)], rig.clock.now())
        plan_rows.add_set(connection, "set", {run.job_id: "x"})
        pools, room = {run.job_id: "default"}, {"default": 9}
        now = rig.clock.now()
        assert pending_rows.take_pending(connection, "set", pools, "n", now, 0, room) == []
        (again,) = pending_rows.take_pending(connection, "set", pools, "n", run.due, 0, room)
    assert again.due == run.due > run.tick


def test_a_splayed_run_waits_for_its_own_time(store):
    rig = Rig(store, make_plan(schedule="0 * * * * *", splay=timedelta(seconds=30)))
    rig.tick(60)
    rig.clock.advance(30)
    rig.recorder.step()
    (run,) = rig.started
    assert run.started >= run.due


# --- commits whose answer was lost ---


def step_without_answer(rig):
    with answer_lost(rig.store), pytest.raises(StoreError):
        rig.recorder.step()


def test_a_gate_that_is_answered_after_the_lease_starts_nothing_before_it_was_read_back(store):
    """Others may have rescued the run while the answer was under way."""
    rig = Rig(store, make_plan("a"), make_plan("b"))
    rig.clock.advance(1)
    rig.claimer.step()
    rig.recorder._lease_until = lambda: rig.__setattr__("lease_holds", False) or 0
    rig.recorder.step()
    assert (rig.states(), rig.started) == ([State.RUNNING] * 2, [])
    assert sorted(rig.recorder.held()) == [(1, 1), (2, 1)]
    with store.write() as connection:
        run_rows.rescue(connection, {(1, 1, 0)}, rig.clock.now())
    rig.lease_holds, rig.recorder._lease_until = True, lambda: 0
    rig.recorder.step()
    assert [(run.id, run.attempt) for run in rig.started] == [(2, 1)]
    assert [(run.id, run.state) for run in rig.ended] == [(1, State.LOST)]
    assert rig.calls.names() == ["run_started"]


def test_a_gate_in_doubt_is_read_back_and_its_function_starts_once(store):
    rig = Rig(store, make_plan("a"), make_plan("b"))
    rig.clock.advance(1)
    rig.claimer.step()
    step_without_answer(rig)
    assert rig.states() == [State.RUNNING] * 2
    assert rig.started == []
    rig.recorder.step()
    rig.recorder.step()
    assert sorted(run.id for run in rig.started) == [1, 2]
    assert {(run.state, run.attempt, run.started) for run in rig.started} == {
        (State.RUNNING, 1, START + timedelta(seconds=1))
    }
    rig.finish(*rig.started)
    assert rig.states() == [State.SUCCEEDED] * 2
    assert rig.calls.names().count("run_started") == 2


def test_a_gate_in_doubt_that_others_have_rescued_meanwhile_starts_nothing(store):
    rig = Rig(store, make_plan())
    rig.clock.advance(1)
    rig.claimer.step()
    step_without_answer(rig)
    with store.write() as connection:
        run_rows.rescue(connection, {(1, 1, 0)}, rig.clock.now())
    rig.recorder.step()
    assert rig.started == []
    assert rig.recorder.held() == []


def test_a_gate_that_was_not_committed_is_made_again(store, monkeypatch):
    rig = Rig(store, make_plan())
    rig.clock.advance(1)
    rig.claimer.step()
    with monkeypatch.context() as patch:
        patch.setattr(run_rows, "gate", lambda *_: _fail())
        with pytest.raises(StoreError):
            rig.recorder.step()
    rig.recorder.step()
    assert [run.id for run in rig.started] == [1]


def test_a_skip_in_doubt_is_observed_once(store):
    rig = Rig(store, make_plan())
    rig.tick()
    rig.clock.advance(1)
    rig.claimer.step()
    step_without_answer(rig)
    rig.recorder.step()
    assert rig.calls.names() == ["run_started", "tick_skipped"]
    assert [run.id for run in rig.ended] == [2]


def test_a_finish_in_doubt_has_ended_and_is_not_fenced(store):
    rig = Rig(store, make_plan())
    rig.tick()
    rig.recorder.report(rig.started[0], report(rig.started[0], rig.clock, message="m"))
    step_without_answer(rig)
    rig.recorder.step()
    assert rig.calls.names() == ["run_started", "run_succeeded", "run_finished"]
    assert [(run.state, run.message) for run in rig.ended] == [(State.SUCCEEDED, "m")]
    assert rig.recorder.held() == []


def test_a_run_that_is_offered_twice_starts_once(store):
    rig = Rig(store, make_plan(overlap=Overlap.ALLOW))
    rig.clock.advance(1)
    rig.claimer.step()
    with store.read() as connection:
        runs = queries.history(connection)
    rig.recorder.offer(runs)
    rig.recorder.step()
    rig.recorder.offer(runs)
    rig.recorder.step()
    assert [run.id for run in rig.started] == [1]


def slots(store):
    with store.read() as connection:
        return connection.execute(select(slot.c.run_id)).scalars().all()


def test_a_stray_keeps_its_slot_until_it_is_released(store):
    rig = Rig(store, make_plan())
    rig.tick()
    (run,) = rig.started
    rig.finish(run, outcome=State.TIMED_OUT, stray=True)
    assert (rig.states(), slots(store)) == ([State.TIMED_OUT], [1])
    rig.tick()
    assert rig.states()[0] is State.SKIPPED  # it overlaps with the stray
    rig.recorder.release(run)
    rig.recorder.step()
    assert slots(store) == []
    rig.tick()
    assert rig.states()[0] is State.RUNNING
    assert rig.calls.names()[1:3] == ["run_timed_out", "run_finished"]


def test_a_released_slot_is_given_back_in_the_end_whatever_the_database_does(store, monkeypatch):
    rig = Rig(store, make_plan())
    rig.tick()
    rig.recorder.report(rig.started[0], report(rig.started[0], rig.clock, stray=True))
    rig.recorder.release(rig.started[0])
    with monkeypatch.context() as patch:
        patch.setattr(store, "write", _fail)
        with pytest.raises(StoreError):
            rig.recorder.step()
    rig.recorder.flush()
    assert slots(store) == []


def test_what_failed_to_be_gated_is_among_the_unstarted(store, monkeypatch):
    rig = Rig(store, make_plan())
    rig.clock.advance(1)
    rig.claimer.step()
    with monkeypatch.context() as patch:
        patch.setattr(store, "write", _fail)
        with pytest.raises(StoreError):
            rig.recorder.step()
    assert [run.id for run in rig.recorder.close()] == [1]
    rig.recorder.step()
    assert rig.started == []


def test_closing_waits_for_the_group_that_is_being_written(store):
    rig = Rig(store, make_plan())
    rig.clock.advance(1)
    rig.claimer.step()
    closing = threading.Thread(target=rig.recorder.close)

    def start(run):
        closing.start()
        closing.join(0.05)
        assert closing.is_alive()
        rig.started.append(run)

    rig.recorder._start = start
    rig.recorder.step()
    closing.join(30)
    assert not closing.is_alive()
    assert rig.recorder.running() == rig.started


# --- several pools ---


def test_each_pool_is_gated_for_its_own_workers(store):
    plans = [make_plan(f"slow{n}", executor="reports") for n in range(5)]
    plans += [make_plan(f"quick{n}") for n in range(5)]
    rig = Rig(store, *plans, sizes={"default": 4, "reports": 2})
    rig.tick()
    assert sorted(run.pool for run in rig.started) == ["default"] * 4 + ["reports"] * 2
    rig.finish(*[run for run in rig.started if run.pool == "default"])
    assert sorted(run.pool for run in rig.started) == ["default"] * 5 + ["reports"] * 2
    assert rig.recorder.room() == {"default": 6, "reports": -3}


def test_a_pool_is_starting_while_it_has_just_started_some_and_has_more_that_are_due(store):
    rig = Rig(store, *(make_plan(f"job{n}") for n in range(3)), size=1)
    rig.tick()
    (run,) = rig.started
    assert not rig.recorder.is_starting()  # no worker has begun it
    rig.recorder.began(run)
    assert rig.recorder.is_starting()
    rig.clock.advance(2 * WINDOW_S)  # it runs for longer than that
    assert not rig.recorder.is_starting()
    rig.finish(*rig.started)
    for run in rig.started[1:]:
        rig.recorder.began(run)
        rig.finish(run)
    for run in rig.started[2:]:
        rig.recorder.began(run)
    assert not rig.recorder.is_starting()  # there are no more


def test_a_fast_pool_gives_no_window_to_a_slow_one(store):
    plans = [make_plan(f"job{n}", executor="reports" if n % 2 else "default") for n in range(20)]
    rig = Rig(store, *plans, sizes={"default": 2, "reports": 2})
    rig.tick()
    rig.recorder.began(next(run for run in rig.started if run.pool == "default"))
    rig.recorder.step()
    assert sorted(run.pool for run in rig.started) == ["default"] * 3 + ["reports"] * 2


def test_a_node_takes_pending_runs_only_of_pools_that_have_room(store):
    plans = [make_plan("slow", executor="reports"), make_plan("quick")]
    rig = Rig(store, *plans, sizes={"default": 2, "reports": 2})
    rig.clock.advance(1)
    rig.claimer.step()
    runs = rig.recorder.close()
    with store.write() as connection:
        run_rows.give_back(connection, [(run.id, run.fence) for run in runs], rig.clock.now())
        pools = {"ext:slow": "elsewhere", "ext:quick": "default"}
        plan_rows.add_set(connection, "set", dict.fromkeys(pools, "x"))
        take = (connection, "set", pools, "n", rig.clock.now(), 0)
        (quick,) = pending_rows.take_pending(*take, {"default": 5, "elsewhere": 0})
        (slow,) = pending_rows.take_pending(*take, {"default": 5, "elsewhere": 1})
        stored = run_rows.lock(connection, [slow.id])[slow.id]
    assert (quick.job_id, quick.pool) == ("ext:quick", "default")
    assert (slow.job_id, slow.pool, stored.pool) == ("ext:slow", "elsewhere", "elsewhere")


def test_what_messages_name_is_looked_up_in_the_transaction_that_gates_it(store, monkeypatch):
    rig = Rig(store, make_plan())
    rig.clock.advance(1)
    found = []
    rig.claimer._took = found.extend  # as if it had been sent here
    rig.claimer.step()
    named = [found]
    rig.recorder._named = lambda: bool(named)
    rig.recorder._look = lambda _connection: named.pop()
    write, written = store.write, []
    monkeypatch.setattr(store, "write", lambda: (written.append(1), write())[1])
    rig.recorder.step()
    assert [run.id for run in rig.started] == [run.id for run in found] == [1]
    assert len(written) == 1


def test_what_messages_name_beyond_the_free_workers_waits_for_one(store):
    plans = [make_plan(f"job{n}") for n in range(5)]
    rig = Rig(store, *plans, size=2)
    rig.clock.advance(1)
    found = []
    rig.claimer._took = found.extend
    rig.claimer.step()
    rig.recorder.offer(found[:1])
    named = [found]
    rig.recorder._named = lambda: bool(named)
    rig.recorder._look = lambda _connection: named.pop()
    rig.recorder.step()
    assert [len(rig.started), len(rig.recorder.held())] == [2, 5]
