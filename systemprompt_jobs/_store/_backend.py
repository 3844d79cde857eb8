"""What the two databases do differently, and whose clock decides."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from ..interfaces import Clock

if TYPE_CHECKING:
    import threading
    from contextlib import AbstractContextManager
    from datetime import datetime, timedelta

    from sqlalchemy import Connection, Engine

    from ..errors import StoreError


class StoreClock(Clock, Protocol):
    """The clocks of a node that works on one database.

    `now()` is the time that decides what is due; where that is the database's clock, it is an
    estimate which every `read()` corrects and which is never ahead.
    """

    @property
    def offset(self) -> timedelta | None:
        """How far the node's own clock was ahead of the database's at the last `read()`."""

    def read(self, connection: Connection) -> datetime:
        """Return the time, exactly, as the transaction's decisions need it."""

    def reached(self) -> datetime:
        """Return the newest tick that may start now."""

    def lease_now(self) -> int:
        """Return the time on which leases count, in microseconds."""


class Backend(Protocol):
    """One kind of database. Safe to use from several threads."""

    one_host: bool
    """Leases count on the monotonic clock of one boot of the host, not on the database's."""

    def create(self) -> None:
        """Make what must be there before one can connect. Raises StoreUnusableError."""

    def new_engine(self) -> Engine:
        """Return an engine whose sessions wait for locks for at most a third of a lease."""

    def transaction(self, engine: Engine, *, writing: bool) -> AbstractContextManager[Connection]:
        """Enter a transaction, or for a reader one snapshot for all its statements."""

    def close(self) -> None:
        """Close what is kept for the next transaction."""

    def lock_schema(self, connection: Connection) -> None:
        """Hold up other migrations until the transaction ends."""

    def explain(self, error: BaseException | None) -> StoreError:
        """Return the error in words, with the remedy."""

    def clock(self, local: Clock) -> StoreClock:
        """Return the clock of a node whose own clock is `local`."""


class OwnTime:
    """The machine's clocks decide, and leases count on its monotonic one."""

    offset = None

    def __init__(self, local: Clock) -> None:
        self._local = local

    def now(self) -> datetime:
        """Return the wall clock."""
        return self._local.now()

    def monotonic(self) -> float:
        """Return seconds that only grow."""
        return self._local.monotonic()

    def wait(self, condition: threading.Condition, seconds: float | None) -> None:
        """Wait on the held condition."""
        self._local.wait(condition, seconds)

    def read(self, connection: Connection) -> datetime:  # noqa: ARG002  # the other clock needs it
        """Return the wall clock."""
        return self._local.now()

    def reached(self) -> datetime:
        """Return the wall clock."""
        return self._local.now()

    def lease_now(self) -> int:
        """Return monotonic microseconds of this boot."""
        return int(self._local.monotonic() * 1_000_000)
