"""An outage of the database is observed once, however many loops of a process notice it."""

from __future__ import annotations

from datetime import timedelta

import pytest

from systemprompt_jobs._loop import Loop, Outage
from systemprompt_jobs.errors import StoreError
from tests.support import Calls, ManualClock


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def calls():
    return Calls()


class Steps:
    """A step that does what it is told."""

    broken = False

    def __call__(self):
        if self.broken:
            raise StoreError("locked")
        return 1.0


def test_its_begin_and_its_end_are_observed_once_for_all_loops(clock, calls):
    outage, steps = Outage(calls, clock), Steps()
    one, two = (Loop(name, steps, clock, outage) for name in ("one", "two"))
    steps.broken = True
    for loop in (one, two, one, two):
        loop._guarded_step()
        clock.advance(1)
    steps.broken = False
    one._guarded_step()
    assert calls.made == [("database_unavailable", {"reason": "locked"})]
    assert outage.reason == "locked"
    two._guarded_step()
    one._guarded_step()
    assert outage.reason == ""
    assert calls.made[1:] == [("database_recovered", {"after": timedelta(seconds=4)})]


def test_the_next_outage_is_observed_again(clock, calls):
    steps = Steps()
    loop = Loop("one", steps, clock, Outage(calls, clock))
    for steps.broken in (True, False, True):
        loop._guarded_step()
    assert calls.names() == ["database_unavailable", "database_recovered", "database_unavailable"]


def test_pauses_grow_while_it_lasts_and_begin_anew_after(clock, calls):
    steps = Steps()
    loop = Loop("one", steps, clock, Outage(calls, clock))
    steps.broken = True
    assert [loop._guarded_step() for _ in range(8)] == [0.5, 1, 2, 4, 8, 16, 30, 30]
    steps.broken = False
    assert loop._guarded_step() == 1.0
    steps.broken = True
    assert loop._guarded_step() == 0.5


def test_heartbeats_are_tried_again_before_anybody_could_take_the_node_for_dead(clock, calls):
    steps = Steps()
    steps.broken = True
    loop = Loop("keep", steps, clock, Outage(calls, clock), backoff_s=10 / 3)
    assert [loop._guarded_step() for _ in range(5)] == [0.5, 1, 2, 10 / 3, 10 / 3]
