"""The writer: gates and finishes in groups, one commit each; then starts and observes."""

from __future__ import annotations

import heapq
import threading
from collections import Counter, deque
from dataclasses import replace
from datetime import UTC, datetime
from itertools import count
from typing import TYPE_CHECKING

from ._store import runs as run_rows
from .model import Report, Run, State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from ._observe import Observer
    from ._store import Store, StoreClock

_GROUP = 500
"""Reports per transaction."""

WINDOW_S = 0.05
"""Beyond its free workers, a pool is given as many runs as it started in this time.

More would start sooner under load, and lose more unstarted runs to a `kill -9`.
"""

_LONGEST_WAIT_S = 1.0

_ALWAYS = datetime.min.replace(tzinfo=UTC)


class Recorder:
    """Gates runs whose time has come, hands them to `start`, and records their reports.

    `sizes` is how many functions each pool runs at once. `may_start` says whether this node's
    lease still holds. `ended` is told of each run that reached its end, after the commit.
    """

    def __init__(
        self,
        store: Store,
        observer: Observer,
        clock: StoreClock,
        *,
        sizes: Mapping[str, int],
        lease_until: Callable[[], int],
        may_start: Callable[[], bool],
        start: Callable[[Run], None],
        ended: Callable[[Run], None],
        wake: Callable[[], None],
    ) -> None:
        self._store = store
        self._observer = observer
        self._clock = clock
        self._sizes = sizes
        self._lease_until = lease_until
        self._may_start = may_start
        self._start = start
        self._ended = ended
        self._wake = wake
        self._lock = threading.Lock()
        self._order = count()
        self._waiting: dict[str, list[tuple[datetime, int, Run]]]  # a heap for each pool
        self._waiting = {pool: [] for pool in sizes}
        self._gating: list[Run] = []
        self._started: dict[int, Run] = {}  # gated, and not yet reported
        self._reports: deque[tuple[Run, Report]] = deque()
        self._recent: dict[str, deque[float]] = {pool: deque() for pool in sizes}
        self._closed = False
        self._doubted: set[int] = set()  # written once, with no answer

    # --- what other threads call ---

    def offer(self, runs: Iterable[Run]) -> None:
        """Take runs that this node has claimed; those it holds already are left out."""
        with self._lock:
            held = set(self._held())
            for run in runs:
                if (run.id, run.fence) in held:
                    continue
                self._await(run)
        self._wake()

    def _await(self, run: Run) -> None:
        heapq.heappush(self._waiting[run.pool], (run.due or _ALWAYS, next(self._order), run))

    def began(self, run: Run) -> None:
        """Note that a worker has just begun a run."""
        self._recent[run.pool].append(self._clock.monotonic())

    def report(self, run: Run, report: Report) -> None:
        """Take what an attempt ended in."""
        with self._lock:
            self._started.pop(run.id, None)
            self._reports.append((run, report))
        self._wake()

    def held(self) -> list[tuple[int, int]]:
        """Return the (run, fence) pairs that this node holds."""
        with self._lock:
            return self._held()

    def _held(self) -> list[tuple[int, int]]:
        runs = [run for waiting in self._waiting.values() for _, _, run in waiting]
        runs += [*self._gating, *self._started.values()]
        runs += [run for run, _ in self._reports]
        return [(run.id, run.fence) for run in runs]

    def room(self) -> Mapping[str, int]:
        """Return how many more runs each pool can make use of: twice its free workers."""
        with self._lock:
            if self._closed:
                return {}
            started = Counter(run.pool for run in self._started.values())
            gating = Counter(run.pool for run in self._gating)
            return {
                pool: 2 * (size - started[pool]) - len(self._waiting[pool]) - gating[pool]
                for pool, size in self._sizes.items()
            }

    def running(self) -> list[Run]:
        """Return the runs whose function has been started and has not reported yet."""
        with self._lock:
            return list(self._started.values())

    def close(self) -> list[Run]:
        """Gate nothing more; return the claimed runs that were not started."""
        with self._lock:
            self._closed = True
            unstarted = [run for waiting in self._waiting.values() for _, _, run in waiting]
            for waiting in self._waiting.values():
                waiting.clear()
        return unstarted

    # --- the writer's thread ---

    def step(self) -> float | None:
        """Write one group; return the seconds until there may be another."""
        reports, ready = self._take()
        if reports or ready:
            self._write(reports, ready)
            return 0.0
        return self._until_next()

    def _take(self) -> tuple[list[tuple[Run, Report]], list[Run]]:
        now = self._clock.reached()
        with self._lock:
            reports = [self._reports[i] for i in range(min(len(self._reports), _GROUP))]
            for run in self._gating:  # a failed group: the clock or the lease may have moved on
                self._await(run)
            self._gating.clear()
            room = self._room()
            for pool, free in room.items():
                waiting = self._waiting[pool]
                for _ in range(free):
                    if not waiting or waiting[0][0] > now:
                        break
                    self._gating.append(heapq.heappop(waiting)[2])
            return reports, list(self._gating)

    def _room(self) -> Mapping[str, int]:
        if self._closed or not self._may_start():
            return {}
        horizon = self._clock.monotonic() - WINDOW_S
        for recent in self._recent.values():
            while recent and recent[0] < horizon:
                recent.popleft()
        started = Counter(run.pool for run in self._started.values())
        return {
            pool: size + len(self._recent[pool]) - started[pool]
            for pool, size in self._sizes.items()
        }

    def _write(self, reports: list[tuple[Run, Report]], ready: list[Run]) -> None:
        """Commit one group. What fails to commit stays where it is and is tried again."""
        doubted = frozenset(self._doubted)
        self._doubted |= {run.id for run, _ in reports} | {run.id for run in ready}
        with self._store.write() as connection:
            now = self._clock.read(connection)
            early = [run for run in ready if run.due is not None and run.due > now]
            ended = run_rows.finish(connection, reports, doubted)
            started, skipped = run_rows.gate(
                connection,
                [run for run in ready if run not in early],
                now,
                self._lease_until(),
                doubted,
            )
        self._doubted.clear()
        with self._lock:
            for _ in reports:
                self._reports.popleft()
            self._gating.clear()
            for run in early:
                self._await(run)
            self._started.update((run.id, run) for run in started)
        for run in started:
            self._start(run)
        self._observe(reports, ended, started, skipped)
        kept = {run.id for run in started + skipped + early}
        for run in ready:
            if run.id not in kept:  # rescued from this node before it could start
                self._ended(replace(run, state=State.PENDING, node=""))

    def _observe(
        self,
        reports: list[tuple[Run, Report]],
        ended: list[Run],
        started: list[Run],
        skipped: list[Run],
    ) -> None:
        accepted = {(run.id, run.fence): run for run in ended}
        for run, report in reports:
            run_now = accepted.pop((run.id, run.fence), None)
            if run_now is None:
                self._observer.put("run_fenced", run=run, report=report)
                self._ended(replace(run, state=State.LOST, error="it was taken from this node"))
                continue
            self._observer.put(f"run_{report.outcome}", run=run_now, report=report)
            self._observer.put("run_finished", run=run_now, report=report)
            self._ended(run_now)
        for run in skipped:
            self._observer.put("tick_skipped", run=run)
            self._ended(run)
        for run in started:
            self._observer.put("run_started", run=run)

    def _until_next(self) -> float | None:
        with self._lock:
            first = min(
                (waiting[0][0] for waiting in self._waiting.values() if waiting), default=None
            )
            if first is None or self._closed:
                return None
            until = (first - self._clock.reached()).total_seconds()
        # At zero there is no room: a report or a renewed lease wakes us, or this does.
        return min(until, _LONGEST_WAIT_S) if until > 0 else WINDOW_S

    def flush(self) -> None:
        """Write all reports that have come in."""
        while self._reports:
            self.step()


def cancelled(run: Run, now: datetime, why: str) -> Report:
    """Return the report of a run that was cut off."""
    return Report(State.CANCELLED, run.started or now, now, message=why)
