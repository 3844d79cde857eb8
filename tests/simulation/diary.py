"""What the database itself writes down: each change of a run and of a job's plan, by triggers.

So it is known of each what it was, what it became, when and by whose hand; also of what is
forgotten since, and nothing of what was rolled back.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from tests.faults.checker import connect, query

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable


@dataclass(frozen=True, slots=True)
class RunEntry:
    """A change of a run; `was`… are empty where it is new, and `state` is `deleted` at its end.

    `at` is true time since the world began, `clock` the time that decides what is due, both in
    microseconds; `who` the node that did it, or `operator`. `schedule` to `last_settled` are
    those of the job's row at that moment, `younger` the number of newer rows of the job.
    """

    number: int
    at: int
    clock: int
    who: str
    run: int
    job: str
    trigger: str
    tick: int | None
    last: int | None
    count: int
    was: str | None
    state: str
    reason: str
    old_fence: int
    fence: int
    holder: str
    node: str
    lease: int | None
    attempt: int
    most: int
    overlap: str
    cancelled: int | None
    available: int | None
    until: int | None
    finished: int | None
    pool: str
    limit_key: str | None
    mark: str | None
    schedule: str | None
    catch_up: str | None
    window: int | None
    paused_at: int | None
    paused_until: int | None
    next_tick: int | None
    last_settled: int | None
    younger: int


@dataclass(frozen=True, slots=True)
class JobEntry:
    """A change of a job's row: of its plan, its pause, or its newest settled tick that fell."""

    number: int
    at: int
    clock: int
    who: str
    job: str
    was: str
    fingerprint: str
    schedule: str
    old_next: int | None
    next_tick: int | None
    last_settled: int | None
    old_last: int | None
    old_pause: int | None
    old_until: int | None
    paused_at: int | None
    paused_until: int | None


_HEAD = "diary_number(), diary_at(), diary_clock(), diary_who()"
_NEW = (
    "NEW.id, NEW.job_id, NEW.trigger, NEW.tick_at, NEW.last_tick, NEW.count, {was}, NEW.state, "
    "NEW.reason, {fence}, NEW.fence, {holder}, NEW.node, {lease}, NEW.attempt, NEW.max_attempts, "
    "NEW.overlap, {cancelled}, {available}, {until}, NEW.finished, NEW.pool, "
    "json_extract(NEW.policy, '$.concurrency.key'), json_extract(NEW.parameters, '$.mark')"
)
_JOB = "schedule, catch_up, catchup_window, paused_at, paused_until, next_tick, last_tick"
_OF_JOB = ", ".join(
    f"(SELECT {name} FROM jobs_job WHERE id = NEW.job_id)" for name in _JOB.split(", ")
)
_FIRST = _NEW.format(
    was="NULL", fence=0, holder="''", lease="NULL", cancelled="NULL", available="NULL", until="NULL"
)
_LATER = _NEW.format(
    was="OLD.state",
    fence="OLD.fence",
    holder="OLD.node",
    lease="OLD.lease_until",
    cancelled="OLD.cancel_requested",
    available="OLD.available_at",
    until="OLD.available_until",
)
_GONE = _LATER.replace("NEW.state", "'deleted'").replace("NEW.", "OLD.")
_YOUNGER = "(SELECT count(*) FROM jobs_run WHERE job_id = OLD.job_id AND id > OLD.id)"
_HELD_SLOT = "(SELECT count(*) FROM jobs_slot WHERE run_id = OLD.id)"

_SCRIPT = f"""
CREATE TABLE diary_run ({", ".join(field.name for field in fields(RunEntry))});
CREATE TABLE diary_job ({", ".join(field.name for field in fields(JobEntry))});
CREATE TRIGGER diary_added AFTER INSERT ON jobs_run BEGIN
    INSERT INTO diary_run SELECT {_HEAD}, {_FIRST}, {_OF_JOB}, 0;
END;
CREATE TRIGGER diary_changed AFTER UPDATE OF state, fence, node ON jobs_run
WHEN OLD.state != NEW.state OR OLD.fence != NEW.fence OR OLD.node != NEW.node BEGIN
    INSERT INTO diary_run SELECT {_HEAD}, {_LATER}, {_OF_JOB}, 0;
END;
CREATE TRIGGER diary_deleted BEFORE DELETE ON jobs_run BEGIN
    INSERT INTO diary_run
    SELECT {_HEAD}, {_GONE}, {_OF_JOB.replace("NEW.", "OLD.")},
        CASE WHEN {_HELD_SLOT} THEN -1 ELSE {_YOUNGER} END;
END;
CREATE TRIGGER diary_planned AFTER UPDATE ON jobs_job
WHEN OLD.fingerprint != NEW.fingerprint OR (OLD.next_tick IS NULL) != (NEW.next_tick IS NULL)
    OR OLD.paused_at IS NOT NEW.paused_at OR OLD.paused_until IS NOT NEW.paused_until
    OR NEW.last_tick < OLD.last_tick OR (OLD.last_tick IS NOT NULL AND NEW.last_tick IS NULL)
BEGIN
    INSERT INTO diary_job SELECT {_HEAD}, NEW.id, OLD.fingerprint, NEW.fingerprint, NEW.schedule,
        OLD.next_tick, NEW.next_tick, NEW.last_tick, OLD.last_tick, OLD.paused_at, OLD.paused_until,
        NEW.paused_at, NEW.paused_until;
END;
CREATE TRIGGER diary_forgotten BEFORE DELETE ON jobs_job BEGIN
    SELECT RAISE(ABORT, 'no job is ever forgotten');
END;
"""


class Diary:
    """The diary of one database. `write` tells the time and whose hand it is, see RunEntry."""

    def __init__(
        self,
        url: str,
        at: Callable[[], int],
        clock: Callable[[], int],
        who: Callable[[], str],
    ) -> None:
        self._url = url
        self._says = {"at": at, "clock": clock, "who": who, "number": self._number}
        self.numbers = 0
        connection = connect(url)
        connection.executescript(_SCRIPT)
        connection.close()

    def attach(self, connection: sqlite3.Connection) -> None:
        """Let a connection change what is written down."""
        for name, says in self._says.items():
            connection.create_function(f"diary_{name}", 0, says)

    def _number(self) -> int:
        self.numbers += 1
        return self.numbers

    def runs(self) -> list[RunEntry]:
        """Return all changes of runs in their order."""
        return [
            RunEntry(*row) for row in query(self._url, "SELECT * FROM diary_run ORDER BY number")
        ]

    def jobs(self) -> list[JobEntry]:
        """Return all changes of jobs in their order."""
        return [
            JobEntry(*row) for row in query(self._url, "SELECT * FROM diary_job ORDER BY number")
        ]
