"""SQLite: one file, one host, one writer at a time."""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Engine, NullPool, create_engine, event

from ..errors import StoreError, StoreUnusableError
from ._backend import OwnTime

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from sqlalchemy import Connection
    from sqlalchemy.engine import URL

    from ..interfaces import Clock


_WAL_PAUSE_S = 0.01

_DRIVER = "systemprompt_jobs_driver"

_KEPT = 8
"""Connections that stay open for the next transaction."""

_LOG_PAGES = 4000
"""Pages in the `-wal` file, 16 MB, before they go to the database: most are written many times.

With SQLite's own 1000 a run takes a tenth longer once there is some history.
"""


class SQLite:
    """A database file. `timeout_s` is how long to wait for another process's write lock."""

    one_host = True

    def __init__(self, url: URL, timeout_s: float) -> None:
        if not url.database or url.database == ":memory:":
            raise StoreUnusableError(
                f"the database {url} would be forgotten with the process: name a file, "
                "e.g. sqlite:///var/jobs.db"
            )
        self.file = Path(url.database)
        self.timeout_s = timeout_s
        self._url = url
        self._label = url.render_as_string(hide_password=True)
        self._idle: list[Connection] = []

    def create(self) -> None:
        """Create an empty database file that only its owner may read.

        Only where there is none: closing a descriptor of an open SQLite file would drop the
        locks that this process holds on it.
        """
        file = self.file
        if self.exists():
            return
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(file, os.O_CREAT | os.O_WRONLY, 0o600))
        except OSError as error:
            raise StoreUnusableError(
                f"the database file {file} cannot be created: {error.strerror}: "
                "choose another scheduler.database or change the folder's permissions"
            ) from error

    def exists(self) -> bool:
        """Return whether there is a file. Raises StoreUnusableError for a folder."""
        if self.file.is_dir():
            raise StoreUnusableError(
                f"the database path {self.file} is a folder: name a file in it"
            )
        return self.file.exists()

    def new_engine(self) -> Engine:
        """Return an engine whose commits survive a power cut."""
        # Connections are kept here, and SQLAlchemy is not told of transactions: its pool and its
        # events take longer than a small one.
        engine = create_engine(
            self._url,
            poolclass=NullPool,
            connect_args={"timeout": self.timeout_s, "isolation_level": None},
        )

        @event.listens_for(engine, "connect")
        def _configure(connection: sqlite3.Connection, _record: Any) -> None:
            self._enter_wal(connection)
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute(f"PRAGMA wal_autocheckpoint={_LOG_PAGES}")

        return engine

    @contextmanager
    def transaction(self, engine: Engine, *, writing: bool) -> Iterator[Connection]:
        """Enter a transaction; a write takes the lock at once: one that reads first cannot wait.

        Where it fails the connection is closed, which rolls it back.
        """
        idle = self._idle
        try:
            connection = idle.pop()
        except IndexError:
            connection = engine.connect()
            connection.begin()  # for good: what really begins and ends is below
        driver = driver_of(connection)
        assert driver is not None  # noqa: S101  # the engine is SQLite's
        try:
            driver.execute("BEGIN IMMEDIATE" if writing else "BEGIN")
            yield connection
            if writing:
                self.commit(driver)
            else:
                driver.rollback()
        except BaseException:
            connection.close()
            raise
        if idle is self._idle and len(idle) < _KEPT:
            idle.append(connection)
        else:
            connection.close()

    def commit(self, driver: sqlite3.Connection) -> None:
        """Make a write last."""
        driver.commit()

    def close(self) -> None:
        """Close what is kept; what is at work is closed when it is done."""
        idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _enter_wal(self, connection: sqlite3.Connection) -> None:
        """Change to WAL mode: the one lock that SQLite itself does not wait for."""
        deadline = time.monotonic() + self.timeout_s
        while True:
            try:
                connection.execute("PRAGMA journal_mode=WAL")
            except sqlite3.OperationalError as error:
                busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
                if not busy or time.monotonic() > deadline:
                    raise
                time.sleep(_WAL_PAUSE_S)
            else:
                return

    def lock_schema(self, connection: Connection) -> None:
        """Do nothing: the transaction holds the only lock there is."""

    def clock(self, local: Clock) -> OwnTime:
        """Return the machine's clocks."""
        return OwnTime(local)

    def explain(self, error: BaseException | None) -> StoreError:
        """Return the error in words, with the remedy."""
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        for kind, codes, meaning in _MEANINGS:
            if code in codes:
                text = meaning.format(seconds=f"{self.timeout_s:g}")
                return kind(f"the database {self._label} {text} ({error})")
        return StoreError(f"the database {self._label} failed: {error}")


def driver_of(connection: Connection) -> sqlite3.Connection | None:
    """Return what SQLAlchemy wraps: by itself it takes a tenth of the time for a statement.

    None where the database is another. To find it takes as long as a small statement, so the
    wrapper keeps it.
    """
    kept = vars(connection)
    if _DRIVER not in kept:
        sqlite = connection.dialect.name == "sqlite"
        kept[_DRIVER] = connection.connection.driver_connection if sqlite else None
    driver: sqlite3.Connection | None = kept[_DRIVER]
    return driver


_MEANINGS: tuple[tuple[type[StoreError], tuple[int, ...], str], ...] = (
    (
        StoreError,
        (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED),
        "has been locked by another process for {seconds} s",
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
