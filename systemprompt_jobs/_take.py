"""A worker's way in: messages name runs that were sent, and those that still are go to the gate."""

from __future__ import annotations

import threading
from collections import defaultdict
from typing import TYPE_CHECKING

from ._store import dispatch as dispatch_rows
from .model import changed

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from sqlalchemy import Connection

    from .model import Node, Run

_Key = tuple[int, int]
"""Run and fence."""


class Taker:
    """Finds the runs that messages name. Any thread may call `take`, the writer's the rest.

    `refuse` takes those whose job is not among `jobs`, with a word and a sentence; `wake` has the
    writer look.
    """

    def __init__(
        self,
        node: Node,
        jobs: Collection[str],
        *,
        refuse: Callable[[Run, str, str], None],
        wake: Callable[[], None],
    ) -> None:
        self._node = node
        self._jobs = jobs
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

    def named(self) -> bool:
        """Return whether runs were named since the last look."""
        return bool(self._new)

    def look(self, connection: Connection) -> list[Run]:
        """Return those of the runs named since that may start here.

        A look that fails is tried again.
        """
        with self._lock:
            wanted = dict(self._new)
        found = dispatch_rows.dispatched(connection, wanted.keys())
        with self._lock:
            for key in wanted:
                del self._new[key]
        runs = [changed(r, node=self._node.id, pool=wanted[r.id, r.fence]) for r in found]
        self._tell(wanted.keys() - {(run.id, run.fence) for run in runs})
        for run in runs:
            if run.job_id not in self._jobs:
                why = f"{self._node.id} does not have {run.job_id}: is its plugin installed there?"
                self._refuse(run, "no plugin", why)
        return [run for run in runs if run.job_id in self._jobs]

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
