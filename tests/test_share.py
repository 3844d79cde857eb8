"""A node claims what it has room for; what waits too long may be taken by any node."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta

import pytest

from systemprompt_jobs._calendar import parse
from systemprompt_jobs._claim import AHEAD, PATIENCE, Claimer
from systemprompt_jobs._keep import Keeper
from systemprompt_jobs._node import new_node
from systemprompt_jobs._rows import run_values
from systemprompt_jobs._store import queries
from systemprompt_jobs._store import runs as run_rows
from systemprompt_jobs.model import CatchUp, State, Trigger
from tests.support import START, Calls, ManualClock, NoAttempts, make_plan, report

LEASE_S = 86_400.0
TICK = START + timedelta(minutes=1)


class Node:
    """A claimer and a keeper without threads; `held` are the runs that it has.

    `room` is that of the pool `default`, `rooms` that of others.
    """

    def __init__(self, store, clock, *plans, room=0, rooms=None, exhausted=()):
        self.room = room
        self.rooms = rooms or {}
        self.held = []
        node = new_node()
        self.claimer = Claimer(
            *(store, plans, node, clock, lambda: 0, self._take, None),
            room=self._room,
            exhausted=lambda: exhausted,
            lease_s=LEASE_S,
        )
        self.keeper = Keeper(
            store,
            node,
            clock,
            LEASE_S,
            fingerprints=self.claimer.fingerprints,
            pools={plan.id: plan.executor for plan in plans},
            held=lambda: [(run.id, run.fence) for run in self.held],
            room=self._room,
            took=self._take,
            drop=lambda _: None,
            observer=Calls(),
            interrupter=NoAttempts(),
        )
        self.keeper.join("scheduler", {"default": 10})
        self.claimer.install(parse)

    def _room(self):
        sizes = self.rooms or {"default": self.room}
        held = Counter(run.pool for run in self.held)
        return {pool: size - held[pool] for pool, size in sizes.items()}

    def _take(self, runs):
        self.held += [run for run in runs if run.state is State.CLAIMED]


@pytest.fixture
def clock():
    return ManualClock()


def plans(count):
    return [make_plan(f"job{n:02}", "0 * * * * *") for n in range(count)]


def states(store):
    with store.read() as connection:
        return sorted(run.state for run in queries.history(connection, limit=100))


def test_beyond_its_room_a_node_leaves_due_ticks_to_others_which_claim_them(store, clock):
    one, two = (Node(store, clock, *plans(10), room=room) for room in (4, 10))
    clock.advance(60 - AHEAD.total_seconds())
    assert one.claimer.step() == 0.05
    assert (len(one.held), len(two.held)) == (4, 0)
    two.claimer.step()
    assert (len(one.held), len(two.held)) == (4, 6)
    assert {run.tick for run in one.held + two.held} == {TICK}


def test_live_schedulers_begin_at_different_jobs(store, clock):
    nodes = [Node(store, clock, *plans(10), room=2) for _ in range(2)]
    for node in nodes:  # they see each other
        node.claimer.step()
    clock.advance(60 - AHEAD.total_seconds())
    for node in nodes:
        node.claimer.step()
    claimed = sorted(sorted(run.job_id[-2:] for run in node.held) for node in nodes)
    assert claimed == [["00", "01"], ["05", "06"]]


def test_a_tick_without_room_for_100_ms_is_pending_for_any_node_and_the_job_goes_on(store, clock):
    one, two = (Node(store, clock, *plans(10), room=room) for room in (4, 0))
    clock.advance(60 - AHEAD.total_seconds())
    one.claimer.step()
    clock.advance((AHEAD + PATIENCE).total_seconds() - 0.001)
    one.claimer.step()
    assert states(store) == ["claimed"] * 4
    clock.advance(0.001)
    one.claimer.step()
    assert states(store) == ["claimed"] * 4 + ["pending"] * 6
    two.room = 5
    two.keeper.step()
    assert len(two.held) == 5
    assert two.keeper.crowded
    two.room = 10
    two.keeper.step()
    assert len(two.held) == 6
    assert not two.keeper.crowded
    assert one.claimer.step() == pytest.approx(
        (timedelta(minutes=1) - AHEAD - PATIENCE).total_seconds()
    )


def test_room_that_comes_within_100_ms_is_used(store, clock):
    one, _ = (Node(store, clock, *plans(10), room=4) for _ in range(2))
    clock.advance(60)
    one.claimer.step()
    one.held.clear()
    assert one.claimer.ended(make_run("job00")), "it is to be woken when a run ends"
    one.claimer.step()
    assert len(one.held) == 4
    assert states(store) == ["claimed"] * 8


def make_run(name):
    from systemprompt_jobs.model import Run, Trigger

    return Run(1, f"ext:{name}", Trigger.SCHEDULE, State.SUCCEEDED)


def test_after_downtime_the_first_node_takes_what_it_has_room_for_and_leaves_the_rest(store, clock):
    Node(store, clock, *plans(10), room=4).keeper.leave()
    clock.advance(3600)
    one, two = (Node(store, clock, *plans(10), room=4) for _ in range(2))
    one.claimer.step()
    two.keeper.step()
    assert states(store) == ["claimed"] * 8 + ["missed"] * 10 + ["pending"] * 2


def test_a_node_that_is_alone_claims_all_that_is_due(store, clock):
    one, two = (Node(store, clock, *plans(10), room=4) for _ in range(2))
    two.keeper.leave()
    clock.advance(60)
    one.claimer.step()
    assert states(store) == ["claimed"] * 10


def test_pending_runs_of_jobs_that_a_node_does_not_have_are_in_nobodys_way(store, clock):
    """They neither count as work to look for nor fill what a node may take."""
    other = Node(store, clock, *plans(10), room=0)
    mine = Node(store, clock, make_plan("mine", "0 * * * * *"), room=2)
    clock.advance(61)
    other.claimer.step()
    mine.keeper.step()
    assert (mine.held, mine.keeper.crowded) == ([], frozenset())
    mine.room = 0
    mine.claimer.step()
    mine.room = 2
    mine.keeper.step()
    mine.keeper.step()
    assert [run.job for run in mine.held] == ["mine"]


def test_the_ticks_of_a_replaced_plan_run_one_at_a_time_oldest_first_whoever_has_room(store, clock):
    """Neither the new plan's ticks nor more nodes bring them forward, nor is one skipped."""
    old = make_plan("job", "* * * * * *", catch_up=CatchUp.ALL)
    Node(store, clock, old, room=9).keeper.leave()
    clock.advance(3)
    nodes = [Node(store, clock, make_plan("job", "0 * * * * *"), room=9) for _ in range(3)]
    for n in range(1, 4):
        for node in nodes * 2:
            node.keeper.step()
        (holder,) = [node for node in nodes if node.held]
        (run,) = holder.held
        assert run.tick == START + timedelta(seconds=n)
        if n == 2:  # a run by hand had the slot: it goes on waiting, and the third with it
            run = _after_one_by_hand(store, clock, run, nodes)
        _gate(store, clock, run)
        for node in nodes:
            node.keeper.step()
        assert [node.held for node in nodes if node is not holder] == [[], []]
        with store.write() as connection:
            run_rows.finish(connection, [(run, report(run, clock))], clock.now(), 0)
        holder.held.clear()
    assert states(store) == ["succeeded"] * 4


def _gate(store, clock, run):
    with store.write() as connection:
        return run_rows.gate(connection, [run], clock.now(), 2**62)


def _after_one_by_hand(store, clock, run, nodes):
    plan = make_plan("job")
    with store.write() as connection:
        values = run_values(plan, "m:1", Trigger.MANUAL, clock.now()) | {"lease_until": 2**62}
        (by_hand,) = run_rows.add(connection, [values])
    assert _gate(store, clock, by_hand)[0]
    ((), (waits,)) = map(tuple, _gate(store, clock, run))
    assert (waits.state, waits.reason) == (State.PENDING, "overlap")
    holder = next(node for node in nodes if node.held)
    holder.held.clear()
    for node in nodes:
        node.keeper.step()
        assert node.held == []
    with store.write() as connection:
        run_rows.finish(connection, [(by_hand, report(by_hand, clock))], clock.now(), 0)
    holder.keeper.step()
    (again,) = holder.held
    assert (again.id, again.fence) == (run.id, run.fence + 1)
    return again


def slow_and_fast():
    slow = [make_plan(f"a{n:02}", "0 * * * * *", executor="slow") for n in range(10)]
    return [*slow, *(make_plan(f"b{n}", "0 * * * * *", executor="fast") for n in range(3))]


def pools(runs):
    return Counter(run.pool for run in runs)


def test_what_waits_for_a_pool_with_no_room_hides_nothing_that_another_pool_may_take(store, clock):
    everything = slow_and_fast()
    away = Node(store, clock, *everything, rooms={"slow": 0, "fast": 0})
    here = Node(store, clock, *everything, rooms={"slow": 1, "fast": 5})
    clock.advance(61)
    away.claimer.step()
    assert states(store) == ["pending"] * 13
    here.keeper.step()
    assert pools(here.held) == {"slow": 1, "fast": 3}
    assert here.keeper.crowded == {"slow"}


def test_a_node_whose_pool_is_full_leaves_its_ticks_to_others_and_claims_those_of_the_rest(
    store, clock
):
    everything = slow_and_fast()
    one = Node(store, clock, *everything, rooms={"slow": 2, "fast": 3})
    two = Node(store, clock, *everything, rooms={"slow": 20, "fast": 0})
    clock.advance(61)
    one.claimer.step()
    assert pools(one.held) == {"slow": 2, "fast": 3}
    two.keeper.step()
    assert pools(two.held) == {"slow": 8}


def test_even_alone_a_node_claims_nothing_for_a_pool_that_can_start_nothing(store, clock):
    one = Node(store, clock, *slow_and_fast(), rooms={"fast": 1}, exhausted=("slow",))
    clock.advance(61)
    one.claimer.step()
    assert pools(one.held) == {"fast": 3}
    assert states(store) == ["claimed"] * 3 + ["pending"] * 10
