"""Cancelling in the database: what waits ends at once, what runs is asked, what ended stays."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from systemprompt_jobs._rows import manual_key, run_values
from systemprompt_jobs._store import cancels, queries
from systemprompt_jobs._store import runs as run_rows
from systemprompt_jobs._store.schema import run as run_table
from systemprompt_jobs._store.schema import slot
from systemprompt_jobs.model import State, Trigger
from tests.support import ManualClock, make_plan, report


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def make_run(store, clock):
    """Return a function that inserts a run in a state."""

    def make(state, name="cleanup"):
        values = run_values(make_plan(name), manual_key(), Trigger.MANUAL, clock.now())
        with store.write() as connection:
            (run,) = run_rows.add(connection, [values | {"node": "here", "lease_until": 0}])
            if state is State.PENDING:
                run_rows.give_back(connection, [(run.id, run.fence)], clock.now())
            if state in {State.RUNNING, State.SUCCEEDED}:
                ((run,), _) = run_rows.gate(connection, [run], clock.now(), 0)
            if state is State.SUCCEEDED:
                run_rows.finish(connection, [(run, report(run, clock))], clock.now(), 0)
        return run.id

    return make


def cancel(store, clock, *ids):
    with store.write() as connection:
        return cancels.cancel(connection, ids, "cancelled by ada", clock.now())


def now_in(store, id_):
    with store.read() as connection:
        return next(run for run in queries.history(connection) if run.id == id_)


@pytest.mark.parametrize("state", [State.PENDING, State.CLAIMED])
def test_what_waits_is_cancelled_at_once_under_a_higher_fence(store, clock, make_run, state):
    id_ = make_run(state)
    (before,) = cancel(store, clock, id_)
    after = now_in(store, id_)
    assert (before.state, after.state) == (state, State.CANCELLED)
    assert after.fence == before.fence + 1
    assert (after.message, after.finished) == ("cancelled by ada", clock.now())


def test_a_claimed_run_that_was_cancelled_cannot_start(store, clock, make_run):
    id_ = make_run(State.CLAIMED)
    claimed = now_in(store, id_)
    cancel(store, clock, id_)
    with store.write() as connection:
        assert run_rows.gate(connection, [claimed], clock.now(), 0) == ([], [])
        assert run_rows.cancel_unstarted(connection, [claimed], clock.now()) == []


def test_what_runs_goes_on_and_its_node_is_asked(store, clock, make_run):
    asked, other = make_run(State.RUNNING), make_run(State.RUNNING, "other")
    cancel(store, clock, asked)
    assert (now_in(store, asked).state, now_in(store, asked).fence) == (State.RUNNING, 1)
    with store.read() as connection:
        (found,) = cancels.requests(connection, [asked, other])
        assert (found.id, found.fence, found.message) == (asked, 1, "cancelled by ada")
        slots = connection.execute(select(slot.c.run_id)).scalars().all()
        at = select(run_table.c.cancel_requested).where(run_table.c.id == asked)
        assert connection.execute(at).scalar() == clock.now()
    assert sorted(slots) == [asked, other]


def test_what_has_ended_stays_as_it_is(store, clock, make_run):
    id_ = make_run(State.SUCCEEDED)
    before = now_in(store, id_)
    assert cancel(store, clock, id_) == [before]
    assert now_in(store, id_) == before


def test_what_does_not_exist_is_left_out(store, clock):
    assert cancel(store, clock, 12345) == []


def test_many_are_cancelled_in_one_go(store, clock, make_run):
    ids = [make_run(State.PENDING), make_run(State.CLAIMED), make_run(State.RUNNING)]
    cancel(store, clock, *ids)
    states = [now_in(store, id_).state for id_ in ids]
    assert states == [State.CANCELLED, State.CANCELLED, State.RUNNING]
