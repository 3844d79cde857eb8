"""Small questions past SQLAlchemy: the same answers as a transaction's, and the same errors."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import select

from systemprompt_jobs._rows import run_values
from systemprompt_jobs._store import nodes, plans, polls
from systemprompt_jobs._store import runs as run_rows
from systemprompt_jobs._store.schema import audit
from systemprompt_jobs._store.schema import job as job_table
from systemprompt_jobs.errors import StoreError
from systemprompt_jobs.model import State, Trigger
from tests.support import START, make_plan

PLAN = make_plan()


@pytest.fixture
def waiting(store):
    """Return a store in which a run waits for a node from START on."""
    values = run_values(PLAN, "t:1", Trigger.SCHEDULE, START) | {"state": State.PENDING}
    with store.write() as connection:
        plans.add_set(connection, "the set", {PLAN.id: "f"})
        run_rows.add(connection, [values])
        connection.execute(
            audit.insert().values(at=START, who="me", action="pause", subject="x", note="")
        )
    return store


@pytest.mark.parametrize(
    ("job_set", "now", "pending"),
    [
        ("the set", START, True),
        ("the set", START - timedelta(microseconds=1), False),
        ("another", START, False),
    ],
)
def test_a_question_is_answered_as_in_a_transaction(waiting, job_set, now, pending):
    with waiting.read() as connection:
        expected = polls.look(connection, job_set, now)
    with waiting.ask() as questions:
        assert polls.look(questions, job_set, now) == expected == (pending, 1)


def test_rows_of_nodes_are_read_as_in_a_transaction(store):
    me, times = {"host": "h", "pid": 1, "boot": "boot"}, {"started": START, "heartbeat": START}
    about = {"kind": "scheduler", "version": "1", "workers": 1, "job_set": "s", "pools": {"a": 1}}
    with store.write() as connection:
        nodes.join(connection, {"id": "h:1:x", **me, **times, **about, "lease_until": 5})
    with store.read() as connection:
        expected = nodes.silent(connection, 10, "boot")
    with store.ask() as questions:
        assert nodes.silent(questions, 10, "boot") == expected != []
        assert nodes.silent(questions, 5, "boot") == []
        (pair,) = plans.schedulers(questions, 5, "boot")
    assert pair[1] is True


def test_each_answer_is_of_its_own_moment_and_holds_nobody_up(store):
    with store.ask() as questions:
        assert not questions.execute(select(audit.c.id), {})
        with store.write() as connection:
            connection.execute(
                audit.insert().values(at=START, who="me", action="pause", subject="x", note="")
            )
        assert [row.id for row in questions.execute(select(audit.c.id), {})] == [1]


def test_a_question_that_the_database_refuses_is_an_error_of_the_store(store):
    with store.write() as connection:
        connection.exec_driver_sql("DROP TABLE jobs_slot")
    statement = select(job_table.metadata.tables["jobs_slot"].c.key)
    with pytest.raises(StoreError), store.ask() as questions:
        questions.execute(statement, {})
    with store.ask() as questions:
        assert questions.execute(select(audit.c.id), {}) == []


def test_after_an_outage_nothing_trusts_a_connection_of_before(make_store, postgresql_server):
    store = make_store("postgresql")
    ask(store)
    with store.read() as connection:
        connection.execute(select(audit))
    end_all(postgresql_server, store)
    with pytest.raises(StoreError, match="closed the connection"):
        ask(store)
    with store.write() as connection:  # the pool has been told
        connection.execute(select(audit))
    ask(store)


def test_after_a_transaction_has_failed_questions_connect_anew(make_store, postgresql_server):
    store = make_store("postgresql")
    ask(store)
    with store.read() as connection:
        connection.execute(select(audit))
    end_all(postgresql_server, store)
    with pytest.raises(StoreError, match="closed the connection"), store.read() as connection:
        connection.execute(select(audit))
    ask(store)


def ask(store):
    with store.ask() as questions:
        questions.execute(select(audit.c.id), {})


def end_all(server, store):
    server.execute(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %s",
        store.url.database,
    )
