"""Opens, checks and migrates the database; hands out transactions."""

from __future__ import annotations

import os
import sqlite3
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Engine, create_engine, event, inspect, select
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from ..errors import StoreError, StoreUnusableError
from .schema import schema_version

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from sqlalchemy import Connection
    from sqlalchemy.engine import URL

REVISION = "0002"
"""The newest migration this code knows."""

MIN_REVISION = "0001"
"""The oldest code revision that can live with this schema, written when migrating."""

_LOCK_TIMEOUT_S = 10
"""How long to wait for another process's write lock: a third of the default lease."""


class Store:
    """One database. Safe to use from several threads.

    `write()` is a transaction that holds the database's write lock from its start; `read()` is
    a consistent snapshot. Both raise StoreError for whatever the database refuses.
    """

    def __init__(self, url: str) -> None:
        self.url = make_url(url)
        self.file = _file(self.url)
        self._turn = threading.Lock()  # one writer at a time: SQLite would only poll for it
        self._engine: Engine | None = None

    @property
    def label(self) -> str:
        """The URL with its password masked."""
        return self.url.render_as_string(hide_password=True)

    @property
    def exists(self) -> bool:
        """Whether there is a database to read yet."""
        return self.file.exists()

    def prepare(self) -> None:
        """Create or migrate the database where needed. Raises StoreError."""
        _create_file(self.file)
        found = self._revision()
        if found is None or found < REVISION:
            self._migrate()

    def check(self) -> None:
        """Raise StoreUnusableError unless the schema is one that this code can use."""
        found = self._revision()
        if found is None or found < REVISION:
            raise StoreUnusableError(
                f"the database {self.label} has "
                + ("no schema yet" if found is None else f"the older schema {found}")
                + ": start the scheduler once (`systemprompt infra jobs serve`) to migrate it"
            )

    def close(self) -> None:
        """Close all connections."""
        if self._engine is not None:
            self._engine.dispose()
            self._engine = None

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Enter a transaction that no other writer can interleave with."""
        with self._turn, self._translated(), self._open().connect() as connection:
            locked = connection.execution_options(immediate=True)
            with locked.begin():
                yield locked

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Enter a read-only snapshot."""
        with self._translated(), self._open().connect() as connection:
            yield connection

    def _open(self) -> Engine:
        if self._engine is None:
            self._engine = _create_engine(self.url)
        return self._engine

    def _revision(self) -> str | None:
        with self.read() as connection:
            if not inspect(connection).has_table(schema_version.name):
                return None
            row = connection.execute(select(schema_version)).one_or_none()
        if row is not None and row.revision > REVISION and row.min_revision > REVISION:
            raise StoreUnusableError(
                f"the database {self.label} has schema {row.revision}, which needs a version of "
                f"systemprompt-jobs that knows schema {row.min_revision}; this one knows "
                f"{REVISION}: upgrade systemprompt-jobs"
            )
        return None if row is None else str(row.revision)

    def _migrate(self) -> None:
        from alembic import command
        from alembic.config import Config

        config = Config()
        config.set_main_option("script_location", "systemprompt_jobs:_store/migrations")
        config.set_main_option("path_separator", "os")
        with self.write() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            connection.execute(schema_version.delete())
            connection.execute(
                schema_version.insert().values(revision=REVISION, min_revision=MIN_REVISION)
            )

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            raise _explain(error.orig, self.label) from error
        except sqlite3.Error as error:  # while connecting
            raise _explain(error, self.label) from error
        except PoolTimeoutError as error:
            raise StoreError(
                f"the database {self.label} has no free connection: {error}"
            ) from error


def _file(url: URL) -> Path:
    if not url.database or url.database == ":memory:":
        raise StoreUnusableError(
            f"the database {url} would be forgotten with the process: name a file, "
            "e.g. sqlite:///var/jobs.db"
        )
    return Path(url.database)


def _create_file(file: Path) -> None:
    """Create an empty database file that only its owner may read.

    Only where there is none: closing a descriptor of an open SQLite file would drop the locks
    that this process holds on it.
    """
    if file.is_dir():
        raise StoreUnusableError(f"the database path {file} is a folder: name a file in it")
    if file.exists():
        return
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(file, os.O_CREAT | os.O_WRONLY, 0o600))
    except OSError as error:
        raise StoreUnusableError(
            f"the database file {file} cannot be created: {error.strerror}: "
            "choose another scheduler.database or change the folder's permissions"
        ) from error


def _create_engine(url: URL) -> Engine:
    engine = create_engine(url, connect_args={"timeout": _LOCK_TIMEOUT_S, "isolation_level": None})

    @event.listens_for(engine, "connect")
    def _configure(connection: sqlite3.Connection, _record: Any) -> None:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        immediate = connection.get_execution_options().get("immediate")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")

    return engine


def _explain(error: BaseException | None, label: str) -> StoreError:
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    for kind, codes, meaning in _MEANINGS:
        if code in codes:
            return kind(f"the database {label} {meaning} ({error})")
    return StoreError(f"the database {label} failed: {error}")


_MEANINGS: tuple[tuple[type[StoreError], tuple[int, ...], str], ...] = (
    (
        StoreError,
        (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED),
        f"has been locked by another process for {_LOCK_TIMEOUT_S} s",
    ),
    (StoreError, (sqlite3.SQLITE_FULL,), "cannot grow: the disk is full"),
    (StoreError, (sqlite3.SQLITE_IOERR,), "cannot be read or written: disk full, quota or fault"),
    (
        StoreError,
        (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH),
        "is read-only for this user: change the permissions of the file and its folder",
    ),
    (
        StoreUnusableError,
        (sqlite3.SQLITE_CANTOPEN,),
        "cannot be opened: look at the path and its permissions",
    ),
    (
        StoreUnusableError,
        (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT),
        "is not a sound SQLite database: restore a backup or choose another file",
    ),
)
