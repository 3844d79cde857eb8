"""Leases: a node that lives keeps its runs; those of a dead one are settled by others."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import select

from systemprompt_jobs import _keep
from systemprompt_jobs._claim import manual_key, run_values
from systemprompt_jobs._keep import Keeper
from systemprompt_jobs._node import new_node
from systemprompt_jobs._store import jobs as job_rows
from systemprompt_jobs._store import queries
from systemprompt_jobs._store import runs as run_rows
from systemprompt_jobs._store.schema import attempt, node, slot
from systemprompt_jobs.errors import StoreError
from systemprompt_jobs.model import State, Trigger
from tests.support import START, Calls, ManualClock, answer_lost, make_plan

LEASE_S = 30.0


class Node:
    """A keeper without its thread."""

    def __init__(self, store, clock):
        self.store = store
        self.clock = clock
        self.calls = Calls()
        self.taken = []
        self.held = []
        self.room = 10
        self.node = new_node()
        self.keeper = Keeper(
            store,
            self.node,
            clock,
            LEASE_S,
            pools={"ext:cleanup": "default"},
            held=lambda: self.held,
            room=lambda: {"default": self.room},
            took=self.taken.extend,
            observer=self.calls,
        )
        self.keeper.join("scheduler", {"default": 10}, "set")

    def hold(self, trigger=Trigger.SCHEDULE, *, running=False, name="cleanup"):
        """Insert a run that this node has claimed, and start it if asked."""
        values = run_values(make_plan(name), manual_key(), trigger, self.clock.now())
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
    assert alive.calls.names() == ["run_lost", "run_finished"]
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
    assert alive.calls.names() == []


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
    clock.advance(1)
    alive.keeper.step()
    ended = alive.run_of(run)
    assert (ended.state, ended.finished) == (State.MISSED, clock.now())
    assert "within its catchup_window" in ended.message
    assert (alive.taken, alive.calls.names()) == ([], ["tick_missed"])


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
