"""PostgreSQL through psycopg 3: any number of hosts, and the database's clock for all of them."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from sqlalchemy import Engine, create_engine, event, text

from ..errors import StoreError, StoreUnusableError
from .schema import EPOCH, micros

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator
    from typing import Any

    from sqlalchemy import Connection
    from sqlalchemy.engine import URL

    from ..interfaces import Clock

_SCHEMA_LOCK = 7_362_917_440_105
"""Key of the advisory lock that migrations take: any number that others are unlikely to use."""

_CLOCK = text("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint")

_LEAST_CONNECT_S = 2
"""libpq takes no shorter connect_timeout."""


class PostgreSQL:
    """A database on a server. `timeout_s` bounds each statement, each lock and each idle pause.

    So a node that freezes inside a transaction hides its jobs from the others no longer.
    """

    one_host = False

    def __init__(self, url: URL, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self._url = url.set(drivername="postgresql+psycopg")
        self._label = url.render_as_string(hide_password=True)

    def create(self) -> None:
        """Do nothing: databases and roles are the administrator's."""

    def new_engine(self) -> Engine:
        """Return an engine. Raises StoreUnusableError without the driver."""
        milliseconds = max(1, int(self.timeout_s * 1000))
        probe_s = max(1, int(self.timeout_s / 3))
        arguments = {
            "application_name": "systemprompt-jobs",
            "client_encoding": "utf8",
            "connect_timeout": max(_LEAST_CONNECT_S, int(self.timeout_s)),
            "tcp_user_timeout": milliseconds,
            # Who has sent all and waits for an answer learns only so that the host has gone.
            "keepalives_idle": probe_s,
            "keepalives_interval": probe_s,
            "keepalives_count": 2,
        }
        try:
            engine = create_engine(self._url, connect_args=arguments)
        except ImportError as error:
            raise StoreUnusableError(
                f"the database {self._label} needs psycopg ({error}): "
                "pip install systemprompt-jobs[postgresql]"
            ) from error

        @event.listens_for(engine, "connect")
        def _configure(connection: Any, _record: Any) -> None:
            with connection.cursor() as cursor:  # not at connecting: poolers refuse that
                cursor.execute(
                    "SELECT set_config(name, %s, false) FROM unnest(%s::text[]) AS name",
                    (str(milliseconds), list(TIMEOUTS)),
                )
                cursor.execute(  # a little less, so that the error tells what was waited for
                    "SELECT set_config('lock_timeout', %s, false)", (str(milliseconds * 9 // 10),)
                )
            connection.commit()

        return engine

    @contextmanager
    def transaction(self, engine: Engine, *, writing: bool) -> Iterator[Connection]:
        """Enter a transaction; give a reader one snapshot for all its statements."""
        with engine.connect() as connection:
            if writing:
                with connection.begin():
                    yield connection
            else:
                yield connection.execution_options(
                    isolation_level="REPEATABLE READ", postgresql_readonly=True
                )

    def close(self) -> None:
        """Do nothing: the engine's pool has all connections."""

    def listen(self, engine: Engine) -> News:
        """Return a connection of its own that can hear what `announce` says."""
        pooled = engine.raw_connection()
        connection = pooled.driver_connection
        pooled.detach()
        return News(connection)

    def lock_schema(self, connection: Connection) -> None:
        """Take the lock of migrations, which may take longer than any other statement."""
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _SCHEMA_LOCK})
        connection.execute(text("SET LOCAL statement_timeout = 0"))

    def clock(self, local: Clock) -> DatabaseTime:
        """Return the database's clock, as this node knows it."""
        return DatabaseTime(local)

    def explain(self, error: BaseException | None) -> StoreError:
        """Return the error in words, with the remedy."""
        kind, meaning = _MEANINGS.get(
            getattr(error, "sqlstate", None) or "", (StoreError, "failed")
        )
        said = "; ".join(" ".join(line.split()) for line in str(error).splitlines() if line.strip())
        if self._url.password:
            said = said.replace(str(self._url.password), "***")
        return kind(f"the database {self._label} {meaning}: {said}")


TIMEOUTS = (
    "statement_timeout",
    "idle_in_transaction_session_timeout",
    "tcp_user_timeout",
)
"""What each session sets to a third of a lease, in milliseconds; `lock_timeout` to a bit less."""

_MEANINGS: dict[str, tuple[type[StoreError], str]] = {
    "": (StoreError, "cannot be reached"),
    "25006": (StoreError, "is read-only: it is a standby or set so"),
    "25P03": (StoreError, "closed a connection that had been idle in a transaction"),
    "40P01": (StoreError, "found a deadlock"),
    "42501": (StoreUnusableError, "refuses this user: grant it CREATE on the schema once"),
    "53100": (StoreError, "cannot grow: its disk is full"),
    "53300": (StoreError, "has no free connection"),
    "55P03": (StoreError, "has been locked by another session for too long"),
    "57014": (StoreError, "took too long to answer"),
    "57P01": (StoreError, "closed the connection"),
    "57P02": (StoreError, "has crashed"),
    "57P03": (StoreError, "is starting up or shutting down"),
}


_CHANNEL = "systemprompt_jobs"


def announce(connection: Connection) -> None:
    """Have all nodes look for work as soon as this transaction has been committed.

    On SQLite they look once a second by themselves.
    """
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"NOTIFY {_CHANNEL}")


class News:
    """A connection that can `listen()`.

    Then wait for its file to become readable, and ask what `came()`.
    """

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._heard = False

    def listen(self) -> None:
        """Begin to listen."""
        self._connection.autocommit = True
        self._connection.add_notify_handler(self._hear)
        self._connection.execute(f"LISTEN {_CHANNEL}")

    def _hear(self, _notify: object) -> None:
        self._heard = True

    def fileno(self) -> int:
        """Return the descriptor to wait for."""
        number: int = self._connection.fileno()
        return number

    def came(self) -> bool:
        """Return whether anything was said since; raises if the connection is broken."""
        self._connection.execute("SELECT 1")
        heard, self._heard = self._heard, False
        return heard

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


_PATIENCE = timedelta(seconds=1)
"""How long a start waits for a node's own clock that is behind the database's."""


class DatabaseTime:
    """The database's clock, estimated by the monotonic one between two looks at it."""

    def __init__(self, local: Clock) -> None:
        self.local = local
        self._seen: tuple[datetime, float] | None = None
        self.offset: timedelta | None = None

    def now(self) -> datetime:
        """Return the database's time, never ahead of it; the node's own before the first look."""
        if self._seen is None:
            return self.local.now()
        at, when = self._seen
        return at + timedelta(seconds=self.local.monotonic() - when)

    def monotonic(self) -> float:
        """Return seconds that only grow."""
        return self.local.monotonic()

    def wait(self, condition: threading.Condition, seconds: float | None) -> None:
        """Wait on the held condition."""
        self.local.wait(condition, seconds)

    def read(self, connection: Connection) -> datetime:
        """Ask the database."""
        sent = self.local.monotonic()
        at = self._ask(connection)
        answered = self.local.monotonic()
        self._seen = (at, answered)
        self.offset = self.local.now() - at - timedelta(seconds=(answered - sent) / 2)
        return at

    def _ask(self, connection: Connection) -> datetime:
        return EPOCH + timedelta(microseconds=connection.execute(_CLOCK).scalar_one())

    def reached(self) -> datetime:
        """Return the database's time, or the node's own if that is up to 1 s behind.

        So a function that is due at midnight does not see the day before.
        """
        now = self.now()
        return min(now, max(self.local.now(), now - _PATIENCE))

    def lease_now(self) -> int:
        """Return microseconds since the epoch: leases of all hosts count on one clock."""
        return micros(self.now())
