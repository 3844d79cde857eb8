"""The executor `threads`: bounded, and whole again after an attempt that never ends."""

from __future__ import annotations

import threading
from queue import SimpleQueue

import pytest

from systemprompt_jobs.builtin.threads import Threads

PATIENCE_S = 30


class Attempt:
    """Says when it begins, and ends when it may."""

    def __init__(self, begun):
        self.begun = begun
        self.may_end = threading.Event()
        self.interrupted = threading.Event()
        self.reports = SimpleQueue()

    def call(self):
        self.begun.put((self, threading.current_thread()))
        self.may_end.wait(PATIENCE_S)
        return "report"

    def interrupt(self):
        self.interrupted.set()

    def ended(self, report):
        self.reports.put(report)


@pytest.fixture
def pool():
    """Return a pool of two workers, a function that gives it an attempt, and what has begun."""
    pool, begun, given = Threads(2), SimpleQueue(), []

    def give():
        given.append(Attempt(begun))
        pool.submit(given[-1])
        return given[-1]

    yield pool, give, begun
    for attempt in given:
        attempt.may_end.set()
    pool.close()


def next_begun(begun):
    return begun.get(timeout=PATIENCE_S)


def test_no_more_run_at_once_than_its_size(pool):
    _, give, begun = pool
    first, second, third = give(), give(), give()
    assert {next_begun(begun)[0], next_begun(begun)[0]} == {first, second}
    assert begun.empty()
    first.may_end.set()
    assert next_begun(begun)[0] is third
    assert first.reports.get(timeout=PATIENCE_S) == "report"


def test_workers_are_used_again(pool):
    _, give, begun = pool
    threads = set()
    for _ in range(5):
        attempt = give()
        threads.add(next_begun(begun)[1])
        attempt.may_end.set()
        attempt.reports.get(timeout=PATIENCE_S)
    assert len(threads) <= 2


def test_an_interrupted_attempt_gives_its_worker_back_to_what_waits(pool):
    threads, give, begun = pool
    first, second, third = give(), give(), give()
    for _ in range(2):
        next_begun(begun)
    threads.interrupt(first)
    assert next_begun(begun)[0] is third
    assert first.interrupted.is_set()
    assert not second.interrupted.is_set()


def test_and_to_what_comes_later(pool):
    threads, give, begun = pool
    for _ in range(2):
        threads.interrupt(next_begun_of(give(), begun))
    later = [give(), give()]
    assert {next_begun(begun)[0], next_begun(begun)[0]} == set(later)


def next_begun_of(attempt, begun):
    assert next_begun(begun)[0] is attempt
    return attempt


def test_the_pool_does_not_grow_when_strays_end(pool):
    threads, give, begun = pool
    stray, other = give(), give()
    owners = dict([next_begun(begun), next_begun(begun)])
    threads.interrupt(stray)
    third, fourth = give(), give()
    assert next_begun(begun)[0] is third
    stray.may_end.set()
    owners[stray].join(PATIENCE_S)
    assert not owners[stray].is_alive()
    assert stray.reports.get(timeout=PATIENCE_S) == "report"
    assert begun.empty()
    other.may_end.set()
    assert next_begun(begun)[0] is fourth


def test_one_that_waits_in_the_queue_is_told_and_costs_no_worker(pool):
    threads, give, begun = pool
    first, _, waiting, last = give(), give(), give(), give()
    for _ in range(2):
        next_begun(begun)
    threads.interrupt(waiting)
    assert waiting.interrupted.is_set()
    assert begun.empty()
    first.may_end.set()
    next_begun_of(waiting, begun)
    waiting.may_end.set()
    next_begun_of(last, begun)


def test_interrupting_one_that_has_ended_changes_nothing(pool):
    threads, give, begun = pool
    attempt = give()
    next_begun(begun)
    attempt.may_end.set()
    attempt.reports.get(timeout=PATIENCE_S)
    both = give(), give()
    next_begun(begun), next_begun(begun)
    threads.interrupt(attempt)
    give()
    assert begun.empty()
    for one in both:
        one.may_end.set()


def test_a_closed_pool_ends_its_threads(pool):
    threads, give, begun = pool
    attempt = give()
    _, thread = next_begun(begun)
    threads.close()
    attempt.may_end.set()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()
