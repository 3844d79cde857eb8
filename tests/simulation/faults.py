"""What goes wrong in a day: processes, network, database and clocks, all of it by chance."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

from systemprompt_jobs.errors import StoreError
from systemprompt_jobs.testing._failpoints import PLACES
from systemprompt_jobs.testing._world import SECOND
from tests.faults import checker
from tests.simulation.people import DEEDS, People

if TYPE_CHECKING:
    import random
    from collections import Counter
    from collections.abc import Callable

    from systemprompt_jobs.testing._machine import Machine
    from tests.simulation.lives import Lives
    from tests.simulation.machines import SimMachine

MINUTE, HOUR = 60.0, 3600.0

LEASE_S = 120

FAULT_EVERY_S = 60 * MINUTE
"""On average; several may come together."""

_AIMS = ("now", "tick", "run", "wait", "wait")
"""When to break something: at any time, where a tick is near, or amid what takes its time."""

_LONG_S = 20.0
"""What takes less time has no middle."""

TROUBLES = frozenset({"crashed", "frozen", "thawed", "stopping", "cut_off", "joined_again"})


class Faults(People):
    """The faults of a `Day`, and the moments for them and for what people do."""

    faults: Counter[str]
    one_clock: bool
    lives: Lives
    _clock: Callable[[], int]
    _delays: random.Random
    _healed = False
    _owed: set[str]

    def _fault(self) -> None:
        """Break something, now or at a moment when it may do harm."""
        aim = self.chance.choice(_AIMS)
        if aim == "tick":
            self._at_a_tick(self.chance.uniform(-_LONG_S, MINUTE), self._break)
        elif aim == "now" or (aim == "run" and self._busy()):
            self._break()
        else:
            self._owed.add(aim)
        self._in(self.chance.expovariate(1 / FAULT_EVERY_S), self._fault)

    def _at_a_tick(self, after_s: float, action: Callable[[str], None]) -> None:
        """Have something done to the next job that is due, so long after its tick."""
        soon = self._clock() + round(_LONG_S * SECOND)
        sql = f"SELECT next_tick, id FROM jobs_job WHERE next_tick > {soon} ORDER BY next_tick"
        for tick, job in checker.query(self._url, f"{sql} LIMIT 1"):
            self._in((tick - self._clock()) / SECOND + after_s, partial(action, job))

    def _takes_time(self, what: str, seconds: float, job: str) -> None:
        """Break something in the middle of it, if that was put off until then."""
        if what in self._owed and seconds > _LONG_S:
            self._owed.remove(what)
            action = partial(self._break, job, self.world.acting)
            self._in(self.chance.uniform(0, seconds), action)

    def _break(self, job: str = "", machine: Machine | None = None) -> None:
        """Break something, rather where it matters for a job and a machine."""
        if self._healed:
            return
        happens = self.chance.choice(FAULTS if self.chance.random() < 0.5 else DEEDS)
        self._tell(happens.__name__)
        self._at = job, machine
        happens(self)
        self._at = "", None

    def _tell(self, what: str) -> None:
        self.faults[what] += 1
        self.world.note("world", what)

    def _start(self, machine: SimMachine) -> None:
        if machine.up:
            return
        try:
            machine.start()
        except StoreError:  # as a supervisor would
            self.world.note(machine.name, "stopping")
            machine.crash()
            self._in(30, partial(self._start, machine))

    def _some_time(self) -> float:
        """Seconds: mostly a moment, at times longer than a lease or than many ticks."""
        return self.chance.choice([1, 30, LEASE_S, 2 * LEASE_S, 4 * LEASE_S])

    def _someone(self) -> SimMachine | None:
        """Choose one that is up, rather one at work: there is more to break."""
        awake, at_work = self._awake(), self._busy()
        at_work = [machine for machine in awake if machine is self._at[1]] or at_work
        return self.chance.choice((self.chance.random() < 0.7 and at_work) or awake or [None])

    def _awake(self) -> list[SimMachine]:
        return [machine for machine in self.machines if machine.up and not machine.frozen]

    def _busy(self) -> list[SimMachine]:
        return [machine for machine in self._awake() if machine.live._recorder.running()]

    def crash(self) -> None:
        if machine := self._someone():
            machine.crash()
            self._in(self._some_time(), partial(self._start, machine))

    def cut_the_power(self) -> None:
        """End all of them before a tick; the first is back after some minutes or hours."""
        self._at_a_tick(-1.0, self._go_dark)

    def _go_dark(self, _job: str) -> None:
        if self._healed:
            return
        for machine in self.machines:
            machine.crash()
        first = self.chance.choice([5, 15, 30, 90, 200]) * MINUTE
        for machine in self.machines:
            self._in(first + self.chance.choice([0, 1, 600]), partial(self._start, machine))

    def crash_at_a_place(self) -> None:
        if machine := self._someone():
            machine.crash_at(self.chance.choice(PLACES), self.chance.randint(1, 3))
            self._in(HOUR, partial(self._start, machine))
            self._in(2 * HOUR, partial(self._start, machine))

    def stop_and_start(self) -> None:
        if (machine := self._someone()) and machine.reachable:
            self.world.note(machine.name, "stopping")
            self._stop(machine, timedelta(seconds=30))
            self._in(self._some_time(), partial(self._start, machine))

    def _stop(self, machine: SimMachine, grace: timedelta) -> None:
        before, self.hand = self.hand, machine.node  # another one may be stopping meanwhile
        self.lives.note(self.hand, machine.name, works=machine.works)
        machine.stop(grace)
        self.hand = before

    def freeze(self) -> None:
        if machine := self._someone():
            machine.freeze()
            self._in(self._some_time(), partial(self._thaw, machine))

    def _thaw(self, machine: SimMachine) -> None:
        if machine.up and machine.frozen:
            machine.thaw()

    def partition(self) -> None:
        if machine := self._someone():
            self.world.note(machine.name, "cut_off")
            self._cut([machine])

    def stop_the_database(self) -> None:
        self._cut(self.machines)

    def _cut(self, machines: list[SimMachine]) -> None:
        for machine in machines:
            machine.lose_database()
        self._in(self._some_time(), partial(self._join_again, machines))

    def _join_again(self, machines: list[SimMachine]) -> None:
        for machine in machines:
            machine.find_database()
            if len(machines) == 1:
                self.world.note(machine.name, "joined_again")

    def lose_commits(self) -> None:
        """Let changes of runs fail for a while, some of them after all was committed."""
        machines = self.chance.choice([self.machines, [self.chance.choice(self.machines)]])
        left = self.chance.randint(2, 8)
        when = self.chance.choice(["before commit", "after commit"])
        often = self.chance.choice([0.5, 1.0])
        written = 0

        def fault(where: str) -> None:
            nonlocal left, written
            if where == "begin":
                written = self.diary.numbers
            changed = self.diary.numbers > written
            if where == when and left and changed and self._delays.random() < often:
                left -= 1
                raise StoreError(f"the connection broke {when}")

        for machine in machines:
            machine.store_fault = fault

    def step_the_clock(self) -> None:
        """Set the clock of a host anew; on SQLite that is everybody's."""
        offset = timedelta(seconds=self.chance.choice([-1200, -30, -2, 0, 2, 30, 1200]))
        for machine in self._host():
            machine.step_clock((offset - machine.clock.offset).total_seconds())

    def let_the_clock_drift(self) -> None:
        rate = self.chance.uniform(-1e-3, 1e-3)
        for machine in self._host():
            machine.clock.drift(rate)

    def _host(self) -> list[SimMachine]:
        return self.machines if self.one_clock else [self.chance.choice(self.machines)]

    def be_late(self) -> None:
        """Let every turn come late for a while, as on a host with too much to do."""
        worst = self.chance.choice([0.05, 1.0, 4.0])
        self.world.latency = lambda: self._delays.uniform(0, worst)
        self._in(self._some_time(), self._be_in_time)

    def _be_in_time(self) -> None:
        self.world.latency = lambda: 0.0

    def wake_for_nothing(self) -> None:
        """Have every loop called out of turn, as by notices that come twice."""
        for machine in self.machines:
            for loop in machine.loops:
                loop.wake()


FAULTS = (
    Faults.crash,
    Faults.cut_the_power,
    Faults.crash_at_a_place,
    Faults.stop_and_start,
    Faults.freeze,
    Faults.partition,
    Faults.stop_the_database,
    Faults.lose_commits,
    Faults.step_the_clock,
    Faults.let_the_clock_drift,
    Faults.be_late,
    Faults.wake_for_nothing,
)
