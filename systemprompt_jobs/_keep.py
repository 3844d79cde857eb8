"""Keeps this node's leases alive and settles the runs of nodes that have died."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from ._clock import boot_id
from ._store import nodes as node_rows
from ._store import runs as run_rows
from .model import Report, State

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ._observe import Observer
    from ._store import Store, StoreClock
    from .model import Node, Run

_PENDING_EVERY_S = 1.0

_MAX_OFFSET = timedelta(seconds=1)


class Keeper:
    """Heartbeats, rescues and takes over pending runs, at most `room()` of each pool at once.

    A lease counts from the sending of the last heartbeat that succeeded. A run is rescued only
    if its lease was seen expired and unchanged at two looks a third of a lease apart, with no
    failed statement between: so an outage never expires everything at once.
    """

    def __init__(
        self,
        store: Store,
        node: Node,
        clock: StoreClock,
        lease_s: float,
        *,
        pools: Mapping[str, str],
        held: Callable[[], list[tuple[int, int]]],
        room: Callable[[], Mapping[str, int]],
        took: Callable[[list[Run]], None],
        observer: Observer,
    ) -> None:
        self._store = store
        self._node = node
        self._clock = clock
        self._lease_s = lease_s
        self._pools = pools
        self._held = held
        self._room = room
        self._took = took
        self._observer = observer
        self._boot = boot_id() if store.one_host else ""
        self._skewed = False
        self._in_doubt = False
        self._renewed = float("-inf")
        self._suspects: set[tuple[int, int, int]] = set()

    def lease_until(self) -> int:
        """Return the end of a lease taken now, in the microseconds of `StoreClock.lease_now`."""
        return self._clock.lease_now() + int(self._lease_s * 1_000_000)

    def may_start(self) -> bool:
        """Return whether this node's lease still holds."""
        return self._clock.monotonic() < self._renewed + self._lease_s

    def join(self, kind: str, sizes: Mapping[str, int], job_set: str) -> None:
        """Register the node. `kind` is `scheduler` or `command`; `sizes` are those of its pools."""
        sent = self._clock.monotonic()
        with self._store.write() as connection:
            now = self._clock.read(connection)
            node_rows.join(
                connection,
                {
                    "id": self._node.id,
                    "host": self._node.host,
                    "pid": self._node.pid,
                    "boot": self._boot,
                    "kind": kind,
                    "version": self._node.version,
                    "job_set": job_set,
                    "workers": sum(sizes.values()),
                    "pools": dict(sizes),
                    "clock_offset": self._clock.offset,
                    "started": now,
                    "heartbeat": now,
                    "lease_until": self.lease_until(),
                },
            )
        self._renewed = sent
        self._compare_clocks()

    def leave(self) -> None:
        """Say that the node has stopped by itself."""
        with self._store.write() as connection:
            node_rows.leave(connection, self._node.id, self._clock.read(connection))

    def step(self) -> float | None:
        """Do what is due; return the seconds until the next time."""
        try:
            if self._clock.monotonic() >= self._renewed + self._lease_s / 3:
                self._beat()
                self._rescue()
            self._take_pending()
        except Exception:
            self._suspects.clear()
            raise
        return min(_PENDING_EVERY_S, self._lease_s / 3)

    def _beat(self) -> None:
        sent = self._clock.monotonic()
        with self._store.write() as connection:
            now = self._clock.read(connection)
            node_rows.beat(connection, self._node.id, now, self.lease_until(), self._clock.offset)
            run_rows.renew(connection, self._held(), self.lease_until())
        self._renewed = sent
        self._compare_clocks()

    def _compare_clocks(self) -> None:
        """Warn when the node's own clock has come to differ too much from the database's."""
        offset = self._clock.offset or timedelta(0)
        skewed = abs(offset) > _MAX_OFFSET
        if skewed and not self._skewed:
            self._observer.put("clock_skewed", node=self._node, offset=offset)
        self._skewed = skewed

    def _rescue(self) -> None:
        with self._store.read() as connection:
            seen = set(run_rows.expired(connection, self._clock.lease_now(), self._boot))
        dead = seen & self._suspects
        self._suspects = seen - dead
        if not dead:
            return
        with self._store.write() as connection:
            lost = run_rows.rescue(connection, dead, self._clock.read(connection))
        for run in lost:
            self._observer.put("run_lost", run=run)
            self._observer.put("run_finished", run=run, report=None)

    def _take_pending(self) -> None:
        if self._in_doubt:  # a claim whose commit was never answered
            with self._store.write() as connection:
                claimed = run_rows.claimed_by(connection, self._node.id)
            self._in_doubt = False
            self._took(claimed)
        now, room = self._clock.now(), self._room()
        if not any(free > 0 for free in room.values()):
            return
        with self._store.read() as connection:
            if not run_rows.any_pending(connection, now):
                return
        self._in_doubt = True
        with self._store.write() as connection:
            now = self._clock.read(connection)
            given_up = run_rows.give_up_pending(connection, now)
            runs = run_rows.take_pending(
                connection, self._pools, self._node.id, now, self.lease_until(), room
            )
        self._in_doubt = False
        for run in given_up:
            self._observe_given_up(run)
        self._took(runs)

    def _observe_given_up(self, run: Run) -> None:
        if run.state is State.MISSED:
            self._observer.put("tick_missed", run=run)
            return
        at = run.finished or self._clock.now()
        report = Report(State.CANCELLED, at, at, message=run.message)
        self._observer.put("run_cancelled", run=run, report=report)
