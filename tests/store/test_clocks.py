"""Whose clock decides: the machine's on SQLite, the database's on PostgreSQL."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from systemprompt_jobs._clock import Steps
from systemprompt_jobs._store.schema import micros
from tests.support import START, ManualClock

CLOSE = timedelta(seconds=20)
"""Tests are slow at times; what is told apart here is a day."""


@pytest.fixture
def local():
    return ManualClock()


def test_on_sqlite_the_machine_decides(make_store, local):
    store = make_store("sqlite")
    clock = store.clock(local)
    with store.read() as connection:
        assert clock.read(connection) == clock.now() == clock.reached() == START
    assert clock.offset is None
    assert clock.lease_now() == local.monotonic() * 1_000_000


@pytest.fixture
def clock(make_store, local):
    """Return a clock that has just been compared with PostgreSQL's."""
    store = make_store("postgresql")
    clock = store.clock(local)
    with store.read() as connection:
        clock.read(connection)
    return clock


def test_on_postgresql_the_database_decides(clock):
    assert abs(clock.now() - datetime.now(UTC)) < CLOSE
    assert clock.lease_now() == micros(clock.now())


def test_the_database_is_asked_within_the_transaction_not_at_its_start(make_store, local):
    store = make_store("postgresql")
    clock = store.clock(local)
    with store.read() as connection:
        assert clock.read(connection) < clock.read(connection)


def test_between_two_looks_the_monotonic_clock_goes_on(clock, local):
    before = clock.now()
    local.advance(7)
    local.step(-86_400)  # the wall clock has no say
    assert clock.now() - before == timedelta(seconds=7)


def test_before_the_first_look_the_nodes_own_clock_has_to_do(make_store, local):
    assert make_store("postgresql").clock(local).now() == START


def test_the_offset_is_how_far_the_nodes_clock_is_ahead(clock):
    assert abs(clock.offset - (START - datetime.now(UTC))) < CLOSE


@pytest.mark.parametrize(("ahead", "waits"), [(5.0, 0.0), (-0.4, 0.4), (-5.0, 1.0)])
def test_a_start_waits_up_to_a_second_for_a_clock_that_is_behind(clock, local, ahead, waits):
    local.step((clock.now() - local.now()).total_seconds() + ahead)
    assert clock.now() - clock.reached() == timedelta(seconds=waits)


@pytest.mark.parametrize("seconds", [3600, -3600, 1])
def test_a_stepped_clock_is_noticed_once(local, seconds):
    steps = Steps(local)
    local.advance(1000)
    assert not steps.noticed()
    local.step(seconds)
    assert steps.noticed()
    local.advance(1)
    assert not steps.noticed()
