"""Keeps this node's leases alive and settles the runs of nodes that have died."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING

from ._clock import boot_id
from ._doubt import Doubt
from ._store import cancels, polls
from ._store import nodes as node_rows
from ._store import pending as pending_rows
from ._store import plans as plan_rows
from ._store import runs as run_rows
from ._whose import set_hash
from .model import Report, State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from collections.abc import Set as AbstractSet
    from datetime import datetime
    from typing import Any

    from sqlalchemy import Connection

    from ._interrupt import Interrupter
    from ._observe import Observer
    from ._store import Store, StoreClock
    from .model import Node, Run

_PENDING_EVERY_S = 1.0

_MOST = 500
"""Runs of a pool to take over at once: the first are on their way while others are taken."""

_MAX_OFFSET = timedelta(seconds=1)


class Keeper:
    """Heartbeats, rescues, takes over pending runs, and hears of cancels.

    Takes over at most `room()` of each pool at once; `pools` names the pool of each job. `watch` is
    told each time which entry of the audit is the newest, `count_sent` counts what waits for
    workers.

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
        fingerprints: Mapping[str, str],
        pools: Mapping[str, str],
        held: Callable[[], list[tuple[int, int]]],
        room: Callable[[], Mapping[str, int]],
        took: Callable[[list[Run]], None],
        drop: Callable[[Iterable[Run]], None],
        observer: Observer,
        watch: Callable[[int], None] = lambda _: None,
        count_sent: Callable[[], None] = lambda: None,
        interrupter: Interrupter,
    ) -> None:
        self._store = store
        self._node = node
        self._clock = clock
        self._lease_s = lease_s
        self._fingerprints = fingerprints
        self._job_set = set_hash(fingerprints)
        self._pools = pools
        self._held = held
        self._room = room
        self._took = took
        self._drop = drop
        self._observer = observer
        self._watch = watch
        self._count_sent = count_sent
        self._interrupter = interrupter
        self.problem = ""
        """What is wrong with the configuration that the node was last told to read."""
        self._boot = boot_id() if store.one_host else ""
        self._skewed = False
        self._doubt = Doubt(store)
        self._crowded: AbstractSet[str] = frozenset()
        self._renewed = self._looked = float("-inf")
        self._values: dict[str, Any] = {}
        self._suspects: set[tuple[int, int, int]] = set()
        self._silent: set[tuple[Node, int]] = set()
        self._orphans: set[tuple[int, int]] = set()

    @property
    def crowded(self) -> AbstractSet[str]:
        """The pools for whose room on this node pending runs may wait."""
        return self._crowded

    def lease_until(self) -> int:
        """Return the end of a lease taken now, in the microseconds of `StoreClock.lease_now`."""
        return self._clock.lease_now() + int(self._lease_s * 1_000_000)

    def may_start(self) -> bool:
        """Return whether this node's lease still holds."""
        return self.lease_left() > 0

    def lease_left(self) -> float:
        """Return the seconds until this node's lease runs out."""
        return self._renewed + self._lease_s - self._clock.monotonic()

    def join(self, kind: str, sizes: Mapping[str, int]) -> None:
        """Register the node, then its jobs.

        `kind` is `scheduler`, `worker` or `command`; `sizes` are those of its pools.
        """
        sent = self._clock.monotonic()
        self._values = {
            "id": self._node.id,
            "host": self._node.host,
            "pid": self._node.pid,
            "boot": self._boot,
            "kind": kind,
            "version": self._node.version,
            "workers": sum(sizes.values()),
            "pools": dict(sizes),
        }
        with self._store.write() as connection:
            self._enter(connection, self._clock.read(connection))
        # Not before its node can be seen: sets that no node names are pruned.
        with self._store.write() as connection:
            plan_rows.add_set(connection, self._job_set, self._fingerprints)
        self._renewed = self._looked = sent
        self._compare_clocks()

    def _enter(self, connection: Connection, now: datetime) -> None:
        changing = {
            "job_set": self._job_set,
            "clock_offset": self._clock.offset,
            "started": now,
            "heartbeat": now,
            "lease_until": self.lease_until(),
        }
        node_rows.join(connection, self._values | changing)

    def reload(self, fingerprints: Mapping[str, str], pools: Mapping[str, str]) -> None:
        """Say that the node has other plans from now on."""
        digest = set_hash(fingerprints)
        with self._store.write() as connection:
            node_rows.rename_set(connection, self._node.id, digest)
            plan_rows.add_set(connection, digest, fingerprints)
        self._job_set, self._fingerprints, self._pools = digest, fingerprints, pools

    def leave(self) -> None:
        """Say that the node has stopped by itself."""
        with self._store.write() as connection:
            node_rows.leave(connection, self._node.id, self._clock.read(connection))

    def step(self) -> float | None:
        """Do what is due; return the seconds until the next time."""
        try:
            self._tell(self._doubt.settle())
            if self._clock.monotonic() >= self._renewed + self._lease_s / 3:
                self._beat()
            if self._until_look() <= 0:
                self._look_for_the_dead()
            held = self._held()
            self._count_sent()
            if held:
                self._cancel(self._unwanted(held))
            with self._store.ask() as questions:
                news = polls.look(questions, self._job_set, self._clock.now())
            more = self._take_pending(waits=news.pending)
            self._watch(news.audit)
        except Exception:
            self._suspects.clear()
            self._silent.clear()
            self._orphans.clear()
            raise
        return 0.0 if more else min(_PENDING_EVERY_S, max(0.0, self._until_look()))

    def _until_look(self) -> float:
        """Return the seconds until the next look for the dead.

        They count from the last one's answers: a slow heartbeat brings no two looks together.
        """
        return self._looked + self._lease_s / 3 - self._clock.monotonic()

    def _beat(self) -> None:
        sent = self._clock.monotonic()
        with self._doubt.write() as connection:
            now = self._clock.read(connection)
            overdue = sent > self._renewed + self._lease_s
            buried = overdue and node_rows.has_stopped(connection, self._node.id)
            strays = len(self._interrupter.strays())
            until, offset = self.lease_until(), self._clock.offset
            known = node_rows.beat(
                connection, self._node.id, now, until, offset, strays, self.problem
            )
            if not known:
                self._enter(connection, now)
                plan_rows.add_set(connection, self._job_set, self._fingerprints)
                buried = True
            run_rows.renew(connection, self._held(), self.lease_until())
            given_up = self._doubt.wrote(pending_rows.give_up_pending(connection, now))
        self._renewed = sent
        self._tell(given_up)
        if buried:
            self._observer.put("node_joined", node=self._node)
        self._compare_clocks()

    def _compare_clocks(self) -> None:
        """Warn when the node's own clock has come to differ too much from the database's."""
        offset = self._clock.offset or timedelta(0)
        skewed = abs(offset) > _MAX_OFFSET
        if skewed and not self._skewed:
            self._observer.put("clock_skewed", node=self._node, offset=offset)
        self._skewed = skewed

    def _look_for_the_dead(self) -> None:
        """Take for dead what was silent at the last look too, and settle what it has left."""
        now, boot = self._clock.lease_now(), self._boot
        with self._store.ask() as questions:
            expired = set(run_rows.expired(questions, now, boot))
            orphans = cancels.orphaned_slots(questions, now, boot)
            silent = set(node_rows.silent(questions, now, boot))
        self._looked = self._clock.monotonic()
        self._free_slots(orphans & self._orphans)
        self._orphans = orphans
        lost = expired & self._suspects
        self._suspects = expired - lost
        self._rescue(lost)
        dead = silent & self._silent
        self._silent = silent - dead
        self._bury(dead)

    def _rescue(self, lost: set[tuple[int, int, int]]) -> None:
        """Settle the runs of dead nodes."""
        if not lost:
            return
        with self._doubt.write() as connection:
            now = self._clock.read(connection)
            settled = self._doubt.wrote(run_rows.rescue(connection, lost, now))
        self._tell(settled)

    def _bury(self, dead: set[tuple[Node, int]]) -> None:
        """Note which schedulers and workers have died; one node alone observes it."""
        if not dead:
            return
        with self._store.write() as connection:
            buried = node_rows.bury(connection, dead, self._clock.read(connection))
        for node in buried:
            self._observer.put("node_left", node=node)

    def _free_slots(self, orphans: set[tuple[int, int]]) -> None:
        """Give back what the strays of dead nodes held, seen twice like their runs."""
        if orphans:
            with self._store.write() as connection:
                cancels.free_slots(connection, orphans)

    def _unwanted(self, held: Iterable[tuple[int, int]]) -> list[Run]:
        with self._store.read() as connection:
            return cancels.requests(connection, [id_ for id_, _ in held])

    def _cancel(self, unwanted: list[Run]) -> None:
        """End the runs of this node that somebody has cancelled."""
        running = [run for run in unwanted if run.state is State.RUNNING]
        self._interrupter.cancel((run.id, run.fence, run.message) for run in running)
        self._drop(run for run in unwanted if run.state is State.CANCELLED)

    def _take_pending(self, *, waits: bool) -> bool:
        """Return whether there may be more to take right now."""
        room = {pool: min(free, _MOST) for pool, free in self._room().items()} if waits else {}
        self._crowded = {pool for pool, free in room.items() if free <= 0}
        if len(self._crowded) == len(room):
            return False
        with self._doubt.write() as connection:
            now = self._clock.read(connection)
            runs = pending_rows.take_pending(
                connection,
                self._job_set,
                self._pools,
                self._node.id,
                now,
                self.lease_until(),
                room,
            )
            self._doubt.wrote(runs)
        self._tell(runs)
        taken = Counter(run.pool for run in runs)
        self._crowded = {pool for pool, free in room.items() if taken[pool] >= free}
        return _MOST in taken.values()

    def _tell(self, runs: list[Run]) -> None:
        """Hand on what a transaction has written."""
        for run in runs:
            if run.state is State.LOST:
                self._observer.put("run_lost", run=run)
                self._observer.put("run_finished", run=run, report=None)
            elif run.state is State.PENDING:
                self._tell_rescued(run)
            elif run.state is State.MISSED:
                self._observer.put("tick_missed", run=run)
            elif run.finished is not None:
                self._tell_given_up(run, run.finished)
        claimed = [run for run in runs if run.state is State.CLAIMED]
        if claimed:
            self._took(claimed)

    def _tell_rescued(self, run: Run) -> None:
        if run.attempt:
            report = run_rows.lost_report(run, self._clock.now())
            self._observer.put("run_retrying", run=run, report=report, delay=timedelta())
        else:
            self._observer.put("run_rescued", run=run)

    def _tell_given_up(self, run: Run, at: datetime) -> None:
        report = Report(run.state, run.started or at, at, message=run.message, error=run.error)
        self._observer.put(f"run_{run.state}", run=run, report=report)
        if run.attempt:
            self._observer.put("run_finished", run=run, report=report)
