"""Leases: a node that lives keeps its runs; those of a dead one are settled by others."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import select

from systemprompt_jobs import _keep
from systemprompt_jobs._keep import Keeper
from systemprompt_jobs._node import new_node
from systemprompt_jobs._rows import manual_key, run_values
from systemprompt_jobs._store import cancels, pruning, queries
from systemprompt_jobs._store import jobs as job_rows
from systemprompt_jobs._store import runs as run_rows
from systemprompt_jobs._store.schema import attempt, node, slot
from systemprompt_jobs.errors import StoreError
from systemprompt_jobs.model import Overlap, RetryPolicy, State, Trigger
from tests.support import START, Calls, ManualClock, answer_lost, make_plan, report

LEASE_S = 30.0


class Attempts:
    """What an interrupter tells a keeper, and is told."""

    def __init__(self):
        self.stray_runs, self.cancelled = [], []

    def strays(self):
        return self.stray_runs

    def cancel(self, requests):
        self.cancelled += requests


class Node:
    """A keeper without its thread."""

    def __init__(self, store, clock):
        self.store = store
        self.clock = clock
        self.calls = Calls()
        self.taken = []
        self.dropped = []
        self.held = []
        self.room = 10
        self.node = new_node()
        self.attempts = Attempts()
        self.keeper = Keeper(
            store,
            self.node,
            clock,
            LEASE_S,
            fingerprints={"ext:cleanup": "x"},
            pools={"ext:cleanup": "default"},
            held=lambda: self.held,
            room=lambda: {"default": self.room},
            took=self.taken.extend,
            drop=self.dropped.extend,
            observer=self.calls,
            interrupter=self.attempts,
        )
        self.keeper.join("scheduler", {"default": 10})

    def told_of_runs(self):
        return [name for name in self.calls.names() if not name.startswith("node_")]

    def hold(self, trigger=Trigger.SCHEDULE, *, running=False, name="cleanup", **plan):
        """Insert a run that this node has claimed, and start it if asked."""
        values = run_values(make_plan(name, **plan), manual_key(), trigger, self.clock.now())
        values |= {"node": self.node.id, "lease_until": self.keeper.lease_until()}
        with self.store.write() as connection:
            (run,) = run_rows.add(connection, [values])
            if running:
                run_rows.gate(connection, [run], self.clock.now(), self.keeper.lease_until())
        self.held.append((run.id, run.fence))
        return run

    def run_of(self, run, limit=20):
        with self.store.read() as connection:
            return next(r for r in queries.history(connection, limit=limit) if r.id == run.id)


@pytest.fixture
def clock():
    return ManualClock()


def pass_time(clock, seconds, *keepers):
    """Let time pass in steps of one second, as the loops would see it."""
    for _ in range(int(seconds)):
        clock.advance(1)
        for keeping in keepers:
            keeping.keeper.step()


def test_a_living_node_keeps_its_runs_for_ever(store, clock):
    one, two = Node(store, clock), Node(store, clock)
    run = one.hold(running=True)
    pass_time(clock, 10 * LEASE_S, one, two)
    assert one.run_of(run).state is State.RUNNING


def test_a_dead_nodes_running_run_is_lost_within_five_thirds_of_a_lease(store, clock):
    dead, alive = Node(store, clock), Node(store, clock)
    run = dead.hold(running=True)
    pass_time(clock, LEASE_S, alive)
    assert alive.run_of(run).state is State.RUNNING
    pass_time(clock, LEASE_S * 2 / 3 + 1, alive)
    lost = alive.run_of(run)
    assert lost.state is State.LOST
    assert "node died" in lost.error
    assert alive.calls.names() == ["run_lost", "run_finished", "node_left"]
    assert alive.calls.made[1][1]["report"] is None


def test_a_lost_run_gives_its_slot_back_and_its_attempt_says_so(store, clock):
    dead, alive = Node(store, clock), Node(store, clock)
    dead.hold(running=True)
    pass_time(clock, 2 * LEASE_S, alive)
    with store.read() as connection:
        assert connection.execute(select(slot)).all() == []
        assert connection.execute(select(attempt.c.outcome)).scalar() == "lost"


def test_a_dead_nodes_claimed_run_is_taken_over_under_a_higher_fence_at_no_cost(store, clock):
    dead, alive = Node(store, clock), Node(store, clock)
    run = dead.hold()
    pass_time(clock, 2 * LEASE_S, alive)
    (taken,) = alive.taken
    assert (taken.id, taken.state, taken.fence, taken.attempt) == (run.id, State.CLAIMED, 2, 0)
    assert taken.node == alive.node.id
    assert alive.calls.names() == ["run_rescued", "node_left"]
    rescued = alive.calls.made[0][1]["run"]
    assert (rescued.id, rescued.state, rescued.fence) == (run.id, State.PENDING, 2)
    assert rescued.node == dead.node.id


def test_a_dead_node_is_noticed_by_one_of_the_others(store, clock):
    dead, one, two = (Node(store, clock) for _ in range(3))
    pass_time(clock, 2 * LEASE_S, one, two)
    assert one.calls.made + two.calls.made == [("node_left", {"node": dead.node})]


def test_a_node_that_has_left_by_itself_is_not_noticed_again(store, clock):
    gone, other = Node(store, clock), Node(store, clock)
    gone.keeper.leave()
    pass_time(clock, 2 * LEASE_S, other)
    assert other.calls.made == []


def test_a_node_that_was_taken_for_dead_joins_again_when_it_wakes(store, clock):
    frozen, other = Node(store, clock), Node(store, clock)
    pass_time(clock, 2 * LEASE_S, other)
    assert other.calls.names() == ["node_left"]
    frozen.keeper.step()
    frozen.keeper.step()
    assert frozen.calls.made == [("node_joined", {"node": frozen.node})]
    pass_time(clock, LEASE_S, frozen, other)
    assert other.calls.names() == ["node_left"]
    with store.read() as connection:
        assert connection.execute(select(node.c.stopped)).scalars().all() == [None, None]


def test_a_node_that_was_forgotten_while_it_froze_is_known_again_when_it_wakes(store, clock):
    frozen, other = Node(store, clock), Node(store, clock)
    clock.advance(2 * LEASE_S)
    other.keeper.step()
    with store.write() as connection:
        pruning.delete_nodes(connection, [frozen.node.id])
    frozen.keeper.step()
    assert frozen.calls.names() == ["node_joined"]
    with store.read() as connection:
        live = connection.execute(select(node.c.id).where(node.c.lease_until > clock.lease_now()))
        assert set(live.scalars()) == {frozen.node.id, other.node.id}


def test_a_start_up_run_is_never_moved_to_another_node(store, clock):
    dead, alive = Node(store, clock), Node(store, clock)
    run = dead.hold(Trigger.STARTUP)
    pass_time(clock, 2 * LEASE_S, alive)
    assert alive.taken == []
    assert alive.run_of(run).state is State.LOST


def test_a_run_of_a_job_that_this_node_does_not_have_stays_pending(store, clock):
    dead, alive = Node(store, clock), Node(store, clock)
    run = dead.hold(name="other")
    pass_time(clock, 2 * LEASE_S, alive)
    assert alive.taken == []
    assert alive.run_of(run).state is State.PENDING


def test_one_look_at_an_expired_lease_is_not_enough(store, clock):
    dead, alive = Node(store, clock), Node(store, clock)
    run = dead.hold(running=True)
    clock.advance(10 * LEASE_S)
    alive.keeper.step()
    assert alive.run_of(run).state is State.RUNNING
    clock.advance(LEASE_S / 3)
    alive.keeper.step()
    assert alive.run_of(run).state is State.LOST


def test_a_failed_statement_between_two_looks_makes_them_count_anew(store, clock, monkeypatch):
    dead, alive = Node(store, clock), Node(store, clock)
    run = dead.hold(running=True)
    clock.advance(10 * LEASE_S)
    alive.keeper.step()
    clock.advance(LEASE_S / 3)
    with monkeypatch.context() as patch:
        patch.setattr(store, "write", _fail)
        with pytest.raises(StoreError):
            alive.keeper.step()
    alive.keeper.step()
    assert alive.run_of(run).state is State.RUNNING
    clock.advance(LEASE_S / 3)
    alive.keeper.step()
    assert alive.run_of(run).state is State.LOST


def _fail():
    raise StoreError("no")


def test_a_lease_renewed_between_two_looks_saves_the_run(store, clock):
    slow, alive = Node(store, clock), Node(store, clock)
    run = slow.hold(running=True)
    clock.advance(2 * LEASE_S)
    alive.keeper.step()
    slow.keeper.step()
    pass_time(clock, LEASE_S / 2, alive)
    assert alive.run_of(run).state is State.RUNNING


def test_a_slow_heartbeat_brings_no_two_looks_together(store, clock, monkeypatch):
    dead, alive = Node(store, clock), Node(store, clock)
    run = dead.hold(running=True)
    pass_time(clock, LEASE_S - 1, alive)
    beat = alive.keeper._beat
    monkeypatch.setattr(alive.keeper, "_beat", lambda: (beat(), clock.advance(9)))
    clock.advance(2)
    alive.keeper.step()  # the first look, 9 s after the heartbeat was sent
    monkeypatch.undo()
    pass_time(clock, LEASE_S / 3 - 1, alive)
    assert alive.run_of(run).state is State.RUNNING
    pass_time(clock, 1, alive)
    assert alive.run_of(run).state is State.LOST


def test_the_wall_clock_has_no_say_in_leases(store, clock):
    one, two = Node(store, clock), Node(store, clock)
    run = one.hold(running=True)
    clock.step(365 * 86_400)
    pass_time(clock, LEASE_S, one, two)
    clock.step(-730 * 86_400)
    pass_time(clock, LEASE_S, one, two)
    assert one.run_of(run).state is State.RUNNING


def test_after_a_reboot_of_the_host_its_leases_have_run_out(make_store, clock, monkeypatch):
    store = make_store("sqlite")
    before = Node(store, clock)
    run = before.hold(running=True)
    monkeypatch.setattr(_keep, "boot_id", lambda: "another boot")
    after = Node(store, ManualClock(monotonic=5.0))
    pass_time(after.clock, LEASE_S, after)
    assert after.run_of(run).state is State.LOST


def test_a_heartbeat_names_only_what_is_held_in_memory(store, clock):
    node_, other = Node(store, clock), Node(store, clock)
    run = node_.hold(running=True)
    node_.held.clear()  # as after a bug or a restored process image: nobody vouches for it
    pass_time(clock, 2 * LEASE_S, node_, other)
    assert other.run_of(run).state is State.LOST


def test_a_node_may_start_runs_only_while_its_lease_holds(store, clock, monkeypatch):
    node_ = Node(store, clock)
    assert node_.keeper.may_start()
    monkeypatch.setattr(store, "write", _fail)
    for _ in range(3):
        clock.advance(LEASE_S / 3)
        with pytest.raises(StoreError):
            node_.keeper.step()
    assert not node_.keeper.may_start()
    monkeypatch.undo()
    node_.keeper.step()
    assert node_.keeper.may_start()


def test_a_node_that_leaves_says_so(store, clock):
    one = Node(store, clock)
    clock.advance(3)
    one.keeper.leave()
    with store.read() as connection:
        row = connection.execute(select(node)).one()
    assert (row.stopped, row.kind, row.workers) == (clock.now(), "scheduler", 10)


def test_an_idle_node_looks_for_pending_work_every_second(store, clock):
    assert Node(store, clock).keeper.step() == 1.0


def test_pending_runs_go_to_one_of_two_nodes(store, clock):
    one, two = Node(store, clock), Node(store, clock)
    run = one.hold()
    with store.write() as connection:
        run_rows.give_back(connection, [(run.id, run.fence)], clock.now())
        job_rows.add_missing(connection, [])
    pass_time(clock, 2, one, two)
    assert len(one.taken) + len(two.taken) == 1


def test_a_node_without_room_leaves_pending_runs_to_others(store, clock):
    full, other = Node(store, clock), Node(store, clock)
    full.room = 0
    run = full.hold()
    with store.write() as connection:
        run_rows.give_back(connection, [(run.id, run.fence)], clock.now())
    full.keeper.step()
    assert full.taken == []
    other.keeper.step()
    assert [taken.id for taken in other.taken] == [run.id]


def test_the_older_runs_of_others_hide_none_from_a_node_with_little_room(store, clock):
    node = Node(store, clock)
    node.room = 1
    runs = [node.hold(name=name) for name in ("theirs", "theirs-too", "cleanup")]
    node.held.clear()
    with store.write() as connection:
        run_rows.give_back(connection, [(run.id, run.fence) for run in runs], clock.now())
    node.keeper.step()
    assert [taken.id for taken in node.taken] == [runs[-1].id]


def test_of_many_pending_runs_the_first_are_handed_on_before_the_others_are_taken(
    store, clock, monkeypatch
):
    monkeypatch.setattr(_keep, "_MOST", 2)
    node = Node(store, clock)
    runs = [node.hold(overlap=Overlap.ALLOW) for _ in range(5)]
    node.held.clear()
    with store.write() as connection:
        run_rows.give_back(connection, [(run.id, run.fence) for run in runs], clock.now())
    pauses, taken = [], []
    for _ in range(3):
        pauses.append(node.keeper.step())
        taken.append(len(node.taken))
    assert (pauses, taken) == ([0.0, 0.0, 1.0], [2, 4, 5])


def test_one_heartbeat_renews_all_that_is_held(store, clock):
    busy, other = Node(store, clock), Node(store, clock)
    runs = [busy.hold(running=n % 2 == 0, name=f"job{n}") for n in range(50)]
    pass_time(clock, 3 * LEASE_S, busy, other)
    states = {busy.run_of(run, limit=100).state for run in runs}
    assert states == {State.RUNNING, State.CLAIMED}


def test_a_clock_that_is_off_is_observed_once_and_again_after_it_was_right(store, clock):
    node_ = Node(store, clock)
    for offset in (0.9, -1.1, -2, 0, 60):
        clock.offset = timedelta(seconds=offset)
        clock.advance(LEASE_S / 3)
        node_.keeper.step()
        with store.read() as connection:
            assert connection.execute(select(node.c.clock_offset)).scalar() == clock.offset
    assert node_.calls.made == [
        ("clock_skewed", {"node": node_.node, "offset": timedelta(seconds=-1.1)}),
        ("clock_skewed", {"node": node_.node, "offset": timedelta(seconds=60)}),
    ]


def test_leases_of_all_hosts_count_on_the_databases_clock(make_store):
    store = make_store("postgresql")
    one = Node(store, store.clock(ManualClock(START, monotonic=5.0)))
    two = Node(store, store.clock(ManualClock(START - timedelta(days=1), monotonic=9e6)))
    assert abs(one.keeper.lease_until() - two.keeper.lease_until()) < 30_000_000
    run = one.hold(running=True)
    two.clock.local.advance(LEASE_S)
    two.keeper.step()
    two.clock.local.advance(LEASE_S)
    two.keeper.step()
    assert one.run_of(run).state is State.RUNNING


def test_a_tick_that_no_node_took_within_its_window_is_missed(store, clock):
    gone, alive = Node(store, clock), Node(store, clock)
    run = gone.hold(name="theirs")
    with store.write() as connection:
        run_rows.give_back(connection, [(run.id, run.fence)], clock.now())
    clock.advance(24 * 3600)
    alive.keeper.step()
    assert alive.run_of(run).state is State.PENDING
    clock.advance(LEASE_S / 3)
    alive.keeper.step()
    ended = alive.run_of(run)
    assert (ended.state, ended.finished) == (State.MISSED, clock.now())
    assert "within its catchup_window" in ended.message
    assert (alive.taken, alive.told_of_runs()) == ([], ["tick_missed"])


def test_a_run_by_hand_that_no_node_took_within_its_window_is_cancelled(store, clock):
    gone, alive = Node(store, clock), Node(store, clock)
    run = gone.hold(Trigger.MANUAL)
    with store.write() as connection:
        run_rows.give_back(connection, [(run.id, run.fence)], clock.now())
    clock.advance(24 * 3600 + 1)
    alive.keeper.step()
    assert alive.run_of(run).state is State.CANCELLED
    assert (alive.taken, alive.calls.names()) == ([], ["run_cancelled"])


def test_pending_runs_taken_without_an_answer_are_read_back(store, clock):
    one, two = Node(store, clock), Node(store, clock)
    run = one.hold()
    with store.write() as connection:
        run_rows.give_back(connection, [(run.id, run.fence)], clock.now())
    with answer_lost(store), pytest.raises(StoreError):
        two.keeper.step()
    assert two.taken == []
    two.keeper.step()
    assert [(taken.id, taken.fence, taken.node) for taken in two.taken] == [
        (run.id, 2, two.node.id)
    ]


def test_a_rescue_without_an_answer_is_told_of(store, clock):
    dead, alive = Node(store, clock), Node(store, clock)
    run = dead.hold(running=True)
    pass_time(clock, 40, alive)
    assert alive.run_of(run).state is State.RUNNING
    clock.advance(10)
    with answer_lost(store), pytest.raises(StoreError):
        alive.keeper._look_for_the_dead()
    assert alive.run_of(run).state is State.LOST
    assert alive.calls.names() == []
    alive.keeper.step()
    assert alive.told_of_runs() == ["run_lost", "run_finished"]


def test_what_was_given_up_without_an_answer_is_told_of(store, clock):
    gone, alive = Node(store, clock), Node(store, clock)
    run = gone.hold(name="theirs")
    with store.write() as connection:
        run_rows.give_back(connection, [(run.id, run.fence)], clock.now())
    clock.advance(24 * 3600 + 1)
    with answer_lost(store), pytest.raises(StoreError):
        alive.keeper._beat()
    alive.keeper.step()
    assert alive.told_of_runs() == ["tick_missed"]


def test_a_lease_renewed_just_before_the_rescue_saves_the_run(store, clock):
    slow, alive = Node(store, clock), Node(store, clock)
    run = slow.hold(running=True)
    with store.read() as connection:
        clock.advance(2 * LEASE_S)
        suspects = run_rows.expired(connection, alive.keeper.lease_until(), alive.keeper._boot)
    assert [suspect[0] for suspect in suspects] == [run.id]
    slow.keeper.step()
    with store.write() as connection:
        assert run_rows.rescue(connection, suspects, clock.now()) == []
    assert slow.run_of(run).state is State.RUNNING


def test_a_node_hears_within_a_second_which_of_its_runs_were_cancelled(store, clock):
    one, two = Node(store, clock), Node(store, clock)
    mine, _ = one.hold(running=True), one.hold(running=True, name="other")
    theirs = two.hold(running=True)
    with store.write() as connection:
        cancels.cancel(connection, [mine.id, theirs.id], "cancelled by ada", clock.now())
    pass_time(clock, 1, one)
    assert one.attempts.cancelled == [(mine.id, mine.fence, "cancelled by ada")]


def test_an_idle_node_asks_for_no_cancels(store, clock, monkeypatch):
    node_ = Node(store, clock)
    monkeypatch.setattr(cancels, "requests", None)
    pass_time(clock, 2, node_)


def test_a_heartbeat_says_how_many_strays_there_are(store, clock):
    node_ = Node(store, clock)
    node_.attempts.stray_runs = ["one", "two"]
    pass_time(clock, LEASE_S / 3, node_)
    with store.read() as connection:
        assert connection.execute(select(node.c.strays)).scalar() == 2


def leave_stray(node_, clock):
    """Have a node's run time out and keep its slot."""
    run = node_.hold(running=True)
    said = report(run, clock, State.TIMED_OUT, stray=True)
    with node_.store.write() as connection:
        started = run_rows.lock(connection, [run.id])[run.id]
        run_rows.finish(connection, [(started, said)], clock.now(), 0)
    node_.held.clear()


def slots(store):
    with store.read() as connection:
        return connection.execute(select(slot.c.run_id)).scalars().all()


def test_the_slot_of_a_stray_is_kept_while_its_node_lives(store, clock):
    one, two = Node(store, clock), Node(store, clock)
    leave_stray(one, clock)
    pass_time(clock, 3 * LEASE_S, one, two)
    assert slots(store) == [1]


def test_the_slot_of_a_stray_is_given_back_when_its_node_has_died(store, clock):
    dead, alive = Node(store, clock), Node(store, clock)
    leave_stray(dead, clock)
    pass_time(clock, LEASE_S, alive)
    assert slots(store) == [1]
    pass_time(clock, LEASE_S, alive)
    assert slots(store) == []


def test_slots_of_runs_that_are_held_are_left_alone_when_strays_are_cleaned_up(store, clock):
    dead, alive = Node(store, clock), Node(store, clock)
    leave_stray(dead, clock)
    run = alive.hold(running=True, name="other")
    pass_time(clock, 2 * LEASE_S, alive)
    assert slots(store) == [run.id]


def test_slots_of_runs_that_wait_for_their_next_attempt_or_in_the_queue_are_no_strays(store, clock):
    dead, alive = Node(store, clock), Node(store, clock)
    wait = {"name": "elsewhere", "overlap": Overlap.QUEUE, "retry": RetryPolicy(2)}
    failing, queued = dead.hold(running=True, **wait), dead.hold(running=True, **wait)
    running = dead.run_of(failing)
    failed = report(running, clock, State.FAILED, retry_after=timedelta(hours=1))
    with store.write() as connection:
        run_rows.finish(connection, [(running, failed)], clock.now(), 0)
    dead.held.clear()
    pass_time(clock, 3 * LEASE_S, alive)
    assert [alive.run_of(run).state for run in (failing, queued)] == [State.PENDING] * 2
    assert sorted(slots(store)) == [failing.id, queued.id]


def test_a_run_that_somebody_cancelled_is_lost_with_its_node_whatever_attempts_are_left(
    store, clock
):
    dead, alive = Node(store, clock), Node(store, clock)
    run = dead.hold(running=True, retry=RetryPolicy(2))
    with store.write() as connection:
        cancels.cancel(connection, [run.id], "cancelled by ada", clock.now())
    pass_time(clock, LEASE_S * 5 / 3 + 2, alive)
    assert alive.run_of(run).state is State.LOST
    assert (alive.taken, slots(store)) == ([], [])


def test_a_node_hears_of_its_runs_that_were_cancelled_while_they_wait(store, clock):
    one = Node(store, clock)
    run = one.hold(Trigger.MANUAL)
    with store.write() as connection:
        cancels.cancel(connection, [run.id], "cancelled by ada", clock.now())
    pass_time(clock, 1, one)
    assert one.dropped == [one.run_of(run)]
    assert (one.dropped[0].state, one.attempts.cancelled) == (State.CANCELLED, [])


def test_a_run_with_attempts_left_is_tried_again_by_the_next_node_and_not_lost(store, clock):
    dead, alive = Node(store, clock), Node(store, clock)
    run = dead.hold(running=True, retry=RetryPolicy(2))
    pass_time(clock, LEASE_S * 5 / 3 + 2, alive)
    assert [(r.id, r.attempt, r.fence) for r in alive.taken] == [(run.id, 1, 2)]
    name, seen = alive.calls.made[0]
    assert (name, seen["delay"], seen["report"].outcome) == (
        "run_retrying",
        timedelta(),
        State.LOST,
    )


def test_a_retry_that_nobody_took_in_time_has_failed_with_its_last_error(store, clock):
    one, two = Node(store, clock), Node(store, clock)
    run = one.hold(running=True, retry=RetryPolicy(2), name="elsewhere")
    run = replace(one.run_of(run), node=one.node.id)
    failed = report(run, clock, State.FAILED, error="E: no", retry_after=timedelta())
    with store.write() as connection:
        run_rows.finish(connection, [(run, failed)], clock.now(), 0)
    clock.advance(24 * 3600 + 1)
    two.keeper.step()
    assert [name for name, _ in two.calls.made][-2:] == ["run_failed", "run_finished"]
    assert two.calls.made[-1][1]["report"].error == "E: no"
