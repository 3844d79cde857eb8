"""SQLite: one file, one host, one writer at a time."""

from __future__ import annotations

import os
import sqlite3
import time
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Engine, create_engine, event

from ..errors import StoreError, StoreUnusableError
from ._backend import OwnTime

if TYPE_CHECKING:
    from typing import Any

    from sqlalchemy import Connection
    from sqlalchemy.engine import URL

    from ..interfaces import Clock


_WAL_PAUSE_S = 0.01


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
        engine = create_engine(
            self._url, connect_args={"timeout": self.timeout_s, "isolation_level": None}
        )

        @event.listens_for(engine, "connect")
        def _configure(connection: sqlite3.Connection, _record: Any) -> None:
            self._enter_wal(connection)
            connection.execute("PRAGMA synchronous=FULL")

        @event.listens_for(engine, "begin")
        def _begin(connection: Connection) -> None:
            immediate = connection.get_execution_options().get("immediate")
            # By the driver itself: that takes a tenth of the time, and is done for each look.
            driver: Any = connection.connection.driver_connection
            driver.execute("BEGIN IMMEDIATE" if immediate else "BEGIN")

        return engine

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

    def begin(self, connection: Connection, *, writing: bool) -> Connection:
        """Have a write take the lock at once: one that reads first could not wait for it."""
        return connection.execution_options(immediate=writing)

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
