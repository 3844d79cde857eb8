"""`backup_sqlite` makes sound copies of a database in use and keeps the newest."""

from __future__ import annotations

import sqlite3
import stat
import tempfile
import threading
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from sqlalchemy import make_url
from systemprompt_jobs_maintenance import _backup, backup_sqlite

NOW = datetime(2024, 5, 1, 12, 0, tzinfo=UTC)
NAME = "default-20240501T120000Z.db"


@pytest.fixture
def source(tmp_path, execute):
    execute("CREATE TABLE account (id INTEGER PRIMARY KEY, amount INTEGER)")
    execute("INSERT INTO account VALUES (:id, 100)", *[{"id": n} for n in range(3000)])
    return tmp_path / "app.db"


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "copies"


def rows(path, query="SELECT count(*), sum(amount) FROM account"):
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchone()


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_without_a_folder_it_says_that_nothing_is_configured(context):
    assert backup_sqlite(context()).message == "nothing configured"


def test_a_copy_holds_every_row_and_is_readable_by_its_owner_only(context, source, folder):
    result = backup_sqlite(context(), folder=str(folder))
    assert result.ok
    assert result.message.startswith("copied app.db (")
    assert result.message.endswith(f" to {folder / NAME}, deleted 0 old copies")
    assert names(folder) == [NAME]
    assert rows(folder / NAME) == (3000, 300_000)
    assert stat.S_IMODE((folder / NAME).stat().st_mode) == 0o600


def test_a_dry_run_says_what_it_would_do_and_creates_nothing(context, source, folder):
    result = backup_sqlite(context(enforce=False), folder=str(folder))
    assert result.ok
    assert result.message.startswith("would copy app.db (")
    assert result.message.endswith(f" to {folder / NAME}, would delete 0 old copies")
    assert not folder.exists()


def test_a_dry_run_deletes_no_old_copy(context, source, folder):
    folder.mkdir()
    for year in (2001, 2002, 2003):
        (folder / f"default-{year}0101T000000Z.db").touch()
    result = backup_sqlite(context(enforce=False), folder=str(folder), keep=2)
    assert result.message.endswith("would delete 2 old copies")
    assert len(names(folder)) == 3


def test_the_newest_copies_stay_and_other_files_are_left_alone(context, source, folder):
    folder.mkdir()
    strangers = ["app.db", "default-2001.db", "default-20010101T000000Z.db.gz", "notes.txt"]
    strangers += ["other-20010101T000000Z.db", "xdefault-20010101T000000Z.db"]
    for name in strangers:
        (folder / name).touch()
    for day in range(5):
        moment = NOW + timedelta(days=day)
        assert backup_sqlite(context(started=moment), folder=str(folder), keep=2).ok
    copies = ["default-20240504T120000Z.db", "default-20240505T120000Z.db"]
    assert names(folder) == sorted(strangers + copies)


def test_a_second_copy_of_the_same_second_replaces_the_first(context, source, folder, execute):
    backup_sqlite(context(), folder=str(folder), keep=1)
    execute("DELETE FROM account WHERE id >= 10")
    assert backup_sqlite(context(), folder=str(folder), keep=1).ok
    assert names(folder) == [NAME]
    assert rows(folder / NAME) == (10, 1000)


def test_the_database_itself_is_never_deleted_though_it_looks_like_a_copy(tmp_path, context):
    folder = tmp_path
    live = folder / "default-20010101T000000Z.db"
    with closing(sqlite3.connect(live)) as connection:
        connection.execute("CREATE TABLE t (x)")
    ctx = context()
    ctx.resources._urls["default"] = f"sqlite:///{live}"
    assert backup_sqlite(ctx, folder=str(folder), keep=1).ok
    assert live.exists()


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_a_copy_made_while_others_write_is_one_consistent_moment(
    context, source, folder, execute, mode
):
    execute(f"PRAGMA journal_mode = {mode}")
    started, enough = threading.Event(), threading.Event()

    def move_money():
        with closing(sqlite3.connect(source, isolation_level=None, timeout=60)) as writer:
            n = 0
            while not enough.is_set():
                n = (n + 1) % 2999
                writer.execute("BEGIN IMMEDIATE")
                writer.execute("UPDATE account SET amount = amount - 7 WHERE id = ?", (n,))
                writer.execute("UPDATE account SET amount = amount + 7 WHERE id = ?", (n + 1,))
                writer.execute("COMMIT")
                started.set()

    writer = threading.Thread(target=move_money)
    writer.start()
    try:
        assert started.wait(90)
        for second in range(5):
            moment = NOW + timedelta(seconds=second)
            result = backup_sqlite(context(started=moment), folder=str(folder))
            assert result.ok, result.message
    finally:
        enough.set()
        writer.join()
    for copy in folder.iterdir():
        assert rows(copy) == (3000, 300_000)
    assert len(names(folder)) == 5  # and no -wal, -shm or half copy beside them


def test_a_damaged_database_leaves_no_copy_and_deletes_no_old_one(context, source, folder, engine):
    engine.dispose()
    folder.mkdir()
    (folder / "default-20240430T120000Z.db").touch()
    with source.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 4096)
    result = backup_sqlite(context(), folder=str(folder), keep=1)
    assert not result.ok
    assert result.message.startswith(f"{source} was not copied to {folder}: it is damaged: ")
    assert names(folder) == ["default-20240430T120000Z.db"]


def test_a_file_that_is_no_database_is_a_failure(context, tmp_path, folder):
    (tmp_path / "app.db").write_text("no database at all" * 100)
    result = backup_sqlite(context(), folder=str(folder))
    assert not result.ok
    assert "file is not a database" in result.message
    assert names(folder) == []


def test_a_database_that_stays_locked_is_given_up(context, source, folder, monkeypatch):
    monkeypatch.setattr(_backup, "PATIENCE", 0.0)
    with closing(sqlite3.connect(source, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        result = backup_sqlite(context(), folder=str(folder))
    assert result.message.endswith(": it was locked for 0 s")
    assert names(folder) == []


def test_a_database_that_is_not_there_is_not_made(context, tmp_path, folder):
    result = backup_sqlite(context(), folder=str(folder))
    assert not result.ok
    assert "app.db" in result.message
    assert list(tmp_path.iterdir()) == []


def test_a_database_in_memory_or_of_another_kind_is_refused(context, folder):
    ctx = context()
    ctx.resources._urls["memory"] = "sqlite://"
    result = backup_sqlite(ctx, folder=str(folder), database="memory")
    assert (result.ok, result.message) == (False, "sqlite:// is no file")

    url = make_url("postgresql://me:secret@host/db")  # no driver for it is installed
    ctx.resources._engines["pg"] = SimpleNamespace(
        url=url, dialect=SimpleNamespace(name="postgresql"), dispose=lambda: None
    )
    result = backup_sqlite(ctx, folder=str(folder), database="pg")
    assert not result.ok
    assert result.message.startswith("postgresql://me:***@host/db is no SQLite database")


def test_a_folder_whose_parent_is_missing_is_not_made(context, source, tmp_path):
    for enforce in (True, False):
        result = backup_sqlite(context(enforce=enforce), folder=str(tmp_path / "disk" / "copies"))
        assert not result.ok
        assert result.message.endswith(f"there is no '{tmp_path / 'disk'}'")
    assert names(tmp_path) == ["app.db"]


def test_a_folder_that_may_not_be_written_is_a_failure(context, unprivileged):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "copies"
        folder.mkdir(mode=0o500)
        source = Path(name) / "mine.db"
        with closing(sqlite3.connect(source)) as connection:
            connection.execute("CREATE TABLE t (x)")
        ctx = context()
        ctx.resources._urls["default"] = f"sqlite:///{source}"
        result = backup_sqlite(ctx, folder=str(folder))
        assert not result.ok
        assert "Permission denied" in result.message
        assert names(folder) == []


def test_an_old_copy_that_cannot_be_deleted_fails_the_run_and_the_copy_stands(
    context, source, folder
):
    folder.mkdir()
    (folder / "default-20010101T000000Z.db").mkdir()
    result = backup_sqlite(context(), folder=str(folder), keep=1)
    assert not result.ok
    assert "default-20010101T000000Z.db: " in result.message
    assert rows(folder / NAME) == (3000, 300_000)
