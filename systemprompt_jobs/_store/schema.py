"""The tables. Migrations bring a database to this shape; a test holds the two together.

Instants are whole microseconds since the Unix epoch, UTC: one type, one order and one
arithmetic on every database. Names carry a prefix because the database may be shared with an
application.
"""

from __future__ import annotations

import functools
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.types import TypeDecorator

if TYPE_CHECKING:
    from typing import Any

    from sqlalchemy.engine import Dialect

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)

HELD = text("state IN ('claimed', 'dispatched', 'running')")
"""A node holds the run under a lease. Spelt out, so that the partial index of it is used."""

PENDING = text("jobs_run.state = 'pending'")
"""Nobody holds the run. Spelt out for the same reason."""

TROUBLED = text("state IN ('failed', 'timed_out', 'lost', 'missed', 'skipped', 'cancelled')")
"""The run did not go as planned. Spelt out for the same reason."""


def micros(instant: datetime) -> int:
    """Return whole microseconds since the epoch."""
    return (instant - EPOCH) // MICROSECOND


@functools.lru_cache(1024)
def instant(value: int | None) -> datetime | None:
    """Return the aware datetime of whole microseconds since the epoch.

    Many jobs share a tick, and to make one takes as long as to read all the rest of a row.
    """
    return None if value is None else EPOCH + timedelta(microseconds=value)


class Instant(TypeDecorator[datetime]):
    """An aware UTC datetime, stored as whole microseconds since the epoch."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:  # noqa: ARG002
        """Return the microseconds to store."""
        return None if value is None else micros(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Return the aware datetime that was stored."""
        return instant(value)


class Microseconds(TypeDecorator[timedelta]):
    """A timedelta, stored as whole microseconds."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: timedelta | None, dialect: Dialect) -> Any:  # noqa: ARG002
        """Return the microseconds to store."""
        return None if value is None else value // MICROSECOND

    def process_result_value(self, value: Any, dialect: Dialect) -> timedelta | None:  # noqa: ARG002
        """Return the timedelta that was stored."""
        return None if value is None else timedelta(microseconds=value)


# SQLite counts only an INTEGER primary key up by itself.
BigId = BigInteger().with_variant(Integer, "sqlite")

metadata = MetaData()

job = Table(
    "jobs_job",
    metadata,
    Column("id", Text, primary_key=True),
    Column("extension", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("schedule", Text, nullable=False),
    Column("timezone", Text, nullable=False),
    Column("fingerprint", Text, nullable=False),
    Column("owner", Text, nullable=False),
    Column("distribution", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("next_tick", Instant),
    Column("last_tick", Instant),
    Column("paused_at", Instant),
    Column("paused_until", Instant),
    Column("note", Text),
    Column("by", Text),
    Column("catch_up", Text, nullable=False, server_default="latest"),
    Column("catchup_window", BigInteger, nullable=False, server_default=text("86400")),
    Column("revision", BigInteger, nullable=False, server_default=text("0")),
    Index("jobs_job_next_tick", "next_tick"),
)

job_set = Table(
    "jobs_job_set",
    metadata,
    Column("hash", Text, primary_key=True),
    Column("job_id", Text, primary_key=True),
    Column("fingerprint", Text, nullable=False, server_default=""),
)

run = Table(
    "jobs_run",
    metadata,
    Column("id", BigId, primary_key=True),
    Column("job_id", Text, nullable=False),
    Column("dedup_key", Text, nullable=False),
    Column("tick_at", Instant),
    Column("last_tick", Instant),
    Column("count", BigInteger, nullable=False, server_default=text("1")),
    Column("trigger", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("reason", Text, nullable=False, server_default=""),
    Column("attempt", Integer, nullable=False, server_default=text("0")),
    Column("max_attempts", Integer, nullable=False, server_default=text("1")),
    Column("fence", BigInteger, nullable=False, server_default=text("1")),
    Column("node", Text, nullable=False, server_default=""),
    Column("pool", Text, nullable=False, server_default=""),
    Column("lease_until", BigInteger),
    Column("available_at", Instant),
    Column("available_until", Instant),
    Column("parameters", JSON, nullable=False),
    Column("enforce", Boolean, nullable=False),
    Column("overlap", Text, nullable=False),
    Column("fingerprint", Text, nullable=False),
    Column("cancel_requested", Instant),
    Column("parent", BigInteger),
    Column("distribution", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("created", Instant, nullable=False),
    Column("started", Instant),
    Column("finished", Instant),
    Column("message", Text, nullable=False, server_default=""),
    Column("processed", BigInteger),
    Column("failed", BigInteger),
    Column("error", Text, nullable=False, server_default=""),
    Column("policy", JSON),
    Column("progress", JSON),
    UniqueConstraint("job_id", "dedup_key", name="jobs_run_once"),
    sqlite_autoincrement=True,
)

Index("jobs_run_held", run.c.lease_until, sqlite_where=HELD, postgresql_where=HELD)
_pending = text("state = 'pending'")
Index("jobs_run_pending", run.c.available_at, sqlite_where=_pending, postgresql_where=_pending)
Index("jobs_run_history", run.c.job_id, run.c.id)
Index("jobs_run_troubled", run.c.id, sqlite_where=TROUBLED, postgresql_where=TROUBLED)

slot = Table(
    "jobs_slot",
    metadata,
    Column("key", Text, primary_key=True),
    Column("n", Integer, primary_key=True, autoincrement=False),
    Column("run_id", BigInteger, nullable=False),
    Column("fence", BigInteger, nullable=False),
    Index("jobs_slot_run", "run_id"),
)

attempt = Table(
    "jobs_attempt",
    metadata,
    Column("run_id", BigInteger, primary_key=True, autoincrement=False),
    Column("fence", BigInteger, primary_key=True, autoincrement=False),
    Column("number", Integer, nullable=False),
    Column("node", Text, nullable=False),
    Column("started", Instant, nullable=False),
    Column("finished", Instant),
    Column("outcome", Text),
    Column("error", Text, nullable=False, server_default=""),
    Column("traceback", Text, nullable=False, server_default=""),
    Column("log", Text, nullable=False, server_default=""),
    Column("message", Text, nullable=False, server_default=""),
    Column("annotations", JSON),
)

node = Table(
    "jobs_node",
    metadata,
    Column("id", Text, primary_key=True),
    Column("host", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("boot", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("job_set", Text, nullable=False),
    Column("workers", Integer, nullable=False),
    Column("clock_offset", Microseconds),
    Column("started", Instant, nullable=False),
    Column("heartbeat", Instant, nullable=False),
    Column("lease_until", BigInteger, nullable=False),
    Column("stopped", Instant),
    Column("strays", Integer, nullable=False, server_default=text("0")),
    Column("pools", JSON),
    Column("problem", Text, nullable=False, server_default=""),
)

audit = Table(
    "jobs_audit",
    metadata,
    Column("id", BigId, primary_key=True),
    Column("at", Instant, nullable=False),
    Column("who", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("note", Text, nullable=False, server_default=""),
    sqlite_autoincrement=True,
)

schema_version = Table(
    "jobs_schema",
    metadata,
    Column("revision", Text, primary_key=True),
    Column("min_revision", Text, nullable=False),
)
