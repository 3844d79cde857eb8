"""Opening, migrating and losing the database: one clear error each, nothing half done."""

from __future__ import annotations

import re
import sqlite3
import stat
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import select

from systemprompt_jobs._store import Store, _database
from systemprompt_jobs._store._postgresql import TIMEOUTS
from systemprompt_jobs._store._sqlite import SQLite
from systemprompt_jobs._store.schema import job as job_table
from systemprompt_jobs._store.schema import metadata, schema_version
from systemprompt_jobs._store.schema import node as node_table
from systemprompt_jobs.errors import StoreError, StoreUnusableError


@pytest.fixture(autouse=True)
def _migrated_for_real(monkeypatch):
    monkeypatch.setattr(SQLite, "create", SQLite.create.__wrapped__)


def open_store(path):
    return Store(f"sqlite:///{path}")


@pytest.fixture
def sqlite(make_store):
    """Return a migrated SQLite database."""
    return make_store("sqlite")


@pytest.fixture(params=["sqlite", "postgresql"])
def empty(request, tmp_path):
    """Return the URL of a database without tables."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/jobs.db"
    return request.getfixturevalue("postgresql")


def test_migrations_make_exactly_the_tables_that_the_code_knows(store):
    with store.read() as connection:
        context = MigrationContext.configure(
            connection, opts={"version_table": "jobs_alembic_version"}
        )
        assert compare_metadata(context, metadata) == []


INDEXES = {
    True: "SELECT name, sql FROM sqlite_master WHERE type='index' AND sql IS NOT NULL",
    False: "SELECT indexname, indexdef FROM pg_indexes",
}


def test_the_partial_indexes_are_there(store):
    with store.read() as connection:
        indexes = dict(connection.exec_driver_sql(INDEXES[store.one_host]).fetchall())
    assert re.search(r"WHERE \(?state = 'pending'", indexes["jobs_run_pending"])
    assert re.search(r"WHERE \(?state (IN|= ANY)", indexes["jobs_run_held"])


def test_folders_are_made_and_the_file_belongs_to_its_owner_alone(tmp_path):
    file = tmp_path / "a" / "b" / "jobs.db"
    store = open_store(file)
    store.prepare()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    store.close()


def test_every_commit_survives_a_power_cut(sqlite):
    with sqlite.read() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2  # FULL


def test_preparing_again_changes_nothing(sqlite):
    before = sqlite.backend.file.read_bytes()
    sqlite.prepare()
    assert sqlite.backend.file.read_bytes() == before


PREPARE = """
import sys
from systemprompt_jobs._store import Store
store = Store(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
store.prepare()
store.check()
"""


def test_several_processes_may_start_together_on_an_empty_database(empty):
    command = [sys.executable, "-c", PREPARE, empty]
    pipe = subprocess.PIPE
    nodes = [
        subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) for _ in range(4)
    ]
    for node in nodes:
        assert node.stdout.readline() == "ready\n"
    for node in nodes:
        node.stdin.write("go\n")
        node.stdin.flush()
    assert [node.communicate()[1] for node in nodes] == [""] * 4
    store = Store(empty)
    with store.read() as connection:
        assert len(connection.execute(select(schema_version)).all()) == 1
    store.close()


def test_reading_needs_a_schema(empty):
    store = Store(empty)
    store.backend.create()
    with pytest.raises(StoreUnusableError, match="no schema yet: start the scheduler once"):
        store.check()
    store.close()


REVISIONS = sorted(
    file.stem[:4] for file in Path(_database.__file__).parent.glob("migrations/versions/0*.py")
)


@pytest.mark.parametrize("revision", REVISIONS[:-1])
def test_a_database_of_an_earlier_schema_is_migrated_with_all_its_data(empty, revision):
    store = Store(empty)
    store.backend.create()
    store._migrate(revision)
    old = (  # what a node of the first schema writes
        "INSERT INTO jobs_job (id, extension, name, schedule, timezone, fingerprint, owner,"
        " distribution, version, last_tick) VALUES"
    )
    with store.write() as connection:
        connection.exec_driver_sql(f"{old} ('e:a','e','a','','UTC','f','n','d','1',7000000)")
    with pytest.raises(StoreUnusableError, match=f"older schema {revision}"):
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


def test_a_lock_held_by_another_process_is_waited_for_and_then_named(sqlite):
    store = Store(str(sqlite.url), lease_s=0.15)
    other = sqlite3.connect(store.backend.file, isolation_level=None)
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
    store.close()


def test_a_failing_block_leaves_nothing_behind(store):
    values = {"revision": "x", "min_revision": "x"}
    with suppress(ZeroDivisionError), store.write() as connection:
        connection.execute(schema_version.insert().values(values))
        _ = 1 / 0
    with store.read() as connection:
        assert len(connection.execute(select(schema_version)).all()) == 1


def test_a_connection_to_a_file_is_kept_until_a_block_fails_or_the_store_is_closed(sqlite):
    def driver(connection):
        return connection.connection.driver_connection

    with sqlite.write() as connection:
        first = driver(connection)
    with sqlite.read() as connection:
        assert driver(connection) is first
        with sqlite.read() as another:
            second = driver(another)
    with suppress(KeyError), sqlite.write() as connection:
        failed = driver(connection)
        raise KeyError
    with sqlite.read() as connection:
        at_work = driver(connection)
        sqlite.close()
        assert at_work.execute("SELECT 1").fetchone() == (1,)
    for closed in (first, second, failed, at_work):
        with pytest.raises(sqlite3.ProgrammingError, match="closed"):
            closed.execute("SELECT 1")
    with sqlite.read() as connection:  # it can be opened again
        assert connection.exec_driver_sql("SELECT 1").scalar() == 1


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
    store.backend.file.chmod(0o444)
    tmp_path.chmod(0o555)
    try:
        shown = subprocess.run(
            [sys.executable, "-c", READ_ONLY, str(store.backend.file)],
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


# --- PostgreSQL ---


@pytest.fixture
def postgres(make_store):
    """Return a migrated PostgreSQL database."""
    return make_store("postgresql")


def test_nothing_on_postgresql_waits_longer_than_a_third_of_a_lease(postgres):
    store = Store(postgres.url.render_as_string(hide_password=False), lease_s=3)
    with store.read() as connection:
        shown = [
            connection.exec_driver_sql(f"SHOW {name}").scalar()
            for name in ("lock_timeout", *TIMEOUTS)
        ]
        name = connection.exec_driver_sql("SHOW application_name").scalar()
        encoding = connection.exec_driver_sql("SHOW client_encoding").scalar()
    # The last is of TCP, which the Unix socket of these tests has not.
    assert (shown, name, encoding) == (["900ms", "1s", "1s", "0"], "systemprompt-jobs", "UTF8")
    store.close()


def test_a_server_that_vanishes_while_it_should_answer_is_noticed_in_a_third_of_a_lease(postgres):
    store = Store(postgres.url.render_as_string(hide_password=False), lease_s=30)
    with store.read() as connection:
        sent = connection.connection.driver_connection.info.get_parameters()
    idle, interval, count = (int(sent[f"keepalives_{n}"]) for n in ("idle", "interval", "count"))
    assert idle + interval * count <= 10
    store.close()


def test_a_row_locked_for_too_long_is_named(postgres):
    store = Store(postgres.url.render_as_string(hide_password=False), lease_s=0.3)
    change = schema_version.update().values(min_revision="y")
    with postgres.write() as other:
        other.execute(change)
        with (
            pytest.raises(StoreError, match="locked by another session for too long"),
            store.write() as connection,
        ):
            connection.execute(change)
    store.close()


def test_a_statement_that_takes_too_long_is_named(postgres):
    store = Store(postgres.url.render_as_string(hide_password=False), lease_s=0.3)
    with pytest.raises(StoreError, match="took too long"), store.read() as connection:
        connection.exec_driver_sql("SELECT pg_sleep(30)")
    store.close()


def test_a_connection_that_was_ended_is_replaced(postgres, postgresql_server):
    with postgres.read() as connection:
        pid = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar()
    postgresql_server.execute("SELECT pg_terminate_backend(%s, 5000)", pid)
    with pytest.raises(StoreError, match="closed the connection"), postgres.read() as connection:
        connection.execute(select(node_table))
    with postgres.read() as connection:
        connection.execute(select(node_table))


def test_a_server_that_is_not_there_is_named_without_the_password():
    store = Store("postgresql+psycopg://me:s3cret@127.0.0.1:1/jobs", lease_s=3)
    with pytest.raises(StoreError, match=r"me:\*\*\*@.* cannot be reached") as caught:
        store.prepare()
    assert "s3cret" not in str(caught.value)
    assert not isinstance(caught.value, StoreUnusableError)
    store.close()


def test_without_the_driver_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    store = Store("postgresql://host/jobs")
    with pytest.raises(StoreUnusableError, match=r"pip install systemprompt-jobs\[postgresql\]"):
        store.prepare()


def test_a_user_without_rights_is_told_what_to_grant(postgresql, postgresql_server):
    role = "reader"
    postgresql_server.execute(f"CREATE ROLE {role} LOGIN")
    store = Store(postgresql.replace("jobs@", f"{role}@"))
    with pytest.raises(StoreUnusableError, match="refuses this user: grant it CREATE"):
        store.prepare()
    store.close()
    postgresql_server.execute(f"DROP ROLE {role}")


def test_a_database_without_tables_is_not_there_yet(empty):
    store = Store(empty)
    assert not store.exists
    store.prepare()
    assert store.exists
    store.close()


def test_whether_a_database_is_usable_is_asked_until_it_is_and_again_after_a_failure(empty):
    store = Store(empty)
    assert not store.usable()
    store.prepare()
    assert store.usable()
    set_revision(store, "0009", "0008")
    assert store.usable()  # known; pages ask before each statement
    with pytest.raises(StoreError), store.read() as connection:
        connection.exec_driver_sql("SELECT nothing FROM nowhere")
    with pytest.raises(StoreUnusableError, match="upgrade systemprompt-jobs"):
        store.usable()
    store.close()


def test_a_file_that_has_gone_is_no_usable_database(sqlite):
    assert sqlite.usable()
    sqlite.backend.file.unlink()
    assert not sqlite.usable()
