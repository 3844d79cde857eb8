"""Pending work is noticed when it is committed, where the database passes that on."""

from __future__ import annotations

import threading
from queue import SimpleQueue

import pytest

from systemprompt_jobs._listen import Listener
from systemprompt_jobs._rows import manual_key, run_values
from systemprompt_jobs._store import runs as run_rows
from systemprompt_jobs.errors import StoreError
from systemprompt_jobs.model import State, Trigger
from tests.support import START, make_plan

PATIENCE_S = 90


@pytest.fixture
def woken():
    return SimpleQueue()


@pytest.fixture
def listener(make_store, woken):
    """Return a listener that listens already."""
    listener = Listener(make_store("postgresql"), lambda: woken.put(True), check_s=PATIENCE_S)
    listener.start()
    woken.get(timeout=PATIENCE_S)
    yield listener
    listener.stop()
    assert not listener._thread.is_alive()


def add(store, state):
    values = run_values(make_plan(), manual_key(), Trigger.MANUAL, START)
    with store.write() as connection:
        (run,) = run_rows.add(connection, [values | {"state": state}])
    return run


def test_a_run_inserted_as_pending_wakes_the_loop(listener, woken):
    add(listener._store, State.PENDING)
    assert woken.get(timeout=PATIENCE_S)


def test_a_run_given_back_wakes_the_loop_and_a_claimed_one_does_not(listener, woken):
    run = add(listener._store, State.CLAIMED)
    assert woken.empty()
    with listener._store.write() as connection:
        run_rows.give_back(connection, [(run.id, run.fence)], START)
    assert woken.get(timeout=PATIENCE_S)


def test_what_is_rolled_back_wakes_nobody(listener, woken):
    run = add(listener._store, State.CLAIMED)
    with listener._store._open().connect() as connection:
        run_rows.give_back(connection, [(run.id, run.fence)], START)
        connection.rollback()
    add(listener._store, State.PENDING)
    assert woken.get(timeout=PATIENCE_S)
    assert woken.empty()


def test_a_listener_that_was_cut_off_connects_again(listener, woken):
    with listener._store.write() as connection:
        connection.exec_driver_sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE query LIKE 'LISTEN%%' AND datname = current_database()"
        )
    woken.get(timeout=PATIENCE_S)  # it looks for what was said meanwhile
    add(listener._store, State.PENDING)
    assert woken.get(timeout=PATIENCE_S)


def test_a_database_that_cannot_be_reached_is_tried_again_and_stopping_does_not_wait(
    make_store, woken, monkeypatch
):
    store = make_store("postgresql")
    tried = threading.Event()

    def refuse():
        tried.set()
        raise StoreError("no")

    monkeypatch.setattr(store, "listen", refuse)
    listener = Listener(store, lambda: woken.put(True), check_s=PATIENCE_S)
    listener.start()
    assert tried.wait(PATIENCE_S)
    listener.stop()
    assert not listener._thread.is_alive()
    assert woken.empty()


def test_on_sqlite_there_is_nothing_to_listen_to(make_store, woken):
    listener = Listener(make_store("sqlite"), lambda: woken.put(True), check_s=PATIENCE_S)
    listener.start()
    listener.stop()
    assert woken.empty()
