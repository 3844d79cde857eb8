"""A day of several schedulers on one database, with faults; all of it follows from a seed.

The schedulers are the real ones, on virtual time (`systemprompt_jobs.testing`); the judge is that
of the tests with real processes, which knows nothing of how schedulers work.
"""

from __future__ import annotations

import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

from systemprompt_jobs import JobExtension, Retry, job
from systemprompt_jobs.errors import StoreError
from systemprompt_jobs.testing._failpoints import PLACES
from systemprompt_jobs.testing._machine import Machine
from systemprompt_jobs.testing._world import SECOND, World
from tests.faults import checker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from systemprompt_jobs import JobContext, Run
    from systemprompt_jobs.testing._world import Moment

START = datetime(2026, 3, 1, tzinfo=UTC)
MINUTE, HOUR = 60.0, 3600.0

CRONS = ("0 */20 * * * *", "0 */30 * * * *", "0 0 * * * *", "0 10 */2 * * *", "0 0 */6 * * *")

LEASE_S = 120

FAULT_EVERY_S = 120 * MINUTE
"""On average; several may come together."""

QUIET_S = 40 * MINUTE
"""At the end all is whole for so long: leases run out, and what waits is done."""

SETTLED_S = 25 * MINUTE
"""What was due so long before the end must have ended."""

EXCUSED_S = HOUR
"""Runs may be taken from a node that was in trouble of its own in the last so many seconds."""

TROUBLES = frozenset({"crashed", "frozen", "thawed", "stopping", "cut_off", "joined_again"})


class Day:
    """One seed's day: `play()` it once, then read `ticks`, `faults` and `story()`."""

    def __init__(self, seed: int, folder: Path, nodes: int = 3, hours: float = 24) -> None:
        self.seed = seed
        self.hours = hours
        self.faults: Counter[str] = Counter()
        self.ticks = 0
        self._healed = False
        self._owed = False
        self.chance = random.Random(seed)
        self._delays = random.Random(seed)
        self.world = World(start=START, takes=self._takes, look_s=LEASE_S / 3)
        # Odd seeds are PostgreSQL's time, even ones SQLite's, where all schedulers share a host.
        self.one_clock = seed % 2 == 0
        self.crons = dict(zip("abc", self.chance.sample(CRONS, 3), strict=True))
        jobs = [self._job(name, cron) for name, cron in self.crons.items()]
        self.machines = [
            Machine(
                self.world,
                f"node{number}",
                folder,
                plugins=[Sim(jobs)],
                environ={"SYSTEMPROMPT_JOBS__LEASE": f"{LEASE_S}s"},
                database_clock=not self.one_clock,
            )
            for number in range(nodes)
        ]
        self._url = f"sqlite:///{self.machines[0].file}"
        self._starts: list[checker.Effect] = []
        self._marks: list[dict[str, int]] = []

    # --- the jobs ---

    def _job(self, name: str, cron: str) -> object:
        def function(ctx) -> None:
            self._called(ctx)

        choose = self.chance.choice
        return job(
            name=name,
            schedule=cron,
            catch_up=choose(["latest", "none", "all"]),
            overlap=choose(["skip", "queue", "allow"]),
            max_attempts=choose([1, 1, 2, 3]),
            retry_delay=choose(["1s", "10s", "2m"]),
            timeout=choose(["5m", "1h"]),
        )(function)

    def _called(self, ctx: JobContext) -> None:
        """Write down that it has begun; fail now and then."""
        machine, run = self.world.acting, ctx.run
        wall = machine.clock.now() if self.one_clock else self.world.now
        tick = None if run.tick is None else _micros(run.tick)
        self._starts.append(
            checker.Effect("START", run.job_id, tick, run.id, run.fence, 0, _micros(wall))
        )
        chance = self._chance_of(run, f"end {run.attempt}")
        if chance < 0.03:
            raise Retry(after=timedelta(seconds=30))
        if chance < 0.1:
            raise RuntimeError("as some do")

    def _takes(self, run: Run) -> float:
        """Mostly nothing, sometimes longer than the next tick or the timeout; each attempt alike."""
        chance = self._chance_of(run, "takes")
        if self._healed or chance < 0.6:
            return 0.0
        seconds = 25 * MINUTE * ((chance - 0.6) / 0.4) ** 2
        if self._owed and seconds > MINUTE:
            self._owed = False
            self._in(self.chance.uniform(0, seconds / 2), self._break)
        return seconds

    def _chance_of(self, run: Run, what: str) -> float:
        return random.Random(f"{self.seed} {what} {run.job_id} {run.tick}").random()

    # --- the day ---

    def play(self) -> list[checker.Violation]:
        """Live through it; return what is wrong at its end."""
        for machine in self.machines:
            self._in(self.chance.uniform(0, MINUTE), partial(self._start, machine))
        self._in(MINUTE, self._mark)
        self._in(2 * MINUTE, self._fault)
        self.world.run_for(self.hours * HOUR - QUIET_S)
        self._heal()
        self.world.run_for(QUIET_S)
        until = _micros(self.machines[0].clock.now() - timedelta(seconds=SETTLED_S))
        for machine in self.machines:
            machine.stop(timedelta(hours=1))
        self._mark()
        return self._verdict(_micros(START) + 2 * 60 * SECOND, until)

    def _verdict(self, since: int, until: int) -> list[checker.Violation]:
        self.ticks = sum(
            1 for cron in self.crons.values() for _ in checker.ticks(cron, since, until)
        )
        found = checker.check(
            {f"sim:{name}": cron for name, cron in self.crons.items()},
            checker.read_rows(self._url),
            [*self._starts, *self._ends()],
            since=since,
            until=until,
            marks=self._marks,
        )
        return [*found, *self._low_marks(since, until), *self._taken_from_the_living()]

    def _low_marks(self, since: int, until: int) -> Iterator[checker.Violation]:
        """I7: the last tick that was due is settled, and the job's mark says so."""
        for name, cron in self.crons.items():
            *_, last = (since, *checker.ticks(cron, since, until))
            if self._marks[-1].get(f"sim:{name}", 0) < last:
                yield checker.Violation("I7", f"the mark of sim:{name} stays below {last}")

    def _taken_from_the_living(self) -> Iterator[checker.Violation]:
        """I8: nobody takes a run from a node that is well, also where the database was away."""
        holders: dict[int, str] = {}
        troubled: dict[str, datetime] = {}
        for moment in self.world.moments:
            run = moment.run
            if moment.what in TROUBLES:
                troubled[moment.node] = moment.at
            elif run is not None and moment.what in {"tick_claimed", "run_started"}:
                holders[run.id] = moment.node
            elif run is not None and _is_taken(moment):
                holder = moment.node if moment.what == "run_fenced" else holders.get(run.id, "")
                # A claim that nobody was told of may be that of whoever was last in trouble.
                mine = [at for node, at in troubled.items() if holder in {node, ""}]
                since = max(mine, default=START - timedelta(days=1))
                if moment.at - since > timedelta(seconds=EXCUSED_S):
                    text = f"run {run.id} was taken from {holder} at {moment.at}"
                    yield checker.Violation("I8", text)

    def _ends(self) -> Iterator[checker.Effect]:
        for moment in self.world.moments:
            if moment.what == "function_ended":
                run = moment.run
                yield checker.Effect("END", run.job_id, None, run.id, run.fence, 0, 0)

    def _mark(self) -> None:
        self._marks.append(checker.read_marks(self._url))
        self._in(HOUR, self._mark)

    def _in(self, seconds: float, action: Callable[[], object]) -> None:
        self.world.call_in(seconds, action)

    # --- what goes wrong ---

    def _fault(self) -> None:
        """Break something now, or rather in the middle of the next run that takes its time."""
        if self._busy() or self.chance.random() < 0.3:
            self._break()
        else:
            self._owed = True
        self._in(self.chance.expovariate(1 / FAULT_EVERY_S), self._fault)

    def _break(self) -> None:
        if self._healed:
            return
        fault = self.chance.choice(FAULTS)
        self._tell(fault.__name__)
        fault(self)

    def _tell(self, what: str) -> None:
        self.faults[what] += 1
        self.world.note("world", what)

    def _start(self, machine: Machine) -> None:
        if machine.up:
            return
        try:
            machine.start()
        except StoreError:  # as a supervisor would
            machine.crash()
            self._in(30, partial(self._start, machine))

    def _some_time(self) -> float:
        """Seconds: mostly a moment, at times longer than a lease or than many ticks."""
        return self.chance.choice([1, 30, LEASE_S, 2 * LEASE_S, 4 * LEASE_S])

    def _someone(self) -> Machine | None:
        """Choose one that is up, rather one at work: there is more to break."""
        return self.chance.choice(
            (self.chance.random() < 0.7 and self._busy()) or self._awake() or [None]
        )

    def _awake(self) -> list[Machine]:
        return [machine for machine in self.machines if machine.up and not machine.frozen]

    def _busy(self) -> list[Machine]:
        return [machine for machine in self._awake() if machine.live._recorder.running()]

    def crash(self) -> None:
        if machine := self._someone():
            machine.crash()
            self._in(self._some_time(), partial(self._start, machine))

    def crash_at_a_place(self) -> None:
        if machine := self._someone():
            machine.crash_at(self.chance.choice(PLACES), self.chance.randint(1, 3))
            self._in(HOUR, partial(self._start, machine))
            self._in(2 * HOUR, partial(self._start, machine))

    def stop_and_start(self) -> None:
        if (machine := self._someone()) and machine.reachable:
            self.world.note(machine.name, "stopping")
            machine.stop(timedelta(seconds=30))
            self._in(self._some_time(), partial(self._start, machine))

    def freeze(self) -> None:
        if machine := self._someone():
            machine.freeze()
            self._in(self._some_time(), partial(self._thaw, machine))

    def _thaw(self, machine: Machine) -> None:
        if machine.up and machine.frozen:
            machine.thaw()

    def partition(self) -> None:
        if machine := self._someone():
            self.world.note(machine.name, "cut_off")
            self._cut([machine])

    def stop_the_database(self) -> None:
        self._cut(self.machines)

    def _cut(self, machines: list[Machine]) -> None:
        for machine in machines:
            machine.lose_database()
        self._in(self._some_time(), partial(self._join_again, machines))

    def _join_again(self, machines: list[Machine]) -> None:
        for machine in machines:
            machine.find_database()
            if len(machines) == 1:
                self.world.note(machine.name, "joined_again")

    def lose_commits(self) -> None:
        """Let transactions fail for a while, some of them after all was committed."""
        machine = self.chance.choice(self.machines)
        left = self.chance.randint(1, 6)
        when = self.chance.choice(["before commit", "after commit"])

        def fault(where: str) -> None:
            nonlocal left
            if where == when and left and machine.up and self._delays.random() < 0.5:
                left -= 1
                raise StoreError(f"the connection broke {when}")

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

    def _host(self) -> list[Machine]:
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

    def _heal(self) -> None:
        self.world.note("world", "healed")
        self._healed = True
        self._fault = lambda: None  # type: ignore[method-assign]
        self._be_in_time()
        for machine in self.machines:
            machine.store_fault = lambda _: None
            machine.failpoints.disarm()
            machine.clock.drift(0)
            self._thaw(machine)
        self._join_again(self.machines)
        for machine in self.machines:
            self._start(machine)

    # --- the story ---

    def story(self, around: str = "") -> str:
        """Return all that happened, or what names one run or job, one line a moment."""
        lines = []
        for moment in self.world.moments:
            run = moment.run
            of = f" run {run.id} {run.job_id} {run.tick:%d %H:%M} fence {run.fence}" if run else ""
            lines.append(f"{moment.at:%d %H:%M:%S.%f} {moment.node} {moment.what}{of}")
        return "\n".join(line for line in lines if around in line or " world " in line)


FAULTS = (
    Day.crash,
    Day.crash_at_a_place,
    Day.stop_and_start,
    Day.freeze,
    Day.partition,
    Day.stop_the_database,
    Day.lose_commits,
    Day.step_the_clock,
    Day.let_the_clock_drift,
    Day.be_late,
    Day.wake_for_nothing,
)


class Sim(JobExtension):
    """Has the day's jobs."""

    def __init__(self, jobs: list[object]) -> None:
        self._jobs = jobs

    def jobs(self) -> list[object]:
        return self._jobs


def _is_taken(moment: Moment) -> bool:
    """Return whether a run was taken from its node, or the node's report came too late."""
    if moment.what == "run_retrying":
        return moment.details["report"].outcome == "lost"
    return moment.what in {"run_lost", "run_rescued", "run_fenced"}


def _micros(instant: datetime) -> int:
    return round(instant.timestamp() * SECOND)
