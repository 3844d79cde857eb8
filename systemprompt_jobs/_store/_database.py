"""Opens, checks and migrates the database; hands out transactions."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, TypeVar

from sqlalchemy import Engine, inspect, select
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from ..errors import StoreError, StoreUnusableError
from ._postgresql import News, PostgreSQL
from ._questions import Questions
from ._sqlite import SQLite
from .schema import schema_version

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from sqlalchemy import Connection

    from ..interfaces import Clock
    from ._backend import Backend, StoreClock

REVISION = "0003"
"""The newest migration this code knows."""

MIN_REVISION = "0001"
"""The oldest code revision that can live with this schema, written when migrating."""

T = TypeVar("T")

_NOTHING = nullcontext()


class Store:
    """One database. Safe to use from several threads.

    `write()` is a transaction; on SQLite it holds the write lock from its start, on PostgreSQL
    the locks that its statements take. `read()` is a consistent snapshot. `ask()` is for small
    questions that come again and again, and costs a fifth of it. All raise StoreError for whatever
    the database refuses. Nothing waits longer than a third of `lease_s`.
    """

    def __init__(self, url: str, lease_s: float = 30.0) -> None:
        self.url = make_url(url)
        kind: type[SQLite | PostgreSQL] = (
            SQLite if self.url.get_backend_name() == "sqlite" else PostgreSQL
        )
        self.backend: Backend = kind(self.url, lease_s / 3)
        # One writer at a time on SQLite, which would only poll for its lock.
        self._turn = threading.Lock() if self.one_host else _NOTHING
        self._opening = threading.Lock()
        self._engine: Engine | None = None
        self._usable = False
        self._questions = Questions(lambda: self._open())  # noqa: PLW0108  # tests replace it

    @property
    def label(self) -> str:
        """The URL with its password masked."""
        return self.url.render_as_string(hide_password=True)

    @property
    def one_host(self) -> bool:
        """Whether leases count on the clock of this host's boot, not on the database's."""
        return self.backend.one_host

    @property
    def exists(self) -> bool:
        """Whether there is a database to read yet."""
        if isinstance(self.backend, SQLite):
            return self.backend.exists()
        return self._revision() is not None

    def clock(self, local: Clock) -> StoreClock:
        """Return the clock of a node on this database whose own clock is `local`."""
        return self.backend.clock(local)

    def revision(self) -> str | None:
        """Return which schema the database has, None for none. Raises StoreError."""
        return self._revision() if self.exists else None

    def listen(self) -> News:
        """Return a new connection that can hear what `announce` says; not on SQLite."""
        assert isinstance(self.backend, PostgreSQL)  # noqa: S101  # the listener asked
        return self.backend.listen(self._open())

    def prepare(self) -> None:
        """Create or migrate the database where needed. Raises StoreError."""
        self.backend.create()
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

    def check_writing(self) -> None:
        """Raise StoreError unless a change can be committed; the one that is tried changes nothing."""
        row = {"revision": "", "min_revision": ""}
        with self.write() as connection:  # the pages it touches are written all the same
            connection.execute(schema_version.insert().values(row))
            connection.execute(schema_version.delete().where(schema_version.c.revision == ""))

    def usable(self) -> bool:
        """Return whether there is a database yet; raise as `check` does where it is of no use.

        Pages ask before each of many statements, so a good answer is kept until one fails.
        """
        if isinstance(self.backend, SQLite) and not self.backend.exists():
            return False  # a file may go without a statement that fails
        if not self._usable and self.exists:
            self.check()
            self._usable = True
        return self._usable

    def close(self) -> None:
        """Close all connections."""
        self._usable = False
        self.backend.close()
        self._questions.close()
        if self._engine is not None:
            self._engine.dispose()
            self._engine = None

    def write(self) -> AbstractContextManager[Connection]:
        """Enter a transaction that is committed at the end of the block."""
        block = self.backend.transaction(self._open(), writing=True)
        return self._translated(block, self._turn)

    def read(self) -> AbstractContextManager[Connection]:
        """Enter a read-only snapshot."""
        block = self.backend.transaction(self._open(), writing=False)
        return self._translated(block)

    @contextmanager
    def ask(self) -> Iterator[Questions]:
        """Enter what answers each statement for itself, outside of any transaction."""
        driver = self._open().dialect.loaded_dbapi
        with self._translated(_NOTHING):
            try:
                yield self._questions
            except driver.Error as error:
                self._usable = False
                raise self._explained(error) from error

    def _open(self) -> Engine:
        if self._engine is not None:
            return self._engine
        with self._opening:
            if self._engine is None:
                self._engine = self.backend.new_engine()
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

    def _migrate(self, revision: str = REVISION) -> None:
        from alembic import command
        from alembic.config import Config

        config = Config()
        config.set_main_option("script_location", "systemprompt_jobs:_store/migrations")
        config.set_main_option("path_separator", "os")
        with self.write() as connection:
            self.backend.lock_schema(connection)
            config.attributes["connection"] = connection
            command.upgrade(config, revision)
            connection.execute(schema_version.delete())
            connection.execute(
                schema_version.insert().values(revision=revision, min_revision=MIN_REVISION)
            )

    @contextmanager
    def _translated(
        self, block: AbstractContextManager[T], turn: AbstractContextManager[object] = _NOTHING
    ) -> Iterator[T]:
        """Enter a block at its turn: in one generator, for each takes as long as a row."""
        try:
            with turn, block as entered:
                yield entered
        except (DBAPIError, sqlite3.Error, PoolTimeoutError) as error:
            self._usable = False
            self._questions.distrust()
            raise self._explained(error) from error

    def _explained(self, error: Exception) -> StoreError:
        if isinstance(error, PoolTimeoutError):
            return StoreError(f"the database {self.label} has no free connection: {error}")
        driver = (
            error.orig if isinstance(error, DBAPIError) else error
        )  # bare while connecting or beginning
        return self.backend.explain(driver)
