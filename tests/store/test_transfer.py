"""Everything that is recorded moves from one kind of database to the other."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from sqlalchemy import insert, select, update

from systemprompt_jobs._store import REVISION, transfer
from systemprompt_jobs._store import jobs as job_rows
from systemprompt_jobs._store import nodes as node_rows
from systemprompt_jobs._store import plans as plan_rows
from systemprompt_jobs._store import runs as run_rows
from systemprompt_jobs._store.schema import attempt, audit, job, job_set, node, run, slot
from systemprompt_jobs.errors import UsageError
from systemprompt_jobs.model import State, Trigger
from tests.support import START

TABLES = (job, job_set, node, run, attempt, slot, audit)


@pytest.fixture(params=["sqlite", "postgresql"])
def target(request, tmp_path):
    """Return an empty, migrated database of its own."""
    from systemprompt_jobs._store import Store

    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/target.db"
    else:
        url = request.getfixturevalue("postgresql")
    made = Store(url)
    made.prepare()
    yield made
    made.close()


def fill(store):
    """Record something in every table and every kind of column."""
    with store.write() as connection:
        connection.execute(
            insert(job).values(
                id="e:j", extension="e", name="j", schedule="* * * * * *", timezone="UTC",
                fingerprint="f", owner="n", distribution="d", version="1", next_tick=START,
            )
        )  # fmt: skip
        plan_rows.add_set(connection, "h", {"e:j": "f"})
        node_rows.join(
            connection,
            {
                "id": "n", "host": "h", "pid": 1, "boot": "b", "kind": "scheduler", "version": "1",
                "job_set": "h", "workers": 3, "clock_offset": timedelta(microseconds=-5),
                "started": START, "heartbeat": START, "lease_until": 99,
            },
        )  # fmt: skip
        held = {
            "job_id": "e:j", "dedup_key": "t:1", "trigger": Trigger.SCHEDULE, "tick_at": START,
            "state": State.RUNNING, "node": "n", "lease_until": 10**15,
            "parameters": {"ä": [1, None]}, "enforce": True, "overlap": "skip",
            "fingerprint": "f", "distribution": "d", "version": "1", "created": START,
        }  # fmt: skip
        (made,) = run_rows.add(connection, [held])
        connection.execute(
            insert(attempt).values(
                run_id=made.id, fence=1, number=1, node="n", started=START, traceback="a\nb\x1b"
            )
        )
        connection.execute(insert(slot).values(key="overlap:e:j", n=0, run_id=made.id, fence=1))
        job_rows.add_audit(connection, START, "ann", "run", "e:j")
        connection.execute(update(run).values(message="done\u2028"))


def exported(store):
    with store.read() as connection:
        return list(transfer.export(connection, REVISION))


def load(store, lines):
    with store.write() as connection:
        return transfer.load(connection, lines, REVISION)


def contents(store):
    with store.read() as connection:
        return {
            table.name: [tuple(row) for row in connection.execute(select(table))]
            for table in TABLES
        }


def test_everything_arrives_and_held_runs_are_there_to_be_rescued(store, target):
    fill(store)
    counts = load(target, exported(store))
    assert counts == {table.name: 1 for table in TABLES}
    with store.write() as connection:
        connection.execute(update(run).values(lease_until=0))
    assert contents(target) == contents(store)


def test_an_export_of_an_import_is_the_same(store, target):
    fill(store)
    with store.write() as connection:
        connection.execute(update(run).values(lease_until=0))
    lines = exported(store)
    load(target, lines)
    assert exported(target) == lines


def test_new_runs_come_after_the_imported_ones(store, target):
    fill(store)
    load(target, exported(store))
    with target.write() as connection:
        old = connection.execute(select(run.c.id)).scalar_one()
        values = {
            "job_id": "e:j", "dedup_key": "t:2", "trigger": Trigger.SCHEDULE,
            "state": State.PENDING, "parameters": {}, "enforce": False, "overlap": "skip",
            "fingerprint": "f", "distribution": "d", "version": "1", "created": START,
        }  # fmt: skip
        (new,) = run_rows.add(connection, [values])
        job_rows.add_audit(connection, START, "ann", "run", "e:j")
    assert new.id > old


def test_only_an_empty_database_is_imported_into(store, target):
    fill(store)
    lines = exported(store)
    load(target, lines)
    with pytest.raises(UsageError, match="not empty: jobs_job has rows"):
        load(target, lines)


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (["{"], "line 1 is no JSON"),
        (["[]"], "line 1 is not that of an export"),
        ([], "line 1 is not that of an export"),
        (['{"format": "systemprompt-jobs", "schema": "0001"}'], "of schema 0001, this version has"),
    ],
)
def test_what_is_no_export_is_refused(target, broken, reason):
    with pytest.raises(UsageError, match=reason):
        load(target, broken)


@pytest.mark.parametrize(
    "row",
    [
        {"table": "users", "row": {}},
        {"table": "jobs_run", "row": {"nonsense": 1}},
        {"row": {}},
        7,
        {"table": "jobs_job", "row": {"next_tick": "noon"}},
    ],
)
def test_a_wrong_line_undoes_the_import(store, target, row):
    fill(store)
    lines = exported(store)
    with pytest.raises(UsageError, match=f"line {len(lines) + 1} is no row"):
        load(target, [*lines, json.dumps(row)])
    assert contents(target) == {table.name: [] for table in TABLES}
