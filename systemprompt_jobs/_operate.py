"""What a `Runtime` changes in the database, whether schedulers run or not."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from . import _parameters
from ._load import own_ids
from ._overview import Overviews
from .errors import ParameterError, StoreUnusableError, UnknownJobError, UsageError
from .model import Backfill, PauseOverview, Pruned, State

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping
    from datetime import datetime, timedelta

    from ._control import Control
    from ._node import LiveNode
    from ._observe import Observer
    from .model import Plan, Run


class Operations(Overviews):
    """What people do by hand, each audited."""

    _live: LiveNode | None = None
    """The node that runs here, else None."""

    def pause(
        self,
        *names: str,
        until: datetime | timedelta | None = None,
        note: str = "",
        who: str = "",
    ) -> list[PauseOverview]:
        """Pause jobs: their ticks and unstarted runs are `skipped: paused`, running ones go on.

        `until` is an aware instant or a duration; without it the pause lasts until `resume()`.
        A job that is paused already gets the new end and note. A job that is not installed can
        be paused by its id while the database knows it.
        Raises UnknownJobError, AmbiguousJobError, UsageError for an end that has passed, and
        StoreError; then nothing is paused.
        """
        ids = self._writable_ids(names)
        plans = [plan for plan in sorted(self.plans, key=lambda plan: plan.id) if plan.id in ids]
        with self._control() as control:
            return control.pause(ids, plans, until, note, who)

    def resume(self, *names: str, note: str = "", who: str = "") -> list[str]:
        """End the pauses of jobs; return the ids of those that were paused.

        What the pause has covered is one row once a scheduler that owns the job goes on with it.
        Raises UnknownJobError, AmbiguousJobError and StoreError.
        """
        with self._control() as control:
            return control.resume(self._writable_ids(names), note, who)

    def reset_clock(self, *names: str, who: str = "") -> dict[str, datetime]:
        """Let jobs go on that are settled beyond now, because a clock was wrong.

        Returns the jobs that were, with the time they waited for. Their ticks from now on come
        again, also where the wrong clock has run them.
        Raises UnknownJobError, AmbiguousJobError, UsageError for a schedule of a syntax that no
        plugin here knows, and StoreError; then nothing is changed.
        """
        with self._control() as control:
            return control.reset_clock(self._writable_ids(names), self.parse, who)

    def _writable_ids(self, names: Iterable[str]) -> list[str]:
        _ = self.plans  # raises what is wrong with the configuration before anything is made
        self._store.prepare()
        known = set(self.known_ids())
        return sorted({self._known_id(name, known) for name in names})

    def _known_id(self, name: str, known: Collection[str]) -> str:
        try:
            return self.find(name).id
        except UnknownJobError:
            if name not in known:
                raise
            return name

    @contextmanager
    def _control(self) -> Iterator[Control]:
        from ._control import Control

        with self._observing() as observer:
            yield Control(self._store, self._store.clock(self._clock), observer)

    def cancel(self, run_id: int, *, note: str = "", who: str = "") -> Run:
        """Cancel a run on whatever node it is; return it as it is now.

        One that waits is `cancelled` at once. One that runs is told to end: its node hears of it
        within a second, and it is `cancelled` when its function has ended without success.
        Raises UsageError if there is no such run or it has ended, and StoreError.
        """
        from ._cancel import cancel, report_of

        if not self._readable():
            raise UsageError(f"there is no run {run_id}: nothing has run yet")
        run = cancel(self._store, self._store.clock(self._clock), run_id, note, who)
        if run.state is State.CANCELLED:
            hooks = ("run_cancelled", "run_finished") if run.attempt else ("run_cancelled",)
            with self._observing() as observer:
                for hook in hooks:
                    observer.put(hook, run=run, report=report_of(run))
        return run

    def backfill(
        self,
        name: str,
        start: datetime,
        end: datetime | None = None,
        *,
        limit: int = 100,
        dry_run: bool = False,
        who: str = "",
    ) -> Backfill:
        """Hand a job's ticks from `start` to `end` (else now) that never ran to the schedulers.

        Only those that were `missed`, or that no row covers, and that lie within `retention`; of
        them the `limit` oldest. Each is run like any tick of the job, by the present parameters;
        where runs must not overlap, one after the other. With `dry_run` nothing is changed.
        Raises UnknownJobError, AmbiguousJobError, ParameterError, StoreError, and UsageError for
        a job that is degraded, paused or without a schedule, or that has another plan in force.
        """
        from . import _backfill

        plan, until = self._runnable(name), self._clock.now() if end is None else end
        self._checked(plan, {})
        wanted = _backfill.Wanted(plan, own_ids(plan), start, until, limit)
        if not self._readable():
            raise UsageError(f"nothing is recorded of {plan.id} yet: there is nothing to make up")
        clock, retention = self._store.clock(self._clock), self.settings.retention
        if dry_run:
            return _backfill.preview(self._store, clock, wanted, retention)
        self._store.prepare()
        return _backfill.backfill(self._store, clock, wanted, retention, who)

    def prune(
        self,
        *,
        older_than: timedelta | None = None,
        keep: int | None = None,
        dry_run: bool = False,
        who: str = "",
    ) -> Pruned:
        """Forget what ended longer ago than `older_than`, but the `keep` newest runs of each job.

        Both are as configured unless given; with `dry_run` nothing is deleted. Schedulers go on
        meanwhile. Raises StoreError; what was deleted before stays so.
        """
        from . import _prune

        retention = _prune.Retention(
            self.settings.retention if older_than is None else older_than,
            self.settings.retention_runs if keep is None else keep,
        )
        clock = self._store.clock(self._clock)
        if not self._readable():
            return Pruned(clock.now())
        if dry_run:
            return _prune.count_old(self._store, clock, retention)
        pruned = _prune.delete_old(self._store, clock, retention, who)
        if pruned:
            with self._observing() as observer:
                _prune.observe(observer, pruned)
        return pruned

    def ask_reload(self, *, note: str = "", who: str = "") -> None:
        """Have every scheduler of the database read its own configuration again, within a second.

        Raises StoreError.
        """
        from ._store import jobs as job_rows
        from ._store.control import RELOAD

        self._store.prepare()
        clock = self._store.clock(self._clock)
        with self._store.write() as connection:
            job_rows.add_audit(connection, clock.read(connection), who, RELOAD, "", note)

    @contextmanager
    def _observing(self) -> Iterator[Observer]:
        """Enter with the observer of what runs here, or with one for this alone."""
        from ._observe import DRAIN_S, Observer

        if self._live is not None:
            yield self._live.observer
            return
        observer = Observer(self._manager)
        observer.start()
        try:
            yield observer
        finally:
            observer.drain(DRAIN_S)

    @property
    def database(self) -> str:
        """The URL of the scheduler's database, its password masked."""
        return self._store.label

    def revisions(self) -> tuple[str | None, str]:
        """Return the schema that the database has (None: none yet) and the newest one."""
        from ._store import REVISION

        return self._store.revision(), REVISION

    def upgrade(self) -> None:
        """Create or migrate the database, as a start does. Raises StoreError."""
        self._store.prepare()

    def export(self) -> Iterator[str]:
        """Yield all that is recorded as JSON lines, one snapshot. Raises StoreError."""
        from ._store import REVISION, transfer

        if not self._readable():
            raise StoreUnusableError(f"there is no database {self.database} to export")
        with self._store.read() as connection:
            yield from transfer.export(connection, REVISION)

    def load(self, lines: Iterable[str]) -> dict[str, int]:
        """Insert what `export` yielded into an empty database, all or nothing.

        Returns the number of rows by table. Raises UsageError and StoreError.
        """
        from ._store import REVISION, transfer

        self._store.prepare()
        with self._store.write() as connection:
            return transfer.load(connection, lines, REVISION)

    def _checked(self, plan: Plan, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        values = {**plan.parameters, **parameters}
        try:
            _parameters.validate(plan.job, values)
        except ParameterError as error:
            raise ParameterError(f"{plan.id}: {error}") from None
        return values
