"""The protocols a plugin may implement."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator
    from datetime import datetime


@runtime_checkable
class Schedule(Protocol):
    """When a job is due. Immutable, hashable, equal by meaning, shared between threads.

    Every instant that goes in is an aware datetime; every one that comes out is aware UTC.
    """

    @property
    def text(self) -> str:
        """The schedule as `parse_schedule` reads it, e.g. `0 30 2 * * *` or `every: 300s`."""

    @property
    def timezone(self) -> str | None:
        """IANA name of the zone it is evaluated in; None where the scheduler's zone applies."""

    def in_timezone(self, timezone: str) -> Schedule:
        """Return the same schedule evaluated in `timezone` (an IANA name)."""

    def next(self, after: datetime) -> datetime | None:
        """Return the first tick strictly after `after`, or None if there is none."""

    def previous(self, before: datetime) -> datetime | None:
        """Return the last tick strictly before `before`, or None if there is none."""

    def between(self, start: datetime, end: datetime) -> Iterator[datetime]:
        """Yield the ticks with `start` < tick <= `end`, in order, lazily."""

    def count(self, start: datetime, end: datetime) -> int:
        """Return how many ticks have `start` < tick <= `end`, without walking them."""

    def describe(self) -> str:
        """Return the schedule in plain English, e.g. `every day at 02:30, Europe/Berlin`."""


class Executor(Protocol):
    """Where functions run. `make_executor` hooks provide them."""

    @property
    def size(self) -> int:
        """How many functions it runs at once."""

    def submit(self, work: Callable[[], None]) -> None:
        """Call `work()` soon, on a worker. `work` never raises."""

    def close(self) -> None:
        """Accept no more work; return without waiting for what still runs."""


class Clock(Protocol):
    """The two clocks of a process and the only way a stage waits: tests put in their own."""

    def now(self) -> datetime:
        """Return the wall clock: aware UTC, decides what is due."""

    def monotonic(self) -> float:
        """Return seconds that only grow, the same for all processes of this host."""

    def wait(self, condition: threading.Condition, seconds: float | None) -> None:
        """Wait on the held `condition` until notified or `seconds` (monotonic) have passed."""
