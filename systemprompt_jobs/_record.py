"""The writer: gates and finishes in groups, one commit each; then starts and observes."""

from __future__ import annotations

import heapq
import threading
from collections import Counter, deque
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import TYPE_CHECKING, TypeVar

from ._store import cancels
from ._store import dispatch as dispatch_rows
from ._store import runs as run_rows
from .model import EMPTY, Report, Run, State

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from sqlalchemy import Connection

    from ._observe import Observer
    from ._store import Store, StoreClock

_GROUP = 500
"""Reports per transaction."""

WINDOW_S = 0.05
"""Beyond its free workers, a pool is given as many runs as it started in this time.

More would start sooner under load, and lose more unstarted runs to a `kill -9`.
"""

_LONGEST_WAIT_S = 1.0

_SOON = timedelta(seconds=1)
"""What is due later than this needs no worker yet."""

_LOOK_AGAIN = timedelta(seconds=1)
"""How often a run that belongs to this node looks whether its slot is free."""

_AHEAD = timedelta(milliseconds=250)
"""So much before its time a run is sent to a worker, which waits for it."""

_ALWAYS = datetime.min.replace(tzinfo=UTC)


_T = TypeVar("_T")


def _as_it_is(_run: Run, report: Report) -> Report:
    return report


class Recorder:
    """Gates runs whose time has come, hands them to `start`, and records their reports.

    `sizes` is how many functions each pool runs at once. `may_start` says whether this node's
    lease still holds. `ended` is told of each run that reached its end, after the commit.
    `settle` decides whether a run is tried again, on the thread that reports. `exhausted` names
    the pools that can start nothing. `remote` are the pools whose runs `start` sends to workers,
    each with the seconds after which they are sent again; their size is how many may wait there.
    `named` says whether messages name runs that were sent here, and `look` finds those of them that
    may start; `settled` is told of runs that wait here no longer, whatever became of them.
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
        settle: Callable[[Run, Report], Report] = _as_it_is,
        exhausted: Callable[[], Collection[str]] = tuple,
        remote: Mapping[str, float] = EMPTY,
        named: Callable[[], bool] = lambda: False,
        look: Callable[[Connection], Iterable[Run]] = lambda _: (),
        settled: Callable[[Iterable[Run]], None] = lambda _: None,
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
        self._settle = settle
        self._exhausted = exhausted
        self._remote = remote
        self._named = named
        self._look = look
        self._settled = settled
        self._refused: deque[dispatch_rows.Refusal] = deque()
        self._sent: Counter[str] = Counter()  # and no worker has begun them
        self._lock = threading.Lock()
        self._order = count()
        self._waiting: dict[str, list[tuple[datetime, int, Run]]]  # a heap for each pool
        self._waiting = {pool: [] for pool in sizes}
        self._awaited: set[tuple[int, int]] = set()  # those of all heaps
        self._gating: list[Run] = []
        self._started: dict[tuple[int, int], Run] = {}  # gated, and not yet reported
        self._reports: deque[tuple[Run, Report]] = deque()
        self._released: deque[tuple[int, int]] = deque()
        self._recent: dict[str, deque[float]] = {pool: deque() for pool in sizes}
        self._turn = threading.Lock()  # held while a group is written
        self._closed = False
        self._doubted: set[int] = set()  # written once, with no answer

    # --- what other threads call ---

    def offer(self, runs: Iterable[Run]) -> None:
        """Take runs that this node has claimed; those it holds already are left out."""
        with self._lock:
            self._take_in(runs)
        self._wake()

    def _take_in(self, runs: Iterable[Run]) -> None:
        held = {(run.id, run.fence) for run in [*self._gating, *(run for run, _ in self._reports)]}
        for run in runs:
            key = run.id, run.fence
            if not (key in self._awaited or key in self._started or key in held):
                self._await(run)

    def _await(self, run: Run, at: datetime = _ALWAYS) -> None:
        entry = (max(run.due or at, at), next(self._order), run)
        heapq.heappush(self._waiting[run.pool], entry)
        self._awaited.add((run.id, run.fence))

    def _pop(self, waiting: list[tuple[datetime, int, Run]]) -> Run:
        run = heapq.heappop(waiting)[2]
        self._awaited.discard((run.id, run.fence))
        return run

    def began(self, run: Run) -> None:
        """Note that a worker has just begun a run."""
        self._recent[run.pool].append(self._clock.monotonic())

    def report(self, run: Run, report: Report) -> None:
        """Take what an attempt ended in."""
        report = self._settle(run, report)
        with self._lock:
            self._started.pop((run.id, run.fence), None)
            self._reports.append((run, report))
        self._wake()

    def release(self, run: Run) -> None:
        """Give back the slots of a run that ended before its thread."""
        self._released.append((run.id, run.fence))
        self._wake()

    def refuse(self, run: Run, reason: str, message: str) -> None:
        """Give back a run that cannot be sent, or cannot run where it was sent to."""
        self._refused.append(dispatch_rows.Refusal(run, reason, message))
        self._wake()

    def count_sent(self) -> None:
        """Look how many runs of each remote pool wait for a worker."""
        with self._store.ask() as questions:
            found = Counter(dispatch_rows.under_way(questions))
        with self._lock:
            more = any(found[pool] < self._sent[pool] for pool in self._remote)
            self._sent = found
        if more:
            self._wake()

    def drop(self, runs: Iterable[Run]) -> None:
        """Wait no longer with runs that somebody has cancelled meanwhile."""
        ended = {run.id: run for run in runs}
        if not ended:
            return
        with self._lock:
            gone: list[Run] = []
            for waiting in self._waiting.values():
                gone += [ended[run.id] for _, _, run in waiting if run.id in ended]
                waiting[:] = [entry for entry in waiting if entry[2].id not in ended]
                heapq.heapify(waiting)
            self._awaited = {key for key in self._awaited if key[0] not in ended}
        self._settled(gone)
        for run in gone:
            self._ended(run)

    def held(self) -> list[tuple[int, int]]:
        """Return the (run, fence) pairs that this node holds."""
        with self._lock:
            return self._held()

    def _held(self) -> list[tuple[int, int]]:
        runs = [*self._gating, *self._started.values(), *(run for run, _ in self._reports)]
        return [*self._awaited, *((run.id, run.fence) for run in runs)]

    def room(self) -> dict[str, int]:
        """Return how many more runs each pool can make use of: twice its free workers.

        And as many as were started in the last `WINDOW_S`. Those that wait for a later time,
        because of a splay, need no worker yet; those that wait here for their next attempt or
        for a slot may wait long and do not count. An exhausted pool has no room.
        """
        soon = self._clock.reached() + _SOON
        with self._lock:
            if self._closed:
                return {}
            started = Counter(run.pool for run in self._started.values())
            gating = Counter(run.pool for run in self._gating)
            room = dict.fromkeys(self._sizes, 0)
            for pool, size in self._open_pools():
                free = max(0, size - started[pool] - self._sent[pool])
                waiting = sum(
                    due <= soon and not (run.attempt or run.reason)
                    for due, _, run in self._waiting[pool]
                )
                free = free if pool in self._remote else 2 * free + self._window(pool)
                room[pool] = free - waiting - gating[pool]
            return room

    def _open_pools(self) -> list[tuple[str, int]]:
        exhausted = self._exhausted()
        return [(pool, size) for pool, size in self._sizes.items() if pool not in exhausted]

    def is_starting(self) -> bool:
        """Return whether a pool that starts runs right now has more that are due."""
        now = self._clock.reached()
        with self._lock:
            return any(
                waiting and waiting[0][0] <= now and self._window(pool) > 0
                for pool, waiting in self._waiting.items()
            )

    def running(self) -> list[Run]:
        """Return the runs whose function has been started and has not reported yet."""
        with self._lock:
            return list(self._started.values())

    def close(self) -> list[Run]:
        """Gate nothing more; return the claimed runs that were not started.

        Waits for the group that is being written, so that what it starts is `running`.
        """
        self._closed = True
        with self._turn, self._lock:
            unstarted = [run for waiting in self._waiting.values() for _, _, run in waiting]
            unstarted += self._gating
            for waiting in self._waiting.values():
                waiting.clear()
            self._awaited.clear()
            self._gating.clear()
        return unstarted

    # --- the writer's thread ---

    def step(self) -> float | None:
        """Write one group; return the seconds until there may be another."""
        with self._turn:
            reports, ready = self._take()
            if reports or ready or self._released or self._refused or self._named():
                self._write(reports, ready)
                if self._reports or any(self._waiting.values()):
                    return 0.0
        return self._until_next()

    def _take(self) -> tuple[list[tuple[Run, Report]], list[Run]]:
        now = self._clock.reached()
        with self._lock:
            reports = [self._reports[i] for i in range(min(len(self._reports), _GROUP))]
            for run in self._gating:  # a failed group: the clock or the lease may have moved on
                self._await(run)
            self._gating.clear()
            latest = now + _AHEAD if self._remote else now
            if any(waiting and waiting[0][0] <= latest for waiting in self._waiting.values()):
                self._choose(now)
            return reports, list(self._gating)

    def _choose(self, now: datetime) -> None:
        """Have the runs whose time has come gated, as far as their pools have room."""
        for pool, free in self._room().items():
            waiting = self._waiting[pool]
            horizon = now + _AHEAD if pool in self._remote else now
            for _ in range(free):
                if not waiting or waiting[0][0] > horizon:
                    break
                self._gating.append(self._pop(waiting))

    def _room(self) -> Mapping[str, int]:
        if self._closed or not self._may_start():
            return {}
        busy = Counter(run.pool for run in [*self._started.values(), *self._gating])
        room = {
            pool: size + self._window(pool) - busy[pool] - self._sent[pool]
            for pool, size in self._open_pools()
        }
        # Of those that are sent, the first are on their way while others are written.
        return {n: min(free, _GROUP) if n in self._remote else free for n, free in room.items()}

    def _window(self, pool: str) -> int:
        horizon = self._clock.monotonic() - WINDOW_S
        recent = self._recent[pool]
        while recent and recent[0] < horizon:
            recent.popleft()
        return len(recent)

    def _write(self, reports: list[tuple[Run, Report]], ready: list[Run]) -> None:
        """Commit one group. What fails to commit stays where it is and is tried again."""
        doubted = frozenset(self._doubted)
        released, refused = list(self._released), list(self._refused)
        with self._store.write() as connection:
            now = self._clock.read(connection)
            ready = ready + self._arrived(connection)
            self._doubted |= {run.id for run, _ in reports} | {run.id for run in ready}
            far = [run for run in ready if run.pool in self._remote] if self._remote else []
            near = [run for run in ready if run.pool not in self._remote] if far else ready
            early = [run for run in near if run.due is not None and run.due > now]
            lease_until = self._lease_until()
            changing = [*(run for run, _ in reports), *ready, *(run for run, *_ in refused)]
            held = run_rows.lock_holdings(connection, {run.id for run in changing})
            finished = run_rows.finish(connection, reports, now, lease_until, doubted, held)
            cancels.free_slots(connection, released)
            started, others = run_rows.gate(
                connection,
                [run for run in near if run not in early],
                now,
                lease_until,
                doubted,
                held,
            )
            lease_now = self._clock.lease_now()
            sent = dispatch_rows.dispatch(connection, far, lease_now, self._remote, held)
            back = dispatch_rows.hand_back(connection, refused, now, held)
            kept = {run.id for run in started + others + early + sent}
            gone = [run for run in ready if run.id not in kept]
            ends = run_rows.lock(connection, (run.id for run in gone)) if gone else {}
        self._doubted.clear()
        late: list[Run] = []
        if not self._may_start():  # the answer took a lease: who knows what is ours by now
            late, started = started, []
            self._doubted |= {run.id for run in late}
        again = [run for run in finished.values() if run.state is State.CLAIMED]
        with self._lock:
            _take_off(self._reports, reports)
            _take_off(self._released, released)
            _take_off(self._refused, refused)
            if sent:
                self._sent.update(run.pool for run in sent)
            self._gating.clear()
            for run in early + late + again:
                self._await(run)
            for run in others:
                if run.state is State.CLAIMED:  # its slot is taken
                    self._await(run, now + _LOOK_AGAIN)
            self._started.update(((run.id, run.fence), run) for run in started)
        for run in started + sent:
            self._start(run)
        waits = {run.id for run in early + late}
        self._settled([run for run in ready + [r for r, *_ in refused] if run.id not in waits])
        self._observe(reports, finished, started, others)
        self._observe_far(sent, back)
        for run in gone:  # rescued from this node before it could start, or cancelled
            self._ended(ends.get(run.id, run))

    def _arrived(self, connection: Connection) -> list[Run]:
        """Look what was sent here meanwhile; return what of it may start in this group."""
        if not self._named():
            return []
        found = self._look(connection)
        with self._lock:
            self._take_in(found)
            chosen = len(self._gating)
            self._choose(self._clock.reached())
            return self._gating[chosen:]

    def _observe(
        self,
        reports: list[tuple[Run, Report]],
        finished: dict[tuple[int, int], Run],
        started: list[Run],
        others: list[Run],
    ) -> None:
        for run, report in reports:
            run_now = finished.pop((run.id, run.fence), None)
            if run_now is None:
                self._observer.put("run_fenced", run=run, report=report)
                self._ended(replace(run, state=State.LOST, error="it was taken from this node"))
                continue
            self._observe_finish(run_now, report)
        for run in others:
            if run.state is State.SKIPPED:
                self._observer.put("tick_skipped", run=run)
                self._ended(run)
        for run in started:
            self._observer.put("run_started", run=run)

    def _observe_far(self, sent: Iterable[Run], back: Iterable[Run]) -> None:
        for run in sent:
            self._observer.put("run_dispatched", run=run)
        for run in back:
            self._observer.put("run_handed_back", run=run)

    def _observe_finish(self, run: Run, report: Report) -> None:
        if report.retry_after is not None:
            if run.state in {State.PENDING, State.CLAIMED}:
                self._observer.put("run_retrying", run=run, report=report, delay=report.retry_after)
                return
            report = replace(report, retry_after=None, message=run.message)  # somebody cancelled it
        if run.state is State.SKIPPED:
            self._observer.put("tick_skipped", run=run)
        else:
            self._observer.put(f"run_{report.outcome}", run=run, report=report)
        self._observer.put("run_finished", run=run, report=report)
        self._ended(run)

    def _until_next(self) -> float | None:
        with self._lock:
            first = min(
                (waiting[0][0] for waiting in self._waiting.values() if waiting), default=None
            )
            if first is None or self._closed:
                return None
            until = (first - self._clock.reached()).total_seconds()
            until -= _AHEAD.total_seconds() if self._remote else 0.0
        # At zero there is no room: a report or a renewed lease wakes us, or this does.
        return min(until, _LONGEST_WAIT_S) if until > 0 else WINDOW_S

    def flush(self) -> None:
        """Write all reports that have come in."""
        while self._reports or self._released or self._refused:
            self.step()


def _take_off(queue: deque[_T], written: Sequence[_T]) -> None:
    for _ in written:
        queue.popleft()


def cancelled(run: Run, now: datetime, why: str) -> Report:
    """Return the report of a run that was cut off."""
    return Report(State.CANCELLED, run.started or now, now, message=why)
