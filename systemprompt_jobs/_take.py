"""A worker's way in: messages name runs that were sent, and those that still are go to the gate."""

from __future__ import annotations

import threading
from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING

from ._store import dispatch as dispatch_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from ._store import Store
    from .model import Node, Run

_Key = tuple[int, int]
"""Run and fence."""


class Taker:
    """Finds the runs that messages name. Any thread may call `take`, one calls `step`.

    `offer` takes those that may start here; `refuse` those whose job is not among `jobs`, with a
    word and a sentence; `wake` has `step` called.
    """

    def __init__(
        self,
        store: Store,
        node: Node,
        jobs: Collection[str],
        *,
        offer: Callable[[Iterable[Run]], None],
        refuse: Callable[[Run, str, str], None],
        wake: Callable[[], None],
    ) -> None:
        self._store = store
        self._node = node
        self._jobs = jobs
        self._offer = offer
        self._refuse = refuse
        self._wake = wake
        self._lock = threading.Lock()
        self._new: dict[_Key, str] = {}
        self._told: defaultdict[_Key, list[Callable[[], None]]] = defaultdict(list)

    def take(self, key: _Key, pool: str, settled: Callable[[], None]) -> None:
        """Look soon what becomes of a run; `settled` is called when its message is done with."""
        with self._lock:
            self._new[key] = pool
            self._told[key].append(settled)
        self._wake()

    def step(self) -> bool:
        """Look at all that was named since, and say if anything was; a failed look is tried again."""
        with self._lock:
            wanted = dict(self._new)
        if not wanted:
            return False
        with self._store.read() as connection:
            found = dispatch_rows.dispatched(connection, wanted.keys())
        with self._lock:
            for key in wanted:
                del self._new[key]
        runs = [replace(r, node=self._node.id, pool=wanted[r.id, r.fence]) for r in found]
        stale = wanted.keys() - {(run.id, run.fence) for run in runs}
        self._tell(stale)
        for run in runs:
            if run.job_id not in self._jobs:
                why = f"{self._node.id} does not have {run.job_id}: is its plugin installed there?"
                self._refuse(run, "no plugin", why)
        self._offer(run for run in runs if run.job_id in self._jobs)
        return True

    def settled(self, runs: Iterable[Run]) -> None:
        """Note that these have started here, or will not."""
        self._tell((run.id, run.fence) for run in runs)

    def _tell(self, keys: Iterable[_Key]) -> None:
        if not self._told:  # no message names a run before it is told of here
            return
        with self._lock:
            told = [call for key in keys for call in self._told.pop(key, ())]
        for call in told:
            call()
