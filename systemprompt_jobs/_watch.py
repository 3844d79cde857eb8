"""Notices what operators have changed, in the audit: one small look, however many jobs there are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._store import control as control_rows

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._store import Store


class Watch:
    """Tells `changed` of the jobs that were paused, resumed or reset since it was made.

    And calls `reload` where somebody has asked all schedulers to read their configuration again.

    On PostgreSQL a transaction that took its number early and commits late may be overlooked:
    a claim looks at the job's row anyway, and at a paused job again after some minutes.
    """

    def __init__(
        self,
        store: Store,
        changed: Callable[[set[str]], None],
        reload: Callable[[], object] = lambda: None,
    ) -> None:
        self._store = store
        self._changed = changed
        self._reload = reload
        with store.read() as connection:
            self._seen = control_rows.newest_audit(connection)

    def step(self, newest: int) -> None:
        """Look at what came since, up to the `newest` entry of the audit."""
        if newest <= self._seen:
            return
        with self._store.read() as connection:
            self._seen, jobs, reload = control_rows.changed_after(connection, self._seen)
        if jobs:
            self._changed(jobs)
        if reload:
            self._reload()
