"""Real nodes on virtual time: what happens to them, and that it is what would happen."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest

from systemprompt_jobs import JobExtension, job
from systemprompt_jobs.errors import StoreError
from systemprompt_jobs.testing import PLACES, Machine
from systemprompt_jobs.testing._world import World

START = datetime(2026, 1, 1, tzinfo=UTC)


@job(schedule="0 */2 * * * *", max_attempts=2, retry_delay="5s")
def work() -> None: ...


class Plugin(JobExtension):
    def jobs(self):
        return [work]


@pytest.fixture
def make(tmp_path):
    """Return a world of some nodes on one database."""
    worlds = []

    def make(number, lease="9s", **values):
        world = World(START, **values)
        worlds.append(world)
        folder = tmp_path / str(len(worlds))
        folder.mkdir()
        environ = {"SYSTEMPROMPT_JOBS__LEASE": lease}
        for n in range(number):
            Machine(world, f"node{n}", folder, plugins=[Plugin()], environ=environ).start()
        return world, *world.machines

    yield make
    for world in worlds:
        for machine in world.machines:
            machine.crash()


def seen(world):
    """Return what has happened, and at which second."""
    return [
        (m.at.replace(microsecond=0), m.node, m.what, m.run and (m.run.id, m.run.attempt))
        for m in world.moments
    ]


def what(world, *kinds):
    return [m for m in world.moments if m.what in kinds]


def covered(world):
    """Return how many rows there are for each tick, as the runs of the last node say."""
    machine = next(m for m in world.machines if m.up)
    return Counter(run.tick for run in machine.runtime.history(limit=1_000))


def test_a_tick_that_a_stepped_clock_makes_due_runs_within_two_seconds(make):
    world, node = make(1, lease="60s")
    world.run_for(62)
    node.step_clock(59.5)
    assert not what(world, "run_started")
    world.run_for(2)
    assert len(what(world, "run_started")) == 1


@pytest.mark.parametrize("place", PLACES)
def test_wherever_a_process_dies_each_tick_is_one_row_that_comes_to_an_end(make, place):
    world, one, two = make(2, takes=lambda _: 20.0)
    one.crash_at(place)
    two.crash_at(place, hits=3)
    world.run_for(700)
    assert [machine.up for machine in (one, two)].count(False) >= 1
    for machine in (one, two):
        if not machine.up:
            machine.start()
    world.run_for(139)
    ticks = [START + timedelta(minutes=2 * n) for n in range(1, 7)]
    assert covered(world) == dict.fromkeys(ticks, 1)
    runs = one.runtime.history(limit=100)
    assert {str(run.state) for run in runs} <= {"succeeded", "lost", "missed", "skipped"}
    began = Counter(m.run.id for m in what(world, "function_began"))
    assert max(began.values()) <= 2


def test_a_run_moves_on_within_five_thirds_of_a_lease(make):
    world, *nodes = make(2, takes=lambda _: 60.0)
    world.run_for(150)
    (began,) = what(world, "function_began")
    dead = next(node for node in nodes if node.name == began.node)
    dead.crash()
    world.run_for(100)
    died, again = what(world, "crashed", "run_retrying")
    assert timedelta(seconds=9) < again.at - died.at <= timedelta(seconds=9 * 5 / 3 + 1)
    assert again.node != died.node


def test_the_lease_of_a_node_that_was_alone_is_one_that_others_wait_for(make):
    world, one = make(1, takes=lambda _: 60.0)
    world.run_for(150)
    one.crash()
    one.start()
    world.run_for(60)
    died, again = what(world, "crashed", "run_retrying")
    assert timedelta(seconds=9) < again.at - died.at <= timedelta(seconds=9 * 5 / 3 + 1)


def test_what_a_frozen_process_reports_later_is_discarded(make):
    world, *nodes = make(2, takes=lambda _: 60.0)
    world.run_for(150)
    frozen = next(n for n in nodes if n.name == what(world, "function_began")[0].node)
    frozen.freeze()
    world.run_for(100)
    frozen.thaw()
    world.run_for(5)
    (fenced,) = what(world, "run_fenced")
    assert (fenced.node, fenced.run.id) == (frozen.name, 1)


def test_an_outage_is_seen_once_by_each_and_then_caught_up(make):
    world, one, two = make(2)
    for node in (one, two):
        node.lose_database()
    world.run_for(600)
    for node in (one, two):
        node.find_database()
    world.run_for(60)
    assert sorted(m.node for m in what(world, "database_unavailable")) == ["node0", "node1"]
    assert sorted(m.node for m in what(world, "database_recovered")) == ["node0", "node1"]
    (missed,) = what(world, "tick_missed")
    assert missed.run.count == 4
    assert [m.run.tick.minute for m in what(world, "function_ended")] == [10]


def test_a_start_without_a_database_fails_and_the_next_one_may_not(make):
    world, one = make(1)
    one.stop()
    one.lose_database()
    with pytest.raises(StoreError, match="stopped by a test"):
        one.start()
    assert not one.up
    one.find_database()
    one.start()
    world.run_for(130)
    assert len(what(world, "run_succeeded")) == 1


def test_an_unanswered_commit_runs_nothing_twice(make):
    world, one = make(1)
    lost = iter([True])

    def lose(when):
        if when == "after commit" and world.micros > 100_000_000 and next(lost, False):
            raise StoreError("no answer")

    one.store_fault = lose
    world.run_for(400)
    assert list(covered(world).values()) == [1, 1, 1]
    assert [m.run.id for m in what(world, "function_began")] == [1, 2, 3]


def test_the_same_happens_twice_the_same(make):
    def story():
        world, one, two = make(2, takes=lambda _: 50.0)
        world.run_for(130)
        one.crash()
        world.run_for(200)
        one.start()
        two.step_clock(-30)
        world.run_for(300)
        return seen(world)

    assert story() == story()


def test_to_leave_out_looks_changes_nothing_that_happens(make):
    def story(*, skips):
        world, one, _ = make(2, takes=lambda run: 30.0 * run.attempt, skips=skips)
        world.call_in(125, one.crash)
        world.call_in(225, one.start)
        world.run_for(400)
        return seen(world), world.turns

    (short, few), (whole, many) = story(skips=True), story(skips=False)
    assert [moment[2:] for moment in short] == [moment[2:] for moment in whole]
    assert max(abs(a[0] - b[0]) for a, b in zip(short, whole, strict=True)) <= timedelta(seconds=3)
    assert few < many / 2


def test_a_clock_that_goes_back_fires_nothing_twice(make):
    world, one = make(1)
    world.run_for(250)
    one.step_clock(-200)
    world.run_for(400)
    assert set(covered(world).values()) == {1}
    assert [m.run.tick.minute for m in what(world, "function_began")] == [2, 4, 6]


def test_a_clock_that_goes_fast_comes_early(make):
    world, one = make(1)
    one.clock.drift(0.1)
    world.run_for(120)
    assert [round(m.at.timestamp() - START.timestamp()) for m in what(world, "run_started")] == [
        109
    ]


def test_a_stop_waits_for_what_runs_and_time_passes_meanwhile(make):
    world, one = make(1, takes=lambda _: 20.0)
    world.run_for(121)
    one.stop(timedelta(seconds=30))
    assert [str(m.run.state) for m in what(world, "run_finished")] == ["succeeded"]
    assert world.now == START + timedelta(seconds=140)
    assert [m.what for m in world.moments[-2:]] == ["node_left", "scheduler_stopped"]


def test_a_stop_cuts_off_what_takes_too_long(make):
    world, one = make(1, takes=lambda _: 500.0)
    world.run_for(121)
    one.stop(timedelta(seconds=30))
    one.start()
    world.run_for(1)
    (run,) = one.runtime.history()
    assert (run.attempt, run.status) == (2, "running")
