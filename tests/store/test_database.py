"""Opening, migrating and losing the database: one clear error each, nothing half done."""

from __future__ import annotations

import sqlite3
import stat
import subprocess
import sys
import threading
from contextlib import suppress

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import select

from systemprompt_jobs._store import Store, _database
from systemprompt_jobs._store.schema import job as job_table
from systemprompt_jobs._store.schema import metadata, schema_version
from systemprompt_jobs._store.schema import node as node_table
from systemprompt_jobs.errors import StoreError, StoreUnusableError


def open_store(path):
    return Store(f"sqlite:///{path}")


def test_migrations_make_exactly_the_tables_that_the_code_knows(store):
    with store.read() as connection:
        context = MigrationContext.configure(
            connection, opts={"version_table": "jobs_alembic_version"}
        )
        assert compare_metadata(context, metadata) == []


def test_the_partial_indexes_are_there(store):
    with store.read() as connection:
        indexes = dict(
            connection.exec_driver_sql(
                "SELECT name, sql FROM sqlite_master WHERE type='index' AND sql IS NOT NULL"
            ).fetchall()
        )
    assert "WHERE state = 'pending'" in indexes["jobs_run_pending"]
    assert "WHERE state IN" in indexes["jobs_run_held"]


def test_folders_are_made_and_the_file_belongs_to_its_owner_alone(tmp_path):
    file = tmp_path / "a" / "b" / "jobs.db"
    store = open_store(file)
    store.prepare()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    store.close()


def test_every_commit_survives_a_power_cut(store):
    with store.read() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2  # FULL


def test_preparing_again_changes_nothing(store):
    before = store.file.read_bytes()
    store.prepare()
    assert store.file.read_bytes() == before


def test_several_nodes_may_migrate_an_empty_database_at_once(tmp_path):
    stores = [open_store(tmp_path / "jobs.db") for _ in range(4)]
    errors = []

    def prepare(store):
        try:
            store.prepare()
        except StoreError as error:
            errors.append(error)

    threads = [threading.Thread(target=prepare, args=[store]) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    with stores[0].read() as connection:
        assert len(connection.execute(select(schema_version)).all()) == 1
    for store in stores:
        store.close()


def test_reading_needs_a_schema(tmp_path):
    file = tmp_path / "jobs.db"
    sqlite3.connect(file).close()
    store = open_store(file)
    with pytest.raises(StoreUnusableError, match="no schema yet: start the scheduler once"):
        store.check()
    store.close()


def test_a_database_of_the_first_schema_is_migrated_with_all_its_data(tmp_path):
    store = open_store(tmp_path / "jobs.db")
    store.prepare()
    with store.write() as connection:
        for column in ("catch_up", "catchup_window"):
            connection.exec_driver_sql(f"ALTER TABLE jobs_job DROP COLUMN {column}")
        connection.exec_driver_sql("UPDATE jobs_alembic_version SET version_num = '0001'")
        connection.execute(schema_version.update().values(revision="0001", min_revision="0001"))
        old = (  # what a node of the first schema writes
            "INSERT INTO jobs_job (id, extension, name, schedule, timezone, fingerprint, owner,"
            " distribution, version, last_tick) VALUES"
        )
        connection.exec_driver_sql(f"{old} ('e:a','e','a','','UTC','f','n','d','1',7000000)")
    with pytest.raises(StoreUnusableError, match="older schema 0001"):
        store.check()
    store.prepare()
    store.check()
    with store.write() as connection:
        connection.exec_driver_sql(f"{old} ('e:b','e','b','','UTC','f','n','d','1',8000000)")
    with store.read() as connection:
        rows = connection.execute(
            select(job_table.c.id, job_table.c.last_tick, job_table.c.catch_up)
        ).all()
        minimum = connection.execute(select(schema_version.c.min_revision)).scalar()
    assert [(row.id, row.last_tick.second, row.catch_up) for row in rows] == [
        ("e:a", 7, "latest"),
        ("e:b", 8, "latest"),
    ]
    assert minimum == "0001"  # older nodes may go on beside newer ones
    store.close()


def set_revision(store, revision, minimum):
    with store.write() as connection:
        connection.execute(schema_version.update().values(revision=revision, min_revision=minimum))


def test_a_newer_schema_that_old_code_can_live_with_is_used(store):
    set_revision(store, "0009", _database.REVISION)
    store.prepare()
    store.check()


def test_a_newer_schema_that_needs_newer_code_is_refused_and_left_alone(store):
    set_revision(store, "0009", "0008")
    for act in (store.prepare, store.check):
        with pytest.raises(StoreUnusableError, match=r"0009.*0008.*upgrade systemprompt-jobs"):
            act()


def test_a_folder_is_no_database(tmp_path):
    with pytest.raises(StoreUnusableError, match=f"{tmp_path} is a folder: name a file"):
        open_store(tmp_path).prepare()


def test_a_parent_that_is_a_file_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StoreUnusableError, match="cannot be created: File exists: choose another"):
        open_store(tmp_path / "file" / "jobs.db").prepare()


def test_a_file_that_is_no_database_is_left_alone(tmp_path):
    file = tmp_path / "letter.txt"
    file.write_text("Dear operator, " * 100)
    store = open_store(file)
    with pytest.raises(StoreUnusableError, match="is not a sound SQLite database"):
        store.prepare()
    assert file.read_text().startswith("Dear operator")
    store.close()


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:"])
def test_a_database_in_memory_is_refused(url):
    with pytest.raises(StoreUnusableError, match="forgotten with the process"):
        Store(url)


def test_a_lock_held_by_another_process_is_waited_for_and_then_named(store, monkeypatch):
    monkeypatch.setattr(_database, "_LOCK_TIMEOUT_S", 0.05)
    store.close()
    other = sqlite3.connect(store.file, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        with (
            pytest.raises(StoreError, match="locked by another process") as caught,
            store.write(),
        ):
            pass
        assert not isinstance(caught.value, StoreUnusableError)
    finally:
        other.close()
    with store.write() as connection:
        connection.execute(select(node_table))


def test_a_failing_block_leaves_nothing_behind(store):
    values = {"revision": "x", "min_revision": "x"}
    with suppress(ZeroDivisionError), store.write() as connection:
        connection.execute(schema_version.insert().values(values))
        _ = 1 / 0
    with store.read() as connection:
        assert len(connection.execute(select(schema_version)).all()) == 1


def test_readers_are_not_held_up_by_a_writer(store):
    with store.write() as writer, store.read() as reader:
        writer.execute(schema_version.update().values(min_revision="y"))
        assert reader.execute(select(schema_version.c.min_revision)).scalar() != "y"


READ_ONLY = """
import os, sys
from systemprompt_jobs._store import Store
from systemprompt_jobs._store.schema import schema_version
from systemprompt_jobs.errors import StoreError
if os.getuid() == 0:
    os.setuid(65534)
store = Store("sqlite:///" + sys.argv[1])
try:
    with store.write() as connection:
        connection.execute(schema_version.update().values(min_revision="z"))
except StoreError as error:
    print(error)
"""


def test_a_read_only_file_says_so(tmp_path):
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents:
        if parent.owner() == tmp_path.owner() and parent.stat().st_mode & 0o055 != 0o055:
            parent.chmod(parent.stat().st_mode | 0o055)
    store = open_store(tmp_path / "jobs.db")
    store.prepare()
    store.close()
    store.file.chmod(0o444)
    tmp_path.chmod(0o555)
    try:
        shown = subprocess.run(
            [sys.executable, "-c", READ_ONLY, str(store.file)],
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        tmp_path.chmod(0o755)
    assert "is read-only for this user" in shown.stdout or "cannot be opened" in shown.stdout, shown


FULL = """
import resource, signal, sys
from systemprompt_jobs._store import Store
from systemprompt_jobs._store.schema import audit
from systemprompt_jobs.errors import StoreError
from datetime import datetime, UTC
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
store = Store("sqlite:///" + sys.argv[1])
store.prepare()
resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, resource.RLIM_INFINITY))
row = {"at": datetime.now(UTC), "who": "x" * 10_000, "action": "a", "subject": "s"}
try:
    for _ in range(1000):
        with store.write() as connection:
            connection.execute(audit.insert(), [row])
except StoreError as error:
    print(type(error).__name__, error)
"""


def test_a_full_disk_is_a_clear_state(tmp_path):
    shown = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path / "jobs.db")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert shown.stdout.startswith("StoreError the database"), shown
    assert "disk full" in shown.stdout
    store = open_store(tmp_path / "jobs.db")
    store.check()  # what was committed is whole
    store.close()
