"""The protocols a plugin may implement."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator, Mapping
    from datetime import datetime, timedelta

    from .model import Job, Report, Run


@runtime_checkable
class Schedule(Protocol):
    """When a job is due. Immutable, hashable, equal by meaning, shared between threads.

    Every instant that goes in is an aware datetime; every one that comes out is aware UTC.
    """

    @property
    def text(self) -> str:
        """The schedule as `parse_schedule` reads it, e.g. `0 30 2 * * *` or `every: 5m`."""

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


class Voice(Protocol):
    """What one attempt says while its function runs. Any thread may call; nothing raises.

    An executor whose functions run in another process carries each call over to the attempt's
    own `said`, as the plain values that the arguments are.
    """

    def progress(self, done: float, total: float | None, message: str) -> None:
        """Say how far the function is; only the last one counts."""

    def output(self, text: str) -> None:
        """Add what was logged, or written where its executor caught it: a line, or several."""

    def annotate(self, values: Mapping[str, str | float]) -> None:
        """Add notes that are kept with the attempt."""


class Attempt(Protocol):
    """One call of a job's function, as the executor that makes it sees it."""

    @property
    def run(self) -> Run:
        """The run, as recorded at the gate: `(run.id, run.fence)` names this attempt."""

    @property
    def job(self) -> Job[..., Any]:
        """The job whose function is called."""

    @property
    def config(self) -> Mapping[str, Any]:
        """The extension's own section of the configuration, as plain values."""

    @property
    def said(self) -> Voice:
        """Where what the function says while it runs is collected."""

    def annotate(self, **values: str | float) -> None:
        """Note e.g. a trace's id: it is kept with the attempt and shown with it."""

    def call(self) -> Report:
        """Call the function here and now, with its services; return what it ended in.

        Raises nothing. An `async def` function runs in an event loop of its own.
        """

    async def call_async(self) -> Report:
        """Await an `async def` function in the running event loop; else as `call`."""

    def interrupt(self) -> None:
        """Tell the function that it should end: from now on its context says `cancelled`."""

    def began(self) -> None:
        """Note that the function begins now. `call` and `call_async` do so themselves."""

    def ended(self, report: Report) -> None:
        """Hand in what the attempt ended in, once. Any thread may call."""

    def refused(self, why: str) -> None:
        """Give the run back, since it could not be sent. Only for executors that are `remote`."""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What an executor can promise.

    `kills`: an interrupted attempt has really ended when it is reported. `remote`: it is a
    `RemoteExecutor`, whose functions run on other nodes. `asynchronous`: it runs `async def`
    functions in one event loop. `by_name`: functions run in other processes, which find them
    through their plugin's name.
    """

    kills: bool = False
    remote: bool = False
    asynchronous: bool = False
    by_name: bool = False


class Executor(Protocol):
    """Where functions run. `make_executor` hooks provide them. Any thread may call."""

    @property
    def size(self) -> int:
        """How many functions it runs at once."""

    @property
    def capabilities(self) -> Capabilities:
        """What it can promise."""

    def submit(self, attempt: Attempt) -> None:
        """Have `attempt` called soon, and its report handed to `attempt.ended`. Never blocks."""

    def interrupt(self, attempt: Attempt) -> None:
        """End the attempt early, as far as this executor can. Never blocks.

        Its time is up or somebody cancelled it. One that can kill does, and hands in a report;
        one that cannot tells the function and counts on no more from that worker: it makes
        another, and the report is handed in whenever the function ends.
        """

    def close(self) -> None:
        """Accept no more attempts; return without waiting for what still runs."""


class RemoteExecutor(Executor, Protocol):
    """Sends runs to workers: nodes that run what they are sent, and claim nothing.

    `submit` is called after the commit that made the run `dispatched`. All that has to reach the
    worker is `(run.id, run.fence)`, for its `Runtime.take`: it reads the rest from the database,
    passes the gate there, and records what comes of it. So nothing is to be handed in here, and
    a message may be lost, late or doubled. What cannot be sent is given back by
    `attempt.refused`. `size` is how many runs of the pool may wait for a worker; `interrupt` is
    never called. `close` returns when all that was submitted is sent or refused.
    """

    @property
    def deadline(self) -> timedelta:
        """How long a run may wait for a worker before it is sent again.

        Twice as long each further time, up to an hour.
        """

    @property
    def problem(self) -> str:
        """Why nothing can be sent at present, empty if it can: then runs wait as `pending`."""


class Clock(Protocol):
    """The two clocks of a process and the only way a stage waits: tests put in their own."""

    def now(self) -> datetime:
        """Return the wall clock: aware UTC, decides what is due."""

    def monotonic(self) -> float:
        """Return seconds that only grow, the same for all processes of this host."""

    def wait(self, condition: threading.Condition, seconds: float | None) -> None:
        """Wait on the held `condition` until notified or `seconds` (monotonic) have passed.

        It may come back sooner.
        """


class Pages(Protocol):
    """Pages for people, served beside a scheduler since the hook `open_pages` has returned them."""

    @property
    def address(self) -> str:
        """The URL to open."""

    @property
    def token(self) -> str:
        """What to log in with, if it was made up for this start; shown on a terminal only."""

    def stop(self) -> None:
        """Answer no more."""
