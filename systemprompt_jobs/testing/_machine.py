"""A machine of the virtual world: a real node on its own clock, and what can go wrong with it."""

from __future__ import annotations

import sqlite3
from collections import deque
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cache, partial, wraps
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import event

from systemprompt_jobs._claim import AHEAD
from systemprompt_jobs._node import Threads
from systemprompt_jobs._store import Store
from systemprompt_jobs._store._postgresql import DatabaseTime
from systemprompt_jobs._store.schema import instant
from systemprompt_jobs.errors import StoreError
from systemprompt_jobs.interfaces import Capabilities
from systemprompt_jobs.model import Report, State

from ._failpoints import Failpoints
from ._project import TestRuntime
from ._world import SECOND, Call, Crash, VirtualClock, VirtualLoop, World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager
    from datetime import datetime, timedelta

    from sqlalchemy import Connection, Engine

    from systemprompt_jobs._node import LiveNode
    from systemprompt_jobs._observe import Observer
    from systemprompt_jobs._store import StoreClock
    from systemprompt_jobs._store._questions import Questions
    from systemprompt_jobs.interfaces import Attempt, Clock
    from systemprompt_jobs.model import Job, Node, Run

_SIZE = 10
"""Workers of a pool whose settings say nothing."""

_KINDS = {
    "threads": Capabilities(),
    "asyncio": Capabilities(asynchronous=True),
    "processes": Capabilities(kills=True),
}


class Machine:
    """One scheduler process at a time, its clock and its way to the database.

    - `clock`: steps and drifts; `reachable`: whether there is a way to the database.
    - `database_clock`: true time decides what is due, as PostgreSQL's clock does, and not the
      machine's own, as on SQLite.
    - `store_fault`: if set, is called with `read`, `begin`, `before commit` and `after commit`,
      and may raise a StoreError or `Crash` there.
    """

    def __init__(
        self,
        world: World,
        name: str,
        root: Path,
        *,
        plugins: Sequence[object] = (),
        environ: Mapping[str, str] | None = None,
        services: Mapping[type, object] = MappingProxyType({}),
        database: Path | None = None,
        database_clock: bool = False,
    ) -> None:
        self.world = world
        self.name = name
        self.clock = VirtualClock(world)
        self.reachable = True
        self.database_clock = database_clock
        self.store_fault: Callable[[str], None] | None = None
        self.life = 0
        self.loops: list[VirtualLoop] = []
        self.frozen = False
        self.missed: list[Call] = []
        self.runtime: VirtualRuntime | None = None
        self.lease_s = 30.0
        self.file = database or root / "jobs.db"
        self.failpoints = Failpoints(self)
        self._make = partial(
            VirtualRuntime,
            self,
            root,
            services,
            plugins,
            {
                "SYSTEMPROMPT_PLUGINS": "",
                **(environ or {}),
                "SYSTEMPROMPT_JOBS__DATABASE": f"sqlite:///{self.file}",
            },
        )
        self._observer: Observer | None = None
        self._told = False
        self._noted: float | None = None
        self._reader: sqlite3.Connection | None = None
        world.machines.append(self)

    # --- its life ---

    def start(self) -> None:
        """Start a scheduler. Raises StoreError and ConfigurationError; then it is down."""
        assert self.runtime is None, f"{self.name} is up already"
        self.runtime = self._make()
        self.lease_s = self.runtime.settings.lease.total_seconds()
        for other in self.world.machines:
            if other.up and other is not self:
                other.write_down()
        if self.file.exists():  # somebody is there, or has left something behind
            self.world.stir()
        try:
            self.world.act(self, self.runtime.start)
        except Exception:
            self._is_gone()
            raise

    def stop(self, grace: timedelta | None = None) -> None:
        """Stop it as TERM does: time passes while its runs end."""
        assert self.runtime is not None, f"{self.name} is down already"
        try:
            self.runtime.stop(grace)
        except Crash:
            self.crash()
        else:
            self.flush()
            self._is_gone()

    def crash(self) -> None:
        """End it as `kill -9` does."""
        if self.runtime is None:
            return
        self.world.note(self.name, "crashed")
        self.write_down()
        self.runtime.abandon()
        self._is_gone()

    def _is_gone(self) -> None:
        if self._reader is not None:
            self._reader.close()
        self.runtime = self._observer = self._reader = None
        self.loops.clear()
        self.missed.clear()
        self.world.forget(self)
        self.frozen = False
        self.life += 1
        self.failpoints.disarm()
        self.world.stir()

    @property
    def up(self) -> bool:
        """Whether a scheduler has been started and has not ended."""
        return self.runtime is not None

    @property
    def live(self) -> LiveNode:
        """The node at work."""
        assert self.runtime is not None, f"{self.name} is down"
        node = self.runtime.live
        assert node is not None, f"{self.name} is not at work"
        return node

    def freeze(self) -> None:
        """Let it do nothing, as a suspended virtual machine; time goes on."""
        self.write_down()
        self.frozen = True
        self.world.note(self.name, "frozen")

    def thaw(self) -> None:
        """Let it go on."""
        self.frozen = False
        self.world.note(self.name, "thawed")
        self.world.stir()
        missed, self.missed = self.missed, []
        for call in missed:
            call.due = max(call.due, self.world.micros) if call.loop is None else call.due
            self.world.put(call)

    def step_clock(self, seconds: float) -> None:
        """Step its wall clock, as an operator or NTP does."""
        self.clock.step(seconds)
        self.world.note(self.name, "clock_stepped", seconds=seconds)
        self.world.stir()

    def lose_database(self) -> None:
        """Have no way to the database."""
        self.write_down()
        self.reachable = False
        self.world.note(self.name, "database_stopped")

    def find_database(self) -> None:
        """Have one again."""
        self.reachable = True
        self.world.note(self.name, "database_started")
        self.world.stir()

    def crash_at(self, place: str, hits: int = 1) -> None:
        """Have it crash when it comes to one of `PLACES` for the n-th time."""
        self.failpoints.arm(self.live, place, hits)

    @property
    def troubled(self) -> bool:
        """Whether others may have to find out about it."""
        return self.up and (self.frozen or not self.reachable)

    # --- its turns ---

    def observe(self, observer: Observer) -> None:
        """Note all that hooks are told, and call them after each turn."""
        put = observer.put

        def noted(hook: str, **arguments: Any) -> None:
            self.world.note(self.name, hook, **arguments)
            self._told = True
            put(hook, **arguments)

        observer.put = noted  # type: ignore[method-assign]
        self._observer, self._told = observer, True

    def flush(self) -> None:
        """Call the hooks that wait."""
        if self._told and self._observer is not None:
            self._told = False
            self._observer.flush()

    def renew(self, *, alone: bool) -> None:
        """Renew the lease, as is done every third of one; if `alone`, in memory only."""
        live, now = self.live, self.clock.monotonic()
        keeper, loop = live._keeper, cast("VirtualLoop", live._keep_loop)
        if alone:
            keeper._renewed = live._claimer._reviewed = self._noted = now
        elif now >= keeper._renewed + self.lease_s / 3:
            try:
                keeper._tell(keeper._doubt.settle())
                keeper._beat()
            except StoreError:  # again, and this time so that it is noticed
                loop.postpone(self.world.micros)
                loop.turn()
        loop.postpone(self.world.micros + SECOND)
        ends = self.world.micros + int(keeper.lease_left() * SECOND)
        deadline = self._deadline()
        interrupts = cast("VirtualLoop", live._interrupt_loop)
        interrupts.postpone(ends if deadline is None else min(ends, deadline))

    def _deadline(self) -> int | None:
        """Return when the time of a run is up, in the world's time."""
        if not (deadlines := self.live._interrupter._deadlines):
            return None
        left = deadlines[0][0] - self.clock.monotonic()
        return self.world.micros + int(left * SECOND)

    def write_down(self) -> None:
        """Have the database say that the lease was renewed, if only memory does."""
        node = self.runtime.live if self.runtime is not None else None
        if node is not None and node._keeper._renewed == self._noted and not self.frozen:
            with suppress(StoreError, Crash):
                node._keeper._beat()

    def appointments(self) -> Iterator[int | None]:
        """Yield when this node has something to do but to look around, in the world's time.

        None is never, and the past is now.
        """
        live = self.live
        claimer, recorder = live._claimer, live._recorder
        for waiting in recorder._waiting.values():
            if waiting:
                yield self.clock.due(waiting[0][0])
        first = claimer._agenda.first()
        yield None if first is None else self.clock.due(first - AHEAD)
        for loop in self.loops:
            if not loop.looks:
                yield loop.due
        if claimer._busy or claimer._freed or live._new_plans is not None:
            yield self.world.micros
        if recorder._reports or recorder._gating or recorder._released:
            yield self.world.micros
        yield self._deadline()
        if any(map(_has_news, live._scribe._attempts.values())):
            yield self.world.micros
        yield from map(self._due, self._pending())

    def _pending(self) -> tuple[int | None, int | None]:
        # Whoever ends a run looks at once for those that wait for its slot.
        sql = (
            "SELECT min(CASE WHEN reason NOT IN ('overlap', 'concurrency') THEN available_at END), "
            "min(available_until) FROM jobs_run WHERE state = 'pending'"
        )
        if self._reader is None:
            self._reader = sqlite3.connect(self.file)
        found: tuple[int | None, int | None] = self._reader.execute(sql).fetchone()
        return found

    def _due(self, micros: int | None) -> int | None:
        at = instant(micros)
        return None if at is None else self.clock.due(at)


def _has_news(attempt: tuple[Run, Any]) -> bool:
    said = attempt[1]
    return said._unread or said._progress is not said._known[0]


class VirtualRuntime(TestRuntime):
    """A runtime whose node has its turns from the world."""

    def __init__(
        self,
        machine: Machine,
        root: Path,
        services: Mapping[type, object],
        plugins: Sequence[object],
        environ: Mapping[str, str],
    ) -> None:
        self._machine = machine
        self._crew = _Crew(machine)
        super().__init__(root, services, plugins=plugins, environ=environ, clock=machine.clock)
        self._manager.unregister(name="core.logs")  # the moments tell the same

    @property
    def live(self) -> LiveNode | None:
        """The node at work."""
        return self._live

    def _new_store(self) -> Store:
        url, lease_s = self.settings.database, self.settings.lease.total_seconds()
        return VirtualStore(url, lease_s, self._machine)

    def _new_executors(self) -> Mapping[str, Hands]:
        pools = {plan.executor for plan in self.plans if plan.problem is None}
        return {name: Hands(self._machine, self.settings.executors[name]) for name in sorted(pools)}

    def abandon(self) -> None:
        """Leave everything as it is, as a process that dies."""
        if self._live is not None:
            self._live._tap.detach()
        if self._resources is not None:
            self._resources.close()
        if self._opened is not None:
            self._opened.close()


class _Crew(Threads):
    """Has no threads: the world gives each loop its turns."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def node(self) -> Node:
        """Return one with the same order among others each time: by it they share what is due."""
        node, boot = super().node(), f"{next(self._machine.world.births):08x}"
        return replace(node, id=f"{node.host}:{node.pid}:{boot}", boot=boot)

    def loop(self, *arguments: Any, **options: Any) -> VirtualLoop:
        return VirtualLoop(self._machine, *arguments, **options)

    def observe(self, observer: Observer) -> None:
        self._machine.observe(observer)


class VirtualStore(Store):
    """A database file that survives no power cut, and that a machine may fail to reach."""

    def __init__(self, url: str, lease_s: float, machine: Machine) -> None:
        super().__init__(url, lease_s)
        self._machine = machine

    def prepare(self) -> None:
        """Begin with a copy of a migrated file: to migrate takes longer than most tests."""
        if self._machine.reachable and not self._machine.file.exists():
            self._machine.file.write_bytes(_migrated())
        super().prepare()

    def clock(self, local: Clock) -> StoreClock:
        """Return the clock that decides."""
        if self._machine.database_clock:
            return _DatabaseTime(local, self._machine.world)
        return super().clock(local)

    def write(self) -> AbstractContextManager[Connection]:
        """Enter a transaction, which may fail."""
        fails = self._machine.store_fault or not self._machine.reachable
        return self._failing_write() if fails else super().write()

    @contextmanager
    def _failing_write(self) -> Iterator[Connection]:
        self._fault("begin")
        with super().write() as connection:
            yield connection
            self._fault("before commit")
        self._fault("after commit")

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Enter a read-only snapshot, which may fail."""
        self._fault("read")
        with super().read() as connection:
            yield connection

    @contextmanager
    def ask(self) -> Iterator[Questions]:
        """Enter what answers small questions, which may fail."""
        self._fault("read")
        with super().ask() as questions:
            yield questions

    def _fault(self, when: str) -> None:
        if not self._machine.reachable:
            raise StoreError(f"the database {self.label} has been stopped by a test")
        if self._machine.store_fault is not None:
            self._machine.store_fault(when)

    def _open(self) -> Engine:
        if self._engine is None:
            engine = super()._open()
            event.listen(engine, "connect", _without_fsync)
        return super()._open()


class _DatabaseTime(DatabaseTime):
    """The clock of a database server, as a node sees it: it shows true time."""

    def __init__(self, local: Clock, world: World) -> None:
        super().__init__(local)
        self._world = world

    def _ask(self, connection: Connection) -> datetime:  # noqa: ARG002  # it asks the world
        return self._world.now


def _without_fsync(connection: sqlite3.Connection, _record: object) -> None:
    connection.execute("PRAGMA synchronous=OFF")


@cache
def _migrated() -> bytes:
    with TemporaryDirectory() as folder:
        file = Path(folder, "jobs.db")
        store = Store(f"sqlite:///{file}")
        store.prepare()
        store.close()
        _with_small_pages(file)
        return file.read_bytes()


def _with_small_pages(file: Path) -> None:
    """Have transactions write less: theirs are the few pages that a run touches."""
    connection = sqlite3.connect(file, isolation_level=None)
    for statement in ("PRAGMA journal_mode=DELETE", "PRAGMA page_size=1024", "VACUUM"):
        connection.execute(statement)
    connection.close()


class Hands:
    """An executor that calls a function in one go, in its turn, and says later that it has ended.

    When an attempt is interrupted, one that kills or cancels ends at once; a thread goes on.
    """

    def __init__(self, machine: Machine, settings: Mapping[str, Any]) -> None:
        self.size: int = settings.get("size", _SIZE)
        self.capabilities = _KINDS.get(settings["kind"], Capabilities())
        self._machine = machine
        self._waiting: deque[Attempt] = deque()
        self._running: dict[Attempt, Call | None] = {}

    def submit(self, attempt: Attempt) -> None:
        """Have it begin as soon as fewer than `size` others run."""
        self._waiting.append(attempt)
        self._fill()

    def interrupt(self, attempt: Attempt) -> None:
        """End it if it can be ended; give its place to another else."""
        attempt.interrupt()
        if attempt not in self._running:
            return
        ends = self._running[attempt]
        if not (self.capabilities.kills or self.capabilities.asynchronous):
            del self._running[attempt]
            self._fill()
        elif ends is not None:
            ends.cancelled = True
            now = self._machine.clock.now()
            report = Report(State.CANCELLED, attempt.run.started or now, now)
            self._machine.world.call_in(0.0, partial(self._end, attempt, report), self._machine)

    def close(self) -> None:
        """Do nothing: what has not ended is not waited for."""

    def _fill(self) -> None:
        while self._waiting and len(self._running) < self.size:
            attempt = self._waiting.popleft()
            self._running[attempt] = None
            self._machine.world.call_in(0.0, partial(self._begin, attempt), self._machine)

    def _begin(self, attempt: Attempt) -> None:
        world, machine = self._machine.world, self._machine
        world.note(machine.name, "function_began", run=attempt.run)
        seconds = world.takes(attempt.run)
        if (error := world.fails(attempt.run)) is not None:
            attempt.job = _raising(attempt.job, error)  # type: ignore[misc]
        report = attempt.call()
        machine.failpoints.reach("mid_run")
        end = partial(self._end, attempt, report)
        if seconds > 0:
            self._running[attempt] = world.call_in(seconds, end, machine)
        else:
            end()

    def _end(self, attempt: Attempt, report: Report) -> None:
        finished = max(report.started, self._machine.clock.now())
        if finished != report.finished:
            report = replace(report, finished=finished)
        self._machine.world.note(
            self._machine.name, "function_ended", run=attempt.run, report=report
        )
        self._running.pop(attempt, None)
        attempt.ended(report)
        self._fill()


def _raising(job: Job[..., Any], error: BaseException) -> Job[..., Any]:
    """Return the job with a function that only raises, and looks like the job's own."""

    @wraps(job.function)
    def fails(*_: Any, **_values: Any) -> None:
        raise error

    @wraps(job.function)
    async def fails_async(*_: Any, **_values: Any) -> None:
        raise error

    return replace(job, function=fails_async if job.is_async else fails)
