"""Failed runs are tried again by their policy, wait for their slot, and lose neither."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import select

from systemprompt_jobs._retry import RETRY, settle
from systemprompt_jobs._rows import manual_key, run_values
from systemprompt_jobs._store import pending as pending_rows
from systemprompt_jobs._store import queries, said
from systemprompt_jobs._store import runs as run_rows
from systemprompt_jobs._store.schema import slot
from systemprompt_jobs.builtin import logs
from systemprompt_jobs.errors import StoreError
from systemprompt_jobs.model import Concurrency, Overlap, RetryPolicy, State, Trigger
from tests.support import START, ManualClock, answer_lost, captured, job_set, make_plan, report
from tests.test_record import Rig as OneNode

MINUTELY = "0 * * * * *"
S = timedelta(seconds=1)


class Rig(OneNode):
    """A node whose runs are tried again by their policies, and that takes pending ones."""

    def __init__(self, store, *plans, clock=None):
        super().__init__(store, *plans, size=10)
        self.clock = clock or self.clock
        for stage in (self.recorder, self.claimer):
            stage._clock = self.clock
        self.recorder._settle = lambda r, said: settle(r, said, lambda _: None, lambda *_: None)
        self.ids = [plan.id for plan in plans]
        self.pools = {plan.id: plan.executor for plan in plans}

    def fail(self, *runs, **values):
        self.finish(*runs, outcome=State.FAILED, error="E: no", error_types=("E",), **values)

    def take(self):
        """Take pending runs, as the keeper does, and gate them."""
        with self.store.write() as connection:
            taken = pending_rows.take_pending(
                connection,
                job_set(connection, self.ids),
                self.pools,
                self.claimer._node.id,
                self.clock.now(),
                0,
                {"default": 10},
            )
        self.recorder.offer(taken)
        self.recorder.step()
        return taken

    def hold(self, trigger):
        """Gate a run that belongs to this node, as at a start-up or by hand."""
        values = run_values(
            next(iter(self.claimer._plans.values())), manual_key(), trigger, self.clock.now()
        )
        with self.store.write() as connection:
            (run,) = run_rows.add(
                connection, [values | {"node": self.claimer._node.id, "lease_until": 0}]
            )
        self.recorder.offer([run])
        self.recorder.step()
        return next((r for r in self.started if r.id == run.id), run)

    def runs(self):
        """Return all runs, oldest first."""
        with self.store.read() as connection:
            return queries.history(connection, limit=1000)[::-1]

    def slots(self):
        with self.store.read() as connection:
            return sorted(map(tuple, connection.execute(select(slot))))


def flaky(name="cleanup", schedule=MINUTELY, attempts=3, **values):
    values = {"retry": RetryPolicy(attempts, delay=10 * S)} | values
    return make_plan(name, schedule, **values)


def test_a_failed_run_is_tried_again_when_its_delay_is_over(store):
    rig = Rig(store, flaky())
    rig.tick(60)
    rig.fail(*rig.started)
    (run,) = rig.runs()
    assert (run.state, run.status, run.attempt, run.fence) == (State.PENDING, "retrying", 1, 2)
    assert run.error == "E: no"
    assert 69 * S <= run.due - START <= 71 * S
    rig.clock.advance(8)
    assert rig.take() == []
    rig.clock.advance(4)
    rig.take()
    assert (rig.started[-1].attempt, rig.started[-1].error) == (2, "")
    assert rig.runs() == [rig.started[-1]]
    rig.finish(rig.started[-1])
    assert rig.states() == [State.SUCCEEDED]
    assert rig.calls.names() == [
        "run_started",
        "run_retrying",
        "run_started",
        "run_succeeded",
        "run_finished",
    ]


def test_the_next_attempt_is_not_before_the_tick_when_the_clock_was_set_back(store):
    rig = Rig(store, flaky())
    rig.tick(60)
    rig.clock.step(-50)
    rig.fail(*rig.started)
    (run,) = rig.runs()
    assert run.due == run.tick == START + 60 * S
    rig.clock.advance(45)
    assert rig.take() == []
    rig.clock.advance(6)
    (again,) = rig.take()
    assert again.id == run.id


def test_each_attempt_keeps_its_own_error_and_the_last_one_decides(store):
    rig = Rig(store, flaky(attempts=2))
    rig.tick(60)
    rig.fail(*rig.started, traceback="first")
    rig.clock.advance(12)
    rig.take()
    rig.fail(rig.started[-1], traceback="second")
    with store.read() as connection:
        attempts = said.attempts_of(connection, 1)
    assert [(a.number, a.outcome, a.traceback) for a in attempts] == [
        (1, State.FAILED, "first"),
        (2, State.FAILED, "second"),
    ]
    assert rig.states() == [State.FAILED]
    assert rig.calls.names()[-2:] == ["run_failed", "run_finished"]
    assert rig.slots() == []


def test_a_run_that_waits_to_be_tried_again_keeps_its_slots(store):
    rig = Rig(store, flaky(concurrency=Concurrency("api", 1)))
    rig.tick(60)
    rig.fail(*rig.started)
    assert rig.slots() == [("concurrency:api", 0, 1, 2), ("overlap:ext:cleanup", 0, 1, 2)]
    rig.clock.advance(12)
    rig.take()
    assert rig.started[-1].attempt == 2
    rig.finish(rig.started[-1])
    assert rig.slots() == []


def test_a_start_up_run_is_tried_again_by_its_own_node(store):
    rig = Rig(store, flaky(schedule=""))
    run = rig.hold(Trigger.STARTUP)
    rig.fail(run)
    (waiting,) = rig.runs()
    assert (waiting.state, waiting.status) == (State.CLAIMED, "retrying")
    rig.clock.advance(12)
    assert rig.take() == []
    rig.recorder.step()
    assert (rig.started[-1].id, rig.started[-1].attempt) == (run.id, 2)
    assert rig.recorder.room() == {"default": 18}


def test_a_report_in_doubt_of_a_run_that_is_tried_again_counts_once(store):
    rig = Rig(store, flaky())
    rig.tick(60)
    rig.recorder.report(
        rig.started[0], report(rig.started[0], rig.clock, State.FAILED, error_types=("E",))
    )
    with answer_lost(store), pytest.raises(StoreError):
        rig.recorder.step()
    rig.recorder.step()
    assert rig.calls.names() == ["run_started", "run_retrying"]
    rig.clock.advance(12)
    assert [run.attempt for run in rig.take()] == [1]


def test_a_report_of_an_attempt_that_was_taken_away_frees_nothing(store):
    rig = Rig(store, flaky())
    rig.tick(60)
    (old,) = rig.started
    with store.write() as connection:
        (again,) = run_rows.rescue(connection, {(1, 1, 0)}, rig.clock.now())
    assert (again.status, again.error) == ("retrying", "its node died or was cut off")
    assert rig.slots() == [("overlap:ext:cleanup", 0, 1, 2)]
    rig.take()
    rig.finish(old)
    assert rig.calls.names()[-1] == "run_fenced"
    assert rig.slots() == [("overlap:ext:cleanup", 0, 1, 2)]
    assert rig.runs()[0].state is State.RUNNING
    rig.finish(rig.started[-1])
    assert rig.slots() == []


@pytest.mark.parametrize(
    ("trigger", "attempts", "state"),
    [
        (Trigger.SCHEDULE, 2, State.PENDING),
        (Trigger.MANUAL, 2, State.PENDING),
        (Trigger.STARTUP, 2, State.LOST),
        (Trigger.SCHEDULE, 1, State.LOST),
    ],
)
def test_rescue_tries_again_while_attempts_are_left(store, trigger, attempts, state):
    rig = Rig(store, flaky(attempts=attempts))
    rig.hold(trigger)
    with store.write() as connection:
        (settled,) = run_rows.rescue(connection, {(1, 1, 0)}, rig.clock.now())
    assert settled.state is state
    assert (rig.slots() == []) == (state is State.LOST)


def test_the_window_of_a_run_that_is_tried_again_counts_from_its_next_attempt(store):
    rig = Rig(store, flaky(catchup_window=5 * S, retry=RetryPolicy(2, delay=60 * S)))
    rig.tick(60)
    rig.fail(*rig.started)
    due = rig.runs()[0].due
    with store.write() as connection:
        assert pending_rows.give_up_pending(connection, due + 4 * S) == []
        (given_up,) = pending_rows.give_up_pending(connection, due + 6 * S)
    assert (given_up.state, given_up.error) == (State.FAILED, "E: no")
    assert rig.slots() == []


def test_a_job_that_skips_itself_ends_skipped_and_frees_its_slot(store):
    rig = Rig(store, flaky())
    rig.tick(60)
    rig.finish(*rig.started, outcome=State.SKIPPED, message="nothing new")
    (run,) = rig.runs()
    assert (run.state, run.reason, run.message) == (State.SKIPPED, "job", "nothing new")
    with captured() as logged:
        logs.tick_skipped(run)
        logs.tick_skipped(replace(run, reason="overlap"))
    assert [line["log_level"] for line in logged] == ["info", "warning"]
    assert rig.calls.names()[1:] == ["tick_skipped", "run_finished"]
    assert rig.slots() == []
    assert rig.ended == [run]


def test_asking_for_a_retry_without_attempts_left_fails_with_a_word_on_it(store):
    rig = Rig(store, make_plan(schedule=MINUTELY))
    rig.tick(60)
    rig.finish(
        *rig.started, outcome=State.FAILED, error="busy", error_types=(RETRY,), retry_after=S
    )
    assert rig.runs()[0].error.startswith("busy (not tried again: no attempt is left")


# --- overlap: queue ---


def queued(name="cleanup", schedule="* * * * * *", **values):
    return make_plan(name, schedule, overlap=Overlap.QUEUE, **values)


def test_the_oldest_waits_and_later_ones_are_skipped(store):
    rig = Rig(store, queued())
    for _ in range(3):
        rig.tick()
    assert [(r.state, r.reason) for r in rig.runs()] == [
        (State.RUNNING, ""),
        (State.PENDING, "overlap"),
        (State.SKIPPED, "overlap"),
    ]
    assert rig.take() == []
    rig.finish(rig.started[0])
    rig.take()
    assert [run.id for run in rig.started] == [1, 2]
    assert [key[:3] for key in rig.slots()] == [("overlap:ext:cleanup", 0, 2)]
    rig.finish(rig.started[1])
    assert rig.slots() == []


def test_a_newer_run_does_not_overtake_the_one_that_waits(store):
    rig = Rig(store, queued())
    rig.tick()
    rig.tick()
    rig.finish(rig.started[0])
    rig.tick()
    assert [r.state for r in rig.runs()][1:] == [State.PENDING, State.SKIPPED]
    rig.take()
    assert [run.id for run in rig.started] == [1, 2]


def test_a_run_that_waits_starts_on_another_node_when_the_first_ends(store):
    clock = ManualClock()
    one, two = Rig(store, queued(), clock=clock), Rig(store, queued(), clock=clock)
    one.tick()
    two.tick()
    assert [r.state for r in two.runs()] == [State.RUNNING, State.PENDING]
    assert two.take() == []
    one.finish(*one.started)
    two.take()
    assert [run.id for run in two.started] == [2]


def test_a_run_by_hand_waits_with_its_node_and_starts_when_the_slot_is_free(store):
    rig = Rig(store, queued())
    rig.tick()
    run = rig.hold(Trigger.MANUAL)
    assert rig.take() == []
    rig.finish(rig.started[0])
    rig.clock.advance(1)
    rig.recorder.step()
    assert [r.id for r in rig.started] == [1, run.id]
    assert rig.started[-1].reason == ""


def test_a_run_that_waits_keeps_its_place_when_its_node_dies(store):
    rig = Rig(store, queued())
    rig.tick()
    rig.tick()
    rig.finish(rig.started[0])
    with store.write() as connection:
        mine, now = job_set(connection, rig.ids), rig.clock.now()
        (run,) = pending_rows.take_pending(
            connection, mine, rig.pools, "dead", now, 0, {"default": 9}
        )
        (back,) = run_rows.rescue(connection, {(run.id, run.fence, 0)}, now)
    assert back.state is State.PENDING
    assert rig.slots() == [("overlap:ext:cleanup", 1, 2, 3)]
    rig.take()
    assert [r.id for r in rig.started] == [1, 2]


def test_one_that_waits_longer_than_its_window_is_missed_and_frees_its_place(store):
    rig = Rig(store, queued(catchup_window=5 * S))
    rig.tick()
    rig.tick()
    with store.write() as connection:
        (run,) = pending_rows.give_up_pending(connection, rig.clock.now() + 10 * S)
    assert (run.id, run.state) == (2, State.MISSED)
    assert [row[1:3] for row in rig.slots()] == [(0, 1)]


# --- concurrency ---


def limited(name, limit=1, schedule=MINUTELY, **values):
    return make_plan(name, schedule, concurrency=Concurrency("api", limit), **values)


def test_no_more_runs_than_the_limit_go_on_across_jobs_and_nodes(store):
    clock = ManualClock()
    plans = [limited(f"job{n}", 2) for n in range(5)]
    one, two = Rig(store, *plans, clock=clock), Rig(store, *plans, clock=clock)
    one.tick(60)
    assert len(one.started) == 2
    assert two.take() == one.take() == []
    one.finish(one.started[0])
    two.take()
    assert len(two.started) == 1
    assert [r.reason for r in one.runs() if r.state is State.PENDING] == ["concurrency"] * 2
    one.finish(one.started[1])
    two.finish(two.started[0])
    assert [run.job_id for run in one.take()] == ["ext:job3", "ext:job4"]
    one.finish(*one.started[2:])
    assert set(one.states()) == {State.SUCCEEDED}
    assert one.slots() == []
    assert {run.attempt for run in one.runs()} == {1}


def test_the_oldest_of_those_that_wait_comes_first(store):
    rig = Rig(
        store,
        limited("a", schedule="1 * * * * *"),
        limited("b", schedule="2 * * * * *"),
        limited("c", schedule="3 * * * * *"),
    )
    for _ in range(3):
        rig.tick()
    for expected in ("a", "b", "c"):
        assert rig.started[-1].job == expected
        rig.finish(rig.started[-1])
        rig.take()


def test_later_ticks_of_a_job_that_waits_under_a_limit_are_skipped(store):
    rig = Rig(store, limited("a"), limited("b", schedule="* * * * * *"))
    rig.tick(60)
    for _ in range(3):
        rig.tick()
    waiting = [r for r in rig.runs() if r.state is State.PENDING]
    assert len(waiting) <= 1
    assert State.SKIPPED in rig.states()


def test_a_lowered_limit_counts_those_that_run_already(store):
    rig = Rig(store, *[limited(f"job{n}", 3) for n in range(3)])
    rig.tick(60)
    rig.finish(*rig.started[:2])
    lower = Rig(store, limited("late", 1, schedule="1 * * * * *"), clock=rig.clock)
    lower.tick(1)
    assert lower.started == []
    rig.finish(rig.started[2])
    lower.take()
    assert [run.job for run in lower.started] == ["late"]


def test_what_waits_when_its_node_stops_is_settled_with_its_slots(store):
    rig = Rig(store, queued())
    rig.tick()
    rig.hold(Trigger.MANUAL)
    unstarted = rig.recorder.close()
    with store.write() as connection:
        run_rows.cancel_unstarted(connection, unstarted, rig.clock.now())
    assert [row[1:3] for row in rig.slots()] == [(0, 1)]
