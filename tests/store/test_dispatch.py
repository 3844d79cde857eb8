"""Runs on their way to workers: whatever messages do, each starts once under each fence."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from systemprompt_jobs._rows import manual_key, run_values
from systemprompt_jobs._store import cancels
from systemprompt_jobs._store import dispatch as dispatch_rows
from systemprompt_jobs._store import pending as pending_rows
from systemprompt_jobs._store import runs as run_rows
from systemprompt_jobs._store.dispatch import Refusal
from systemprompt_jobs.model import Overlap, State, Trigger
from tests.support import ManualClock, job_set, make_plan

SECOND = 1_000_000
DEADLINES = {"default": 300.0}


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def add(store, clock):
    """Return a function that claims a run for the node `here`."""

    def add(trigger=Trigger.SCHEDULE, **plan):
        values = run_values(make_plan(**plan), manual_key(), trigger, clock.now())
        with store.write() as connection:
            held = {"node": "here", "lease_until": 5}
            return run_rows.add(connection, [values | held])[0]

    return add


@pytest.fixture
def send(store):
    def send(run, lease_now=0):
        with store.write() as connection:
            return dispatch_rows.dispatch(connection, [run], lease_now, DEADLINES)

    return send


def gate(store, clock, run, node="there"):
    with store.write() as connection:
        return run_rows.gate(connection, [replace(run, node=node)], clock.now(), 99)


def stored(store, run):
    with store.write() as connection:
        return run_rows.lock(connection, [run.id])[run.id]


def leases(store):
    with store.read() as connection:
        return [lease for *_, lease in run_rows.expired(connection, 10**18, "")]


def test_a_message_that_comes_twice_starts_its_run_once_on_the_worker_that_was_first(
    store, clock, add, send
):
    (sent,) = send(add())
    (started,), _ = gate(store, clock, sent)
    assert (started.state, stored(store, sent).node) == (State.RUNNING, "there")
    assert gate(store, clock, sent, node="elsewhere") == ([], [])
    with store.read() as connection:
        assert dispatch_rows.dispatched(connection, {(sent.id, sent.fence)}) == []


def test_what_was_cancelled_or_sent_again_is_not_found_under_its_old_fence(store, clock, add, send):
    (cancelled,), (again,) = send(add(name="a")), send(add(name="b"))
    with store.write() as connection:
        cancels.cancel(connection, [cancelled.id], "no", clock.now())
        (back,) = dispatch_rows.hand_back(connection, [Refusal(again, "r", "why")], clock.now())
        keys = {(run.id, run.fence) for run in (cancelled, again)}
        assert dispatch_rows.dispatched(connection, keys) == []
    assert gate(store, clock, again) == ([], [])
    assert stored(store, cancelled).state is State.CANCELLED
    assert (back.fence, stored(store, again).message) == (again.fence + 1, "why")


def test_a_commit_without_an_answer_is_sent_again_under_the_same_fence(add, send):
    run = add()
    (sent,) = send(run)
    assert send(run) == [sent]
    assert send(replace(run, node="another")) == []


def test_a_deadline_doubles_each_time_nothing_came_of_a_claim_up_to_an_hour(
    store, clock, add, send
):
    run = add()
    seen = []
    for _ in range(6):
        send(run)
        seen += leases(store)
        with store.write() as connection:
            dead = run_rows.expired(connection, 10**18, "")
            (back,) = run_rows.rescue(connection, dead, clock.now())
            assert (back.state, back.fence) == (State.PENDING, run.fence + 1)
            digest = job_set(connection, [run.job_id])
            pools = {run.job_id: "default"}
            taking = (connection, digest, pools, "here", clock.now(), 0, {"default": 1})
            (run,) = pending_rows.take_pending(*taking)
    assert seen == [n * SECOND for n in (300, 600, 1200, 2400, 3600, 3600)]


def test_even_a_start_up_run_is_sent_again_for_no_node_had_begun_it(store, clock, add, send):
    send(add(Trigger.STARTUP))
    with store.write() as connection:
        dead = run_rows.expired(connection, 10**18, "")
        (back,) = run_rows.rescue(connection, dead, clock.now())
    assert back.state is State.PENDING


def test_what_is_handed_back_waits_longer_each_time_and_never_past_a_minute(
    store, clock, add, send
):
    run, pauses = add(), []
    for _ in range(8):
        (sent,) = send(run)
        with store.write() as connection:
            refusal = Refusal(sent, "no plugin", "there lacks it")
            (back,) = dispatch_rows.hand_back(connection, [refusal], clock.now())
            pauses.append((back.due - clock.now()).total_seconds())
            clock.advance(61)
            digest = job_set(connection, [run.job_id])
            taking = (connection, digest, {run.job_id: "default"}, "here", clock.now(), 0)
            (run,) = pending_rows.take_pending(*taking, {"default": 1})
    parts = [pause / most for pause, most in zip(pauses, (1, 2, 4, 8, 16, 32, 60, 60), strict=True)]
    assert all(0.5 <= part <= 1 for part in parts)
    assert max(parts) - min(parts) > 0.2  # or they would keep the time of workers that take turns


def test_a_run_that_must_wait_for_a_slot_waits_for_any_scheduler_not_for_the_worker(
    store, clock, add, send
):
    (first,) = send(add(overlap=Overlap.QUEUE))
    gate(store, clock, first)
    (second,) = send(add(Trigger.MANUAL, overlap=Overlap.QUEUE))
    _, (waiting,) = gate(store, clock, second)
    assert (waiting.state, waiting.reason) == (State.PENDING, "overlap")
    assert stored(store, second).fence == second.fence + 1


def test_a_pause_skips_what_is_under_way(store, clock, add, send):
    (sent,) = send(add())
    with store.write() as connection:
        run_rows.skip_unstarted(connection, {sent.job_id}, clock.now(), "paused")
    assert gate(store, clock, sent) == ([], [])
    assert stored(store, sent).reason == "paused"


def test_runs_under_way_are_counted_by_pool(store, clock, add, send):
    send(add(name="a"))
    (begun,) = send(add(name="b"))
    gate(store, clock, begun)
    add(name="c")
    with store.read() as connection:
        assert dispatch_rows.under_way(connection) == {"default": 1}


def test_the_end_of_a_run_elsewhere_is_seen(store, clock, add, send):
    (sent,) = send(add())
    with store.write() as connection:
        assert dispatch_rows.ended(connection, [sent.id]) == []
        cancels.cancel(connection, [sent.id], "no", clock.now() + timedelta(seconds=1))
        assert [run.id for run in dispatch_rows.ended(connection, [sent.id])] == [sent.id]
