"""Forgets old history, a batch at a time, so that nobody has to wait for it.

A pass asks the primary key where old runs end, then walks the jobs; where nothing is old it is
one statement. What a pass deletes has ended, so it needs no lock against those who run things,
and two nodes that prune at once do no harm.
"""

from __future__ import annotations

import random
import threading
from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import structlog

from ._clock import boot_id
from ._store import jobs as job_rows
from ._store import pruning
from ._store.schema import EPOCH
from .model import Pruned

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from sqlalchemy import Connection

    from ._observe import Observer
    from ._store import Store, StoreClock

BATCH = 500
"""Rows per transaction."""

_REST = 4
"""A pause is this many times as long as the batch before it: others have the write lock then."""

_LEAST_PAUSE_S = 0.02

_FIRST_S, _FIRST_SPREAD_S = 60.0, 540.0
"""A node's first pass comes 1 to 10 minutes after its start, so that nodes do not meet."""

_EVERY_S, _SPREAD_S = 3300.0, 600.0

_JUMP = timedelta(hours=1)
"""A clock that went ahead of the monotonic one by more may be wrong: wait for the next pass."""

_COMMANDS = timedelta(days=1)
"""How long to remember processes that ran something by hand: there may be one each minute."""


@dataclass(frozen=True, slots=True)
class Retention:
    """What is kept: what ended within `age`, and of each job the `runs` newest rows."""

    age: timedelta = timedelta(days=30)
    runs: int = 100


def _before(now: datetime, age: timedelta) -> datetime:
    return now - min(age, now - EPOCH)


_log = structlog.get_logger("systemprompt_jobs")
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class _Pass:
    """One pass over the history as it was at `now`."""

    store: Store
    clock: StoreClock
    retention: Retention
    now: datetime

    @property
    def cutoff(self) -> datetime:
        """What ended before this is old."""
        return _before(self.now, self.retention.age)

    def bounds(self) -> Iterator[pruning.Bounds]:
        """Yield which runs may go, a few hundred jobs at a time."""
        with self.store.read() as connection:
            first_young = pruning.first_young_run(connection, self.cutoff)
        after: str | None = ""
        while first_young and after is not None:
            with self.store.read() as connection:
                bounds, after = pruning.spare_runs(
                    connection, after, first_young, self.retention.runs
                )
            if bounds:
                yield bounds

    def node_limits(self) -> pruning.NodeLimits:
        """Return which nodes are gone for long."""
        commands = _before(self.now, min(_COMMANDS, self.retention.age))
        boot = boot_id() if self.store.one_host else ""
        return pruning.NodeLimits(self.cutoff, commands, self.clock.lease_now(), boot)

    def delete(self) -> Iterator[Pruned]:
        """Delete what is old; yield after each batch what it deleted."""
        cutoff = self.cutoff
        for bounds in self.bounds():
            old = partial(pruning.old_runs, bounds=bounds, cutoff=cutoff, limit=BATCH)
            for gone in self._all(old, pruning.delete_runs):
                yield Pruned(cutoff, Counter(job_id for _, job_id in gone))
        old_nodes = partial(pruning.gone_nodes, limits=self.node_limits(), limit=BATCH)
        for nodes in self._all(old_nodes, pruning.delete_nodes):
            yield Pruned(cutoff, nodes=len(nodes))
        old_audits = partial(pruning.old_audits, cutoff=cutoff, limit=BATCH)
        for audits in self._all(old_audits, pruning.delete_audits):
            yield Pruned(cutoff, audits=len(audits))

    def _all(
        self,
        find: Callable[[Connection], list[_T]],
        delete: Callable[[Connection, list[_T]], list[_T]],
    ) -> Iterator[list[_T]]:
        """Delete what is found until nothing is, each batch in a short transaction of its own."""
        full = True
        while full:
            with self.store.read() as connection:
                found = find(connection)
            full = len(found) == BATCH
            gone: list[_T] = []
            if found:
                with self.store.write() as connection:
                    gone = delete(connection, found)
            yield gone

    def count(self) -> Pruned:
        """Count what is old."""
        found = Pruned(self.cutoff)
        for bounds in self.bounds():
            with self.store.read() as connection:
                found += Pruned(
                    self.cutoff, pruning.count_old_runs(connection, bounds, self.cutoff)
                )
        with self.store.read() as connection:
            nodes = pruning.gone_nodes(connection, self.node_limits(), limit=None)
            audits = pruning.count_old_audits(connection, self.cutoff)
        return found + Pruned(self.cutoff, nodes=len(nodes), audits=audits)


def count_old(store: Store, clock: StoreClock, retention: Retention) -> Pruned:
    """Return what a pass would delete now."""
    return _new_pass(store, clock, retention).count()


def delete_old(store: Store, clock: StoreClock, retention: Retention, who: str) -> Pruned:
    """Delete what is old now, with pauses in which others write; return what it was."""
    forgetting = _new_pass(store, clock, retention)
    note = f"what ended before {forgetting.cutoff:%Y-%m-%d %H:%M:%S}, but {retention.runs} per job"
    with store.write() as connection:
        job_rows.add_audit(connection, forgetting.now, who, "prune", "history", note)
    total, condition = Pruned(forgetting.cutoff), threading.Condition()
    began = clock.monotonic()
    for gone in forgetting.delete():
        total += gone
        with condition:
            clock.wait(condition, _pause(clock.monotonic() - began))
        began = clock.monotonic()
    return total


def _new_pass(store: Store, clock: StoreClock, retention: Retention) -> _Pass:
    with store.read() as connection:
        return _Pass(store, clock, retention, clock.read(connection))


def _pause(took_s: float) -> float:
    return max(_LEAST_PAUSE_S, _REST * took_s)


class Pruner:
    """Makes a pass about every hour. `jitter` returns numbers from 0 to 1."""

    def __init__(
        self,
        store: Store,
        clock: StoreClock,
        retention: Retention,
        observer: Observer,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._store = store
        self._clock = clock
        self._retention = retention
        self._observer = observer
        self._jitter = jitter
        self._due = clock.monotonic() + _FIRST_S + _FIRST_SPREAD_S * jitter()
        self._seen = (clock.now(), clock.monotonic())
        self._batches: Iterator[Pruned] | None = None
        self._total: Pruned | None = None

    def step(self) -> float:
        """Delete one batch if a pass is due; return the seconds until the next step."""
        began = self._clock.monotonic()
        if self._batches is None:
            if began < self._due:
                return self._due - began
            self._begin()
        gone = self._next()
        if gone is None:
            self._due = began + _EVERY_S + _SPREAD_S * self._jitter()
            return self._due - began
        self._total = gone if self._total is None else self._total + gone
        return _pause(self._clock.monotonic() - began)

    def _begin(self) -> None:
        """Begin a pass, unless the clock may be wrong: what is old could be young."""
        forgetting = _new_pass(self._store, self._clock, self._retention)
        before, then = self._seen
        self._seen = (forgetting.now, self._clock.monotonic())
        ahead = forgetting.now - before - timedelta(seconds=self._seen[1] - then)
        if ahead > _JUMP:
            _log.warning("pruning_postponed", clock_ahead_s=round(ahead.total_seconds()))
            self._batches = iter(())
        else:
            self._batches = forgetting.delete()

    def _next(self) -> Pruned | None:
        """Return what the next batch deleted, None after the last one."""
        assert self._batches is not None  # noqa: S101  # the caller has begun
        try:
            return next(self._batches)
        except StopIteration:
            self._batches = None
        except BaseException:
            self._batches = None  # tried again from the start; what is deleted stays so
            raise
        total, self._total = self._total, None
        if total:
            observe(self._observer, total)
        return None


def observe(observer: Observer, pruned: Pruned) -> None:
    """Tell plugins what was forgotten."""
    observer.put(
        "history_pruned",
        runs=pruned.runs,
        nodes=pruned.nodes,
        audits=pruned.audits,
        before=pruned.before,
    )
