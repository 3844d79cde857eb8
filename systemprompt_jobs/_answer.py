"""What a `Runtime` answers of runs, nodes and numbers, made of what the database says."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from ._load import Loaded, own_ids
from .errors import UnknownJobError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from .model import (
        AttemptOverview,
        AuditEntry,
        Backlog,
        Glance,
        JobStats,
        NodeOverview,
        Run,
    )


class Answers(Loaded):
    """What is on record; where there is no database yet, nothing is."""

    def history(
        self,
        *,
        job: str | None = None,
        states: Sequence[str] | None = None,
        tag: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        node: str | None = None,
        text: str | None = None,
        before: int | None = None,
        limit: int = 20,
    ) -> list[Run]:
        """Return the newest runs, newest first.

        `job` is the name of a job as `find` takes it, or the id of one that is gone; the history
        of its aliases is its own. Raises UnknownJobError, AmbiguousJobError and StoreError.
        `tag`: of installed jobs with it. `since`, `until`: those whose time, from the tick to
        the end, overlaps. `node`: of nodes whose id begins so. `text`: that say this in error or
        message, in small or capital letters. `before`: older than the run of this id.
        """
        from ._store import queries

        ids = self._ids(job)
        if not self._readable():
            return []
        if tag is not None:
            tagged = {id_ for p in self.plans if tag in p.job.tags for id_ in own_ids(p)}
            ids = sorted(tagged if ids is None else tagged & {*ids})
        wanted = queries.Wanted(since, until, node, text, before)
        with self._store.read() as connection:
            return queries.history(connection, ids, states, limit, wanted)

    def find_run(self, number: int) -> Run:
        """Return the run of this id. Raises UsageError."""
        from ._store import queries

        found = None
        if self._readable():
            with self._store.read() as connection:
                found = queries.find_run(connection, number)
        if found is None:
            raise UsageError(f"there is no run {number}; see `history` for the newest ones")
        return found

    def attempts(self, run: Run) -> list[AttemptOverview]:
        """Return the attempts of a run, oldest first, with what each has logged so far."""
        from ._said import split_log
        from ._store import said

        if not self._readable():
            return []
        with self._store.read() as connection:
            found = said.attempts_of(connection, run.id)
        return [
            replace(attempt, log=log, log_cut=cut)
            for attempt in found
            for cut, log in [split_log(attempt.log)]
        ]

    def traceback(self, run: Run) -> str:
        """Return the traceback of the run's last attempt, empty if there is none."""
        from ._store import queries

        with self._store.read() as connection:
            return queries.traceback_of(connection, run.id)

    def known_ids(self) -> list[str]:
        """Return the ids of all jobs that are installed or in the history."""
        from ._store import queries

        installed = {plan.id for plan in self.plans}
        if not self._readable():
            return sorted(installed)
        with self._store.read() as connection:
            return sorted(installed | queries.job_ids(connection))

    def last_in(self, *states: str) -> set[str]:
        """Return the jobs whose newest run is in one of these states."""
        from ._store import queries

        if not self._readable():
            return set()
        with self._store.read() as connection:
            return queries.last_in(connection, states)

    def counts(self, since: timedelta = timedelta(days=1)) -> Mapping[str, int]:
        """Return how many runs and ticks were recorded within this time, by state."""
        from ._store import queries

        if not self._readable():
            return {}
        clock = self._store.clock(self._clock)
        with self._store.read() as connection:
            return queries.counts_since(connection, clock.read(connection) - since)

    def newest(self, *jobs: str, limit: int = 40) -> dict[str, list[Run]]:
        """Return the newest runs of these jobs by id, oldest first; those without any are left out."""
        from ._store import statistics

        if not self._readable():
            return {}
        with self._store.read() as connection:
            return statistics.newest(connection, jobs, limit)

    def glances(self, *jobs: str, limit: int = 40) -> dict[str, list[Glance]]:
        """Return the newest runs of these jobs as strips and charts show them, oldest first."""
        from ._store import statistics

        if not self._readable():
            return {}
        with self._store.read() as connection:
            return statistics.glances(connection, jobs, limit)

    def activity(
        self, *jobs: str, since: datetime, width: timedelta
    ) -> dict[str, dict[int, dict[str, int]]]:
        """Return how many runs and ticks of these jobs came to which end in each stretch of time.

        By job, by the number of the stretch from `since` on, by state; `retried` is one that
        succeeded at a later attempt.
        """
        from . import _look

        return _look.activity(self._store, jobs, since, width) if self._readable() else {}

    def begun(self, *, since: datetime, width: timedelta) -> dict[int, int]:
        """Return in how many jobs something happened in each stretch of time from `since` on."""
        from ._store import statistics

        if not self._readable():
            return {}
        with self._store.read() as connection:
            return statistics.begun(connection, since, width)

    def stats(self, *jobs: str, since: timedelta = timedelta(days=7)) -> list[JobStats]:
        """Return how jobs did: these ids, else all that are in the history, by id."""
        from . import _look

        if not self._readable():
            return []
        ids = [id_ for job in jobs for id_ in self._ids(job) or ()] if jobs else None
        return _look.stats(self._store, self._store.clock(self._clock), ids, since)

    def audit(self, limit: int = 20, before: int | None = None) -> list[AuditEntry]:
        """Return who did what by hand, newest first; `before` is the id of an entry."""
        from . import _look

        return _look.audit(self._store, before, limit) if self._readable() else []

    def backlog(self) -> list[Backlog]:
        """Return what has not ended, for each job that has such runs, by id. One statement."""
        from . import _look

        if not self._readable():
            return []
        return _look.backlog(self._store, self._store.clock(self._clock))

    def schedulers(self, job: str | None = None) -> list[NodeOverview]:
        """Return the live schedulers, or those of them that have the job of this id."""
        from . import _look

        if not self._readable():
            return []
        live = _look.live_nodes(self._store, self._store.clock(self._clock), job)
        return [node for node in live if node.kind == "scheduler"]

    def nodes(self, gone: timedelta = timedelta(days=1)) -> list[NodeOverview]:
        """Return the live schedulers and workers, oldest first, and what went within `gone`."""
        from . import _look

        if not self._readable():
            return []
        return _look.nodes(self._store, self._store.clock(self._clock), gone)

    def _ids(self, job: str | None) -> list[str] | None:
        """Return the id of a job with its former ones. Raises as `find` what nobody knows."""
        if job is None:
            return None
        exact = next((plan for plan in self.plans if plan.id == job), None)
        try:
            return own_ids(exact or self.find(job))
        except UnknownJobError:
            if not self._recorded(job):
                raise
            return [job]

    def _recorded(self, job_id: str) -> bool:
        from ._store import queries

        if not self._readable():
            return False
        with self._store.read() as connection:
            return queries.knows(connection, job_id)
