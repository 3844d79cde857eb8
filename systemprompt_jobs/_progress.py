"""Writes down what running attempts say, once a second, for all of them in one transaction."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ._said import Said
from ._store import said as said_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ._observe import Observer
    from ._store import Store, StoreClock
    from ._store.said import Words
    from .model import Progress, Report, Run

EVERY_S = 0.9
"""So that what is said can be seen within a second, the commit included."""


_Key = tuple[int, int]
"""Run and fence."""


class Scribe:
    """Knows what the node's running attempts say. `wake` is called when one speaks again.

    Most attempts say nothing: they cost no step.
    """

    def __init__(
        self, store: Store, observer: Observer, clock: StoreClock, wake: Callable[[], None]
    ) -> None:
        self._store = store
        self._observer = observer
        self._clock = clock
        self._wake = wake
        self._attempts: dict[_Key, tuple[Run, Said]] = {}
        self._resting = True
        self._progress: dict[_Key, tuple[Run, Progress]] = {}  # not committed yet, as is
        self._words: dict[_Key, tuple[Run, Words]] = {}

    def listen(self, run: Run) -> Said:
        """Return what collects what an attempt that begins says. Any thread may call."""
        said = Said(run, self._hear)
        self._attempts[run.id, run.fence] = run, said
        return said

    def _hear(self) -> None:
        if self._resting:
            self._resting = False
            self._wake()

    def complete(self, run: Run, report: Report) -> Report:
        """Return the report of an attempt that has ended with all that it said."""
        found = self._attempts.pop((run.id, run.fence), None)
        return report if found is None else found[1].onto(report)

    def step(self) -> float | None:
        """Write down what is new; return the seconds until the next time."""
        if not self._attempts:
            self._resting = True
            return None if not self._attempts else 0.0  # one may have come in between
        self._gather()
        if self._progress or self._words:
            with self._store.write() as connection:
                running = said_rows.write(
                    connection, [*self._progress.values()], [*self._words.values()]
                )
            self._observe([told for key, told in self._progress.items() if key in running])
            self._progress.clear()
            self._words.clear()
        return EVERY_S

    def _gather(self) -> None:
        """Lay what is new over what a failed commit left."""
        now = self._clock.now()
        for key, (run, said) in [*self._attempts.items()]:
            if progress := said.new_progress(now):
                self._progress[key] = run, progress
            if words := said.new_words():
                self._words[key] = run, words

    def _observe(self, told: Iterable[tuple[Run, Progress]]) -> None:
        for run, progress in told:
            run_now = replace(run, progress=progress)
            self._observer.put("run_progressed", run=run_now, progress=progress)
