"""Writes down what running attempts say, once a second, for all of them in one transaction."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ._said import Said
from ._store import said as said_rows

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._observe import Observer
    from ._store import Store, StoreClock
    from .model import Report, Run

EVERY_S = 0.9
"""So that what is said can be seen within a second, the commit included."""


class Scribe:
    """Knows what the node's running attempts say. `wake` is called when there are some again."""

    def __init__(
        self, store: Store, observer: Observer, clock: StoreClock, wake: Callable[[], None]
    ) -> None:
        self._store = store
        self._observer = observer
        self._clock = clock
        self._wake = wake
        self._attempts: dict[tuple[int, int], tuple[Run, Said]] = {}
        self._resting = True

    def listen(self, run: Run) -> Said:
        """Return what collects what an attempt that begins says. Any thread may call."""
        said = Said(run)
        self._attempts[run.id, run.fence] = run, said
        if self._resting:
            self._resting = False
            self._wake()
        return said

    def complete(self, run: Run, report: Report) -> Report:
        """Return the report of an attempt that has ended with all that it said."""
        found = self._attempts.pop((run.id, run.fence), None)
        return report if found is None else found[1].onto(report)

    def step(self) -> float | None:
        """Write down what is new; return the seconds until the next time."""
        if not self._attempts:
            self._resting = True
            return None if not self._attempts else 0.0  # one may have come in between
        now = self._clock.now()
        attempts = [*self._attempts.values()]
        progress = [(run, p) for run, said in attempts if (p := said.new_progress(now))]
        words = [(run, w) for run, said in attempts if (w := said.new_words())]
        if progress or words:
            with self._store.write() as connection:
                running = said_rows.write(connection, progress, words)
            for run, latest in progress:
                if (run.id, run.fence) in running:
                    run_now = replace(run, progress=latest)
                    self._observer.put("run_progressed", run=run_now, progress=latest)
        return EVERY_S
