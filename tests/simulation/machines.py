"""Schedulers and workers whose database keeps a diary."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from sqlalchemy import event

from systemprompt_jobs.testing._machine import Hands, Machine, VirtualRuntime, VirtualStore
from tests.simulation.mail import POOL, Far

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Engine

    from systemprompt_jobs._store import Store
    from systemprompt_jobs.interfaces import Executor
    from tests.simulation.diary import Diary
    from tests.simulation.mail import Mail


class SimMachine(Machine):
    """A scheduler; `works` makes it a worker."""

    diary: Diary
    mail: Mail | None = None

    def __init__(self, *arguments: Any, works: bool = False, **values: Any) -> None:
        super().__init__(*arguments, **values)
        self.works = works
        kind = Worker if works else Scheduler
        self._make = partial(kind, *self._make.args, **self._make.keywords)

    def renew(self, *, alone: bool) -> None:  # its own looks read the database
        """Renew the lease where the database sees it, also if nobody else looks."""
        super().renew(alone=False)

    @property
    def node(self) -> str:
        """The id of the node at work, empty if there is none."""
        live = self.runtime.live if self.runtime is not None else None
        return "" if live is None else live.node.id


class Scheduler(VirtualRuntime):
    """A scheduler that sends the runs of one pool to workers."""

    _machine: SimMachine

    def _new_store(self) -> Store:
        url, lease_s = self.settings.database, self.settings.lease.total_seconds()
        return _DiaryStore(url, lease_s, self._machine)

    def _new_executors(self) -> Mapping[str, Executor]:
        executors = dict(super()._new_executors())
        if POOL in executors:
            assert self._machine.mail is not None
            executors[POOL] = Far(self._machine.mail)
        return executors


class Worker(Scheduler):
    """A worker for that pool."""

    def start(self) -> None:
        """Start to work."""
        live = self._live_node({POOL: Hands(self._machine, {"kind": "threads"})})
        try:
            live.start_working()
        except BaseException:
            self.stop(timedelta(0))
            raise


class _DiaryStore(VirtualStore):
    _machine: SimMachine
    first: ClassVar[Engine | None] = None

    def _open(self) -> Engine:
        fresh = self._engine is None
        engine = super()._open()
        if fresh:
            _share_statements(engine)
            event.listen(engine, "connect", lambda c, _: self._machine.diary.attach(c))
        return engine


def _share_statements(engine: Engine) -> None:
    """Have a statement built once for all days, not by each scheduler that starts."""
    _DiaryStore.first = first = _DiaryStore.first or engine
    engine.dialect, engine._compiled_cache = first.dialect, first._compiled_cache
