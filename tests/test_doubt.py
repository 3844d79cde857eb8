"""A commit whose answer was lost is read back: what it wrote counts, what it did not does not."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta

import pytest

from systemprompt_jobs._doubt import Doubt
from systemprompt_jobs._rows import run_values
from systemprompt_jobs._store import Store, queries
from systemprompt_jobs._store import jobs as job_rows
from systemprompt_jobs._store import runs as run_rows
from systemprompt_jobs.errors import StoreError
from systemprompt_jobs.model import State, Trigger
from tests.support import START, answer_lost, make_plan


def values(n, name="cleanup"):
    tick = START + timedelta(seconds=n)
    row = run_values(make_plan(name), f"t:{n}", Trigger.SCHEDULE, START)
    return row | {"tick_at": tick, "node": "me", "lease_until": 0}


def add(doubt, *rows):
    with doubt.write() as connection:
        return doubt.wrote(run_rows.add(connection, rows))


def test_what_was_committed_is_returned_once(store):
    doubt = Doubt(store)
    with answer_lost(store), pytest.raises(StoreError):
        add(doubt, values(1), values(2))
    assert [run.id for run in doubt.settle()] == [1, 2]
    assert doubt.settle() == []


def test_what_was_answered_is_not_in_doubt(store):
    doubt = Doubt(store)
    add(doubt, values(1))
    assert doubt.settle() == []


def test_what_was_rolled_back_is_not_there_even_if_its_id_is(store):
    doubt = Doubt(store)
    with suppress(ZeroDivisionError), doubt.write() as connection:
        doubt.wrote(run_rows.add(connection, [values(1)]))
        raise ZeroDivisionError
    with store.write() as connection:
        run_rows.add(connection, [values(n, "other") for n in (1, 2)])
    assert doubt.settle() == []


def test_what_others_have_changed_since_is_theirs(store):
    doubt = Doubt(store)
    with answer_lost(store), pytest.raises(StoreError):
        add(doubt, values(1), values(2))
    with store.write() as connection:
        run_rows.give_back(connection, [(1, 1)], START)
    assert [run.id for run in doubt.settle()] == [2]


def test_while_the_database_cannot_answer_the_doubt_stays(store, monkeypatch):
    doubt = Doubt(store)
    with answer_lost(store), pytest.raises(StoreError):
        add(doubt, values(1))
    with monkeypatch.context() as patch:
        patch.setattr(run_rows, "unchanged", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            doubt.settle()
    assert [run.id for run in doubt.settle()] == [1]


def test_a_commit_that_the_server_is_still_at_is_waited_for(make_store):
    """What it inserts cannot be seen yet; the job that it has locked tells of it."""
    store = make_store("postgresql")
    impatient = Store(store.url.render_as_string(hide_password=False), lease_s=0.3)
    row = make_plan()
    with store.write() as connection:
        job_rows.add_missing(connection, [_job_row(row)])
    doubt = Doubt(impatient)
    with store.write() as at_work:
        job_rows.lock(at_work, [row.id], skip_locked=True)
        doubt.wrote(run_rows.add(at_work, [values(1)]))
        with pytest.raises(StoreError, match="locked by another session"):
            doubt.settle()
    assert [run.id for run in doubt.settle()] == [1]
    impatient.close()


def _job_row(plan):
    names = ("schedule", "timezone", "fingerprint", "owner", "distribution", "version")
    return {"id": plan.id, "extension": "ext", "name": "cleanup", **dict.fromkeys(names, "")}


def test_a_run_that_is_added_again_is_found(store):
    """So start-up runs and runs by hand, whose keys nobody else has, may be added twice."""
    for _ in range(2):
        with store.write() as connection:
            added = run_rows.add(connection, [values(1), values(2)])
            found = run_rows.find(connection, [values(1), values(2)])
    assert (added, [(run.id, run.state) for run in found]) == (
        [],
        [(1, State.CLAIMED), (2, State.CLAIMED)],
    )
    with store.read() as connection:
        assert len(queries.history(connection)) == 2
