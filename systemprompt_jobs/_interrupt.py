"""Ends attempts early: their time is up, somebody cancelled them, or their node must stop."""

from __future__ import annotations

import heapq
import threading
from collections import Counter
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import count
from typing import TYPE_CHECKING

import structlog

from .model import Report, Run, State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from ._run import Attempt
    from .interfaces import Clock, Executor

_LOOK_AGAIN_S = 1.0
"""How often to look whether a lease that ran out holds again."""

_MOMENT_S = 2.0
"""How long a coroutine whose time is up may take to end by its CancelledError."""

_STALE = 1000
"""Deadlines of ended attempts that may stay in the heap, beyond one for each that runs."""

_TIMEOUT_TYPES = tuple(kind.__name__ for kind in TimeoutError.__mro__[:-1])
"""What `retry_on` and `give_up_on` may call a timeout."""

_Key = tuple[int, int]


@dataclass(eq=False, slots=True)
class _Watched:
    attempt: Attempt
    executor: Executor
    timeout_s: float | None
    began: float | None = None
    verdict: State | None = None
    why: str = ""
    moves: bool = False  # it was cut off, not unwanted: it may be tried again elsewhere


class Interrupter:
    """Watches the attempts of a node and ends those that must end.

    An executor that kills has its attempt's report changed into what it was ended for. A thread
    cannot be killed: when its time is up, the run is reported `timed_out` at once, and the thread
    is a *stray* from then on; what it ends in is dropped. A coroutine has a moment to end, and is
    a stray if it does not. `workers` is how many threads each pool has that cannot kill: with as
    many strays it is `exhausted`.

    `report` takes what attempts ended in, `released` a run whose stray has ended, `wake` has
    `step` called. `lease_left` tells the seconds until this node's lease runs out.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        workers: Mapping[str, int],
        lease_left: Callable[[], float],
        report: Callable[[Run, Report], None],
        released: Callable[[Run], None],
        wake: Callable[[], None],
    ) -> None:
        self._clock = clock
        self._workers = workers
        self._lease_left = lease_left
        self._report = report
        self._released = released
        self._wake = wake
        self._lock = threading.Lock()
        self._live: dict[_Key, _Watched] = {}
        self._strays: dict[_Key, _Watched] = {}
        self._deadlines: list[tuple[float, int, _Key]] = []  # a heap
        self._order = count()
        self._log = structlog.get_logger("systemprompt_jobs")

    # --- an attempt's life, told by those who run it ---

    def watch(self, attempt: Attempt, executor: Executor, timeout: timedelta | None) -> None:
        """Take an attempt that `executor` is about to be given."""
        seconds = None if timeout is None else timeout.total_seconds()
        with self._lock:
            self._live[_key(attempt.run)] = _Watched(attempt, executor, seconds)

    def began(self, run: Run) -> None:
        """Note that the function is being called: its time runs from now on."""
        watched = self._live.get(_key(run))
        if watched is None:
            return
        watched.began = self._clock.monotonic()
        if watched.timeout_s is not None and self._look_at(
            watched.began + watched.timeout_s, _key(run)
        ):
            self._wake()

    def _look_at(self, deadline: float, key: _Key) -> bool:
        """Have an attempt looked at then; return whether no other is looked at before."""
        with self._lock:
            if len(self._deadlines) > 2 * len(self._live) + _STALE:
                self._deadlines = [entry for entry in self._deadlines if entry[2] in self._live]
                heapq.heapify(self._deadlines)
            first = not self._deadlines or deadline < self._deadlines[0][0]
            heapq.heappush(self._deadlines, (deadline, next(self._order), key))
        return first

    def ended(self, run: Run, report: Report) -> None:
        """Take what an attempt ended in."""
        with self._lock:
            watched = self._live.pop(_key(run), None)
            stray = self._strays.pop(_key(run), None)
        if watched is not None:
            self._report(run, _judged(watched, report))
        elif stray is not None:
            ran_s = round(self._clock.monotonic() - (stray.began or 0.0), 3)
            outcome = str(report.outcome)
            self._log.warning(
                "stray_ended", job=run.job_id, run=run.id, ran_s=ran_s, outcome=outcome
            )
            self._released(run)

    # --- what others ask ---

    def running(self) -> list[Run]:
        """Return the runs whose attempts have not been reported."""
        with self._lock:
            return [watched.attempt.run for watched in self._live.values()]

    def strays(self) -> list[Run]:
        """Return the runs whose threads outlived them."""
        with self._lock:
            return [watched.attempt.run for watched in self._strays.values()]

    @property
    def exhausted(self) -> tuple[str, ...]:
        """The pools that have as many strays as workers."""
        if not self._strays:
            return ()
        strays = Counter(run.pool for run in self.strays())
        return tuple(pool for pool, size in self._workers.items() if strays[pool] >= size)

    @property
    def can_kill(self) -> bool:
        """Whether an executor that kills has work: it is worth waiting for."""
        with self._lock:
            return any(watched.executor.capabilities.kills for watched in self._live.values())

    def cancel(self, requests: Iterable[tuple[int, int, str]]) -> None:
        """Interrupt attempts by run, fence and why."""
        for id_, fence, why in requests:
            watched = self._live.get((id_, fence))
            if watched is not None:
                self._interrupt(watched, why)

    def interrupt_all(self, why: str) -> None:
        """Interrupt every attempt; what is tried again may be so on another node, at once."""
        with self._lock:
            found = list(self._live.values())
        for watched in found:
            self._interrupt(watched, why, moves=True)

    def abandon_all(self, why: str) -> None:
        """Report every attempt as cancelled and wait for none of them."""
        for run in self.running():
            if (watched := self._write_off(_key(run))) is not None:
                report = self._so_far(watched, State.CANCELLED)
                at_once = _at_once(watched)
                self._report(run, replace(report, message=why, retry_after=at_once))

    # --- the thread of deadlines ---

    def step(self) -> float:
        """End the attempts whose time is up, and all without a lease; return when to look again."""
        for key in self._due():
            self._time_out(key)
        left = self._lease_left()
        if left <= 0:
            self.interrupt_all("its node could not renew its lease")
            left = _LOOK_AGAIN_S
        with self._lock:
            if self._deadlines:
                left = min(left, self._deadlines[0][0] - self._clock.monotonic())
        return max(left, 0.0)

    def _due(self) -> Sequence[_Key]:
        now, due = self._clock.monotonic(), []
        with self._lock:
            while self._deadlines and self._deadlines[0][0] <= now:
                due.append(heapq.heappop(self._deadlines)[2])
        return due

    def _time_out(self, key: _Key) -> None:
        watched = self._live.get(key)
        if watched is None:
            return
        can, told = watched.executor.capabilities, watched.verdict is State.TIMED_OUT
        if not told and (can.kills or can.asynchronous):
            watched.verdict = State.TIMED_OUT
            watched.why = f"ended after {watched.timeout_s:g} s, its timeout"
            self._tell(watched)
            if not can.kills:
                self._look_at(self._clock.monotonic() + _MOMENT_S, key)
        elif not can.kills and self._write_off(key) is not None:
            report = self._so_far(watched, State.TIMED_OUT)
            if not told:
                self._tell(watched)
            self._report(watched.attempt.run, replace(report, error=_overdue(watched)))
            self._say_if_exhausted(watched.attempt.run.pool)

    def _write_off(self, key: _Key) -> _Watched | None:
        """Make a stray of an attempt, unless it has just ended."""
        with self._lock:
            watched = self._live.pop(key, None)
            if watched is not None:
                self._strays[key] = watched
        return watched

    def _so_far(self, watched: _Watched, outcome: State) -> Report:
        """Return the report of an attempt that has not ended, with the place where it is."""
        now, began = self._clock.now(), watched.began
        ran = timedelta(seconds=self._clock.monotonic() - began) if began else timedelta(0)
        return Report(outcome, now - ran, now, traceback=watched.attempt.stack(), stray=True)

    def _say_if_exhausted(self, pool: str) -> None:
        if pool in self.exhausted:
            strays = [run for run in self.strays() if run.pool == pool]
            jobs = sorted({run.job_id for run in strays})
            self._log.error("workers_exhausted", pool=pool, strays=len(strays), jobs=jobs)

    def _interrupt(self, watched: _Watched, why: str, *, moves: bool = False) -> None:
        if watched.verdict is None:
            watched.verdict, watched.why, watched.moves = State.CANCELLED, why, moves
            self._tell(watched)

    def _tell(self, watched: _Watched) -> None:
        """Have the executor end an attempt; one that raises spoils no other attempt's end."""
        try:
            watched.executor.interrupt(watched.attempt)
        except Exception:  # noqa: BLE001  # a plugin's
            run = watched.attempt.run
            self._log.exception("interrupt_failed", job=run.job_id, run=run.id, pool=run.pool)


def _key(run: Run) -> _Key:
    return run.id, run.fence


def _judged(watched: _Watched, report: Report) -> Report:
    """Return what an attempt came to that was perhaps told to end.

    Its time was up, whatever it says; but one that was cancelled and succeeded has succeeded.
    """
    if watched.verdict is State.TIMED_OUT:
        return replace(
            report,
            outcome=State.TIMED_OUT,
            error=watched.why,
            error_types=_TIMEOUT_TYPES,
            retry_after=None,
        )
    if watched.verdict is State.CANCELLED and report.outcome is not State.SUCCEEDED:
        error = "" if watched.executor.capabilities.kills else report.error
        obeyed = report.outcome is State.CANCELLED  # where it was then is of no interest
        return replace(
            report,
            outcome=State.CANCELLED,
            message=watched.why,
            error=error,
            traceback="" if obeyed else report.traceback,
            retry_after=_at_once(watched),
        )
    return report


def _overdue(watched: _Watched) -> str:
    """Return what becomes of a function whose time is up and that cannot be killed."""
    still = f"still ran after {watched.timeout_s:g} s, its timeout, and "
    if watched.executor.capabilities.asynchronous:
        return f"{still}goes on in spite of its CancelledError"
    return f"{still}goes on as a stray thread; use the `processes` executor for a hard limit"


def _at_once(watched: _Watched) -> timedelta | None:
    return timedelta() if watched.moves else None
