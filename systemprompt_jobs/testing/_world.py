"""Virtual time: one thread that gives every part of every node its turn, in the order of time.

A node here is the real one (claimer, recorder, keeper and so on, and a real database), but its
loops are no threads and its clock stands still until `World` moves it to the next turn. So a
day passes in no time, and twice the same.

What is left out is only what would find nothing: while no node has anything to do, the looks
that each makes every second are not made, and before anybody looks again every node renews its
lease; a node that is alone notes that it has. After whatever may need such looks (a crash, a
change from outside) they are all made.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any, NamedTuple

from systemprompt_jobs._loop import Loop

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Mapping

    from systemprompt_jobs import Run

    from ._machine import Machine

SECOND = 1_000_000
"""Time is counted in whole microseconds since the world began."""

_MICROSECOND = timedelta(microseconds=1)

_BOOTED = 1_000 * SECOND
"""What the monotonic clock shows when the world begins."""

_WORTH = 2 * SECOND
"""Looks are left out where nothing is due for so long."""

_ORDER = ("keep", "record", "interrupt", "claim", "scribe", "prune")
"""Who comes first of those that are due at the same instant."""


class Crash(BaseException):
    """The process is no more: nothing of it runs, not even an `except Exception`."""


class Moment(NamedTuple):
    """What happened at an instant of true time: a hook's name, or one of the world's own.

    Those are `function_began`, `function_ended`, `crashed`, `frozen`, `thawed`, `clock_stepped`,
    `database_stopped` and `database_started`.
    """

    at: datetime
    node: str
    what: str
    details: Mapping[str, Any]

    @property
    def run(self) -> Run | None:
        """The run that it happened to."""
        return self.details.get("run")


@dataclass(slots=True, eq=False)
class Call:
    """Something to be done at a time; nothing once it is cancelled, as when its process dies."""

    due: int
    action: Callable[[], object]
    machine: Machine | None = None
    loop: VirtualLoop | None = None
    cancelled: bool = False


@dataclass
class World:
    """The time that all nodes share, and who has the next turn.

    - `start`: when it begins, aware UTC.
    - `takes`: for how many seconds a run's function is at work; else it ends as it begins.
    - `fails`: the error that an attempt raises in place of its function, if any.
    - `latency`: how many seconds later than it could a loop gets its turn.
    - `skips`: leave out the looks that would find nothing.
    - `look_s`: make the looks that may find something no more often than this, in seconds; 0 as
      often as in real life. At most a third of a lease.
    - `prunes`: forget old history, as `retention` says.
    - `births` numbers the nodes, in the order in which they were made.
    - `acting`: whose turn it is right now.
    """

    start: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    takes: Callable[[Run], float] = lambda _: 0.0
    fails: Callable[[Run], BaseException | None] = lambda _: None
    latency: Callable[[], float] = lambda: 0.0
    skips: bool = True
    look_s: float = 0.0
    prunes: bool = False
    micros: int = 0
    turns: int = 0
    machines: list[Machine] = field(default_factory=list)
    moments: list[Moment] = field(default_factory=list)
    births: count[int] = field(default_factory=count)
    _calls: list[tuple[int, int, int, Call]] = field(default_factory=list)
    _loops: list[tuple[int, int, int, Call]] = field(default_factory=list)
    _numbers: count[int] = field(default_factory=count)
    _restless: int = 0
    acting: Machine | None = None

    @property
    def now(self) -> datetime:
        """The true time, aware UTC."""
        return self.start + timedelta(microseconds=self.micros)

    def note(self, node: str, what: str, /, **details: Any) -> None:
        """Add a moment."""
        self.moments.append(Moment(self.now, node, what, details))

    def call_in(
        self, seconds: float, action: Callable[[], object], machine: Machine | None = None
    ) -> Call:
        """Have something done in so many seconds; by a machine's process, if it lives then."""
        due = self.micros + math.ceil(seconds * SECOND)
        call = Call(due, action, machine)
        self.put(call)
        return call

    def put(self, call: Call) -> None:
        """Take a call that somebody has made."""
        heap, rank = self._calls, -1
        if call.loop is not None:
            heap, rank = self._loops, call.loop.rank
        heapq.heappush(heap, (call.due, rank, next(self._numbers), call))

    def forget(self, machine: Machine) -> None:
        """Make no call of a machine's process any more."""
        for *_, call in (*self._calls, *self._loops):
            if call.machine is machine:
                call.cancelled = True

    def stir(self, seconds: float | None = None) -> None:
        """Leave out nothing for so long, three leases unless given: there may be news to find."""
        if seconds is None:
            seconds = 2 + 3 * max((machine.lease_s for machine in self.machines), default=0)
        self._restless = max(self._restless, self.micros + round(seconds * SECOND))

    def run_for(self, seconds: float) -> None:
        """Let time pass."""
        self.run_until(self.micros + round(seconds * SECOND))

    def run_until(self, micros: int) -> None:
        """Let time pass until an instant, and do all that is due by then."""
        while self.turn(micros):
            pass
        self.micros = max(self.micros, micros)
        for machine in self.machines:
            self.act(machine, machine.write_down)

    def turn(self, until: int | None = None) -> bool:
        """Give one turn to whoever is next; False if nobody is before `until`."""
        heap = self._calls
        first, look = _first(self._calls), _first(self._loops)
        if look is not None and (first is None or look < first):
            heap, first = self._loops, look
        if first is None or (until is not None and first[0] > until):
            return False
        call = first[-1]
        if call.loop is not None and call.loop.looks and self._is_left_out(call, call.loop, until):
            return True
        heapq.heappop(heap)
        self.micros = max(self.micros, call.due)
        self._make(call)
        return True

    def _is_left_out(self, call: Call, loop: VirtualLoop, until: int | None) -> bool:
        """Return whether a look has been put off, alone or with all the others."""
        if self._is_quiet(call.due):
            quiet = self._quiet_until(until, call.due + _WORTH)
            if quiet is not None and quiet - call.due > _WORTH:
                self._skip_to(quiet)
                return True
        return bool(self.look_s) and loop.can_wait(round(self.look_s * SECOND))

    def _make(self, call: Call) -> None:
        machine = call.machine
        if machine is not None and machine.frozen:
            machine.missed.append(call)
            return
        self.turns += 1
        if machine is None:
            call.action()
        else:
            self.act(machine, call.action)

    def act(self, machine: Machine, action: Callable[[], object]) -> None:
        """Have a machine do something, which may be its end."""
        assert self.acting is None, "a step or a job's function waits: nothing else could happen"
        self.acting = machine
        try:
            action()
            machine.flush()
        except Crash:
            machine.crash()
        finally:
            self.acting = None

    def _is_quiet(self, due: int) -> bool:
        if not self.skips or due <= self._restless:
            return False
        return not any(machine.troubled for machine in self.machines)

    def _quiet_until(self, until: int | None, worth: int) -> int | None:
        """Return when the next thing is due that is no mere look; one up to `worth` will do."""
        call = _first(self._calls)
        first = until if call is None or (until is not None and until < call[0]) else call[0]
        if first is not None and first <= worth:
            return first
        for machine in self.machines:
            if not machine.up:
                continue
            for due in machine.appointments():
                if due is not None and (first is None or due < first):
                    first = due
                    if first <= worth:
                        return first
        return first

    def _skip_to(self, micros: int) -> None:
        """Let time pass in which nobody looks; first of all everybody renews the lease."""
        self.micros = micros
        up = [machine for machine in self.machines if machine.up]
        for machine in up:
            self.turns += 1
            self.act(machine, partial(machine.renew, alone=len(up) == 1))
            for loop in machine.loops:
                loop.postpone(micros)


def _first(heap: list[tuple[int, int, int, Call]]) -> tuple[int, int, int, Call] | None:
    while heap and heap[0][-1].cancelled:
        heapq.heappop(heap)
    return heap[0] if heap else None


class VirtualClock:
    """The clocks of one machine. Its wall clock is off by `offset`, its drift included."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._seen = (-1, world.start)  # what it shows at an instant: it is asked many times
        self._offset = timedelta()
        self._drift = 0.0
        self._since = world.micros

    @property
    def offset(self) -> timedelta:
        """How far the wall clock is ahead of true time."""
        return self._offset + timedelta(
            microseconds=self._drift * (self._world.micros - self._since)
        )

    def now(self) -> datetime:
        """Return the wall clock."""
        at, shown = self._seen
        if at != self._world.micros:
            shown = self._world.now + self.offset
            self._seen = (self._world.micros, shown)
        return shown

    def monotonic(self) -> float:
        """Return the seconds since the host booted."""
        return (_BOOTED + self._world.micros) / SECOND

    def wait(self, condition: threading.Condition, seconds: float | None) -> None:  # noqa: ARG002
        """Let others have a turn: what is waited for may come of it."""
        assert self._world.acting is None, "a step or a job's function waits for what cannot happen"
        until = None if seconds is None else self._world.micros + math.ceil(seconds * SECOND)
        if not self._world.turn(until):
            assert until is not None, "nothing will ever happen that could end this waiting"
            self._world.micros = until

    def step(self, seconds: float) -> None:
        """Step the wall clock, as an operator or NTP does."""
        self._offset += timedelta(seconds=seconds)
        self._seen = (-1, self._world.start)

    def drift(self, rate: float) -> None:
        """Have the wall clock go faster by `rate`, e.g. 0.001 for a millisecond each second."""
        self._offset, self._since, self._drift = self.offset, self._world.micros, rate

    def due(self, instant: datetime) -> int:
        """Return when the wall clock will show an instant, in the world's microseconds."""
        left = (instant - self.now()) / _MICROSECOND / (1 + self._drift)
        return self._world.micros + math.ceil(left)


class VirtualLoop(Loop):
    """A loop that has its turns from the world, in place of a thread.

    `called` says that it was woken, or pauses after a failure: its next turn is no mere look,
    which `looks` says of one that may find nothing.
    """

    def __init__(self, machine: Machine, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.rank = _ORDER.index(self.name)
        self.called = False
        self.looks = self.name != "prune"
        self._machine = machine
        self._call: Call | None = None
        self._started = self._stepping = False
        self._turned = 0
        machine.loops.append(self)

    @property
    def due(self) -> int | None:
        """When the next turn is, in the world's microseconds."""
        return None if self._call is None else self._call.due

    def start(self) -> None:
        """Have the first turn at once."""
        if self.name == "prune" and not self._machine.world.prunes:
            return
        self._started = True
        self._in(0.0, called=True)

    def wake(self) -> None:
        """Have a turn at once, unless it pauses after a failure."""
        self._woken = True
        if self._started and not (self._stepping or self._backoff or self._stopping):
            self._in(0.0, called=True)

    def stop(self) -> None:
        """Have no more turns."""
        self._stopping = True
        self._in(None)

    def postpone(self, micros: int) -> None:
        """Have no turn before an instant."""
        if self.due is not None and self.due < micros:
            self._in((micros - self._machine.world.micros) / SECOND)

    def can_wait(self, micros: int) -> bool:
        """Postpone a look if the last turn is not so long ago, and has seen what is due here."""
        later = self._turned + micros
        if self.due is None or later <= self.due:
            return False
        for due in self._machine.appointments():
            if due and self._turned < due < later:
                later = due
                if later <= self.due:
                    return False
        self.postpone(later)
        return True

    def turn(self) -> None:
        """Step once, and see when to do so again."""
        self._turned = self._machine.world.micros
        assert self._call is not None
        late = self._machine.world.micros - self._call.due
        if late > 0 and not self.called:
            self._overslept(late / SECOND)
        self._woken, self._stepping = False, True
        try:
            seconds = self._guarded_step()
        finally:
            self._stepping = False
        if self._stopping:
            return
        if self._backoff or not self._woken:
            self._in(seconds, called=bool(self._backoff))
        else:
            self._in(0.0, called=True)

    def _in(self, seconds: float | None, *, called: bool = False) -> None:
        """Have the next turn in so many seconds, or when it is woken."""
        world, machine = self._machine.world, self._machine
        if self._call is not None:
            self._call.cancelled, self._call = True, None
        self.called = called
        self.looks = not (called or self.name == "prune")
        if seconds is not None:
            pause = max(0.0, seconds) + world.latency()
            due = world.micros + math.ceil(pause * SECOND)
            self._call = Call(due, self.turn, machine, self)
            world.put(self._call)
