"""A day of several schedulers on one database, with faults; all of it follows from a seed.

The schedulers are the real ones, on virtual time (`systemprompt_jobs.testing`); the judges know
nothing of how schedulers work: they read what the database wrote down and what functions did.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from systemprompt_jobs import JobExtension, Retry, job
from systemprompt_jobs.testing._machine import _migrated
from systemprompt_jobs.testing._world import _BOOTED, SECOND, World
from tests.faults import checker
from tests.simulation.diary import Diary
from tests.simulation.faults import HOUR, LEASE_S, MINUTE, Faults
from tests.simulation.judge import Case, calendar, judge
from tests.simulation.lives import Lives
from tests.simulation.machines import SimMachine
from tests.simulation.mail import POOL, Mail
from tests.simulation.people import CRONS, POLICIES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from systemprompt_jobs import JobContext, Run
    from systemprompt_jobs.testing._machine import Machine

START = datetime(2026, 3, 1, tzinfo=UTC)

QUIET_S = 40 * MINUTE
"""At the end all is whole for so long: leases run out, and what waits is done."""

SETTLED_S = 25 * MINUTE
"""What was due so long before the end must have ended."""

KEEP, AGE = 5, 2 * 3600 * SECOND
"""What is never forgotten: a job's newest runs, and what is younger."""


_LEFT_SLOTS = "SELECT id, state FROM jobs_slot JOIN jobs_run ON id = run_id WHERE finished NOTNULL"

_WAITS = frozenset({"tick_claimed", "run_retrying"})


@dataclass
class Watched(World):
    """Tells of every moment, and of the run that it is about."""

    noticed: Callable[[str, Run | None], None] = lambda _what, _run: None

    def note(self, node: str, what: str, /, **details: Any) -> None:
        """Add a moment."""
        super().note(node, what, **details)
        self.noticed(what, details.get("run"))


class Day(Faults):
    """One seed's day: `play()` it once, then read `ticks`, `faults` and `story()`."""

    def __init__(self, seed: int, folder: Path, nodes: int = 3, hours: float = 24) -> None:
        self.seed = seed
        self.hours = hours
        self.folder = folder
        self.faults: Counter[str] = Counter()
        self.ticks = 0
        self.hand = ""
        self.chance = random.Random(seed)
        self._delays = random.Random(seed)
        self._owed = set()
        self.world = Watched(
            start=START,
            takes=self._takes,
            look_s=LEASE_S / 3,
            prunes=seed % 3 == 1,
            noticed=self._noticed,
        )
        # Odd seeds are PostgreSQL's time, even ones SQLite's, where all schedulers share a host.
        self.one_clock = seed % 2 == 0
        far = seed % 3 == 0
        self.names = tuple("abcd" if far else "abc")
        self.crons = dict(zip(self.names, self.chance.sample(CRONS, len(self.names)), strict=True))
        jobs = {name: self._job(name, cron) for name, cron in self.crons.items()}
        self._prepare()
        self.lives = Lives(self.world)
        file = folder / "jobs.db"
        file.write_bytes(_migrated())
        self._url = f"sqlite:///{file}"
        self.diary = Diary(self._url, lambda: self.world.micros, self._clock, self._who)
        self.schedulers = [
            self._machine(f"node{number}", self._jobs_of(number, jobs)) for number in range(nodes)
        ]
        self.workers = [self._machine("worker", list(jobs.values()), works=True)] if far else []
        self.machines = [*self.schedulers, *self.workers]
        self.mail = Mail(self.world, self.workers, random.Random(seed))
        for machine in self.schedulers:
            machine.mail = self.mail
        self._write_config()
        self._starts: list[checker.Effect] = []

    def _machine(self, name: str, jobs: list[object], *, works: bool = False) -> SimMachine:
        machine = SimMachine(
            self.world,
            name,
            self.folder,
            plugins=[Sim(jobs)],
            environ={"SYSTEMPROMPT_JOBS__LEASE": f"{LEASE_S}s"},
            database_clock=not self.one_clock,
            works=works,
        )
        machine.diary = self.diary
        return machine

    def _jobs_of(self, number: int, jobs: dict[str, object]) -> list[object]:
        """Leave a job out of the last scheduler's plugins now and then."""
        lacks = "b" if self.seed % 5 == 0 and number == 2 else ""
        return [job for name, job in jobs.items() if name != lacks]

    # --- the jobs ---

    def _job(self, name: str, cron: str) -> object:
        def function(ctx, *, mark: str = "") -> None:
            self._called(ctx)

        choose = self.chance.choice
        limited = self.seed % 7 == 0 and name in "bc"
        return job(
            name=name,
            schedule=cron,
            catch_up=choose(POLICIES["catch_up"]),
            catchup_window=choose(POLICIES["catchup_window"]),
            overlap=choose(POLICIES["overlap"]),
            splay=choose(POLICIES["splay"]),
            max_attempts=choose([1, 1, 2, 3]),
            retry_delay=choose(["1s", "10s", "2m"]),
            timeout=choose(["5m", "1h"]),
            concurrency={"key": "both", "limit": 1} if limited else None,
            executor=POOL if name == "d" else None,
        )(function)

    def _called(self, ctx: JobContext) -> None:
        """Write down that it has begun; fail now and then."""
        run = ctx.run
        tick = None if run.tick is None else _micros(run.tick)
        wall = self.world.acting.clock.now() if self.one_clock else self.world.now
        self._starts.append(
            checker.Effect("START", run.job_id, tick, run.id, run.fence, 0, _micros(wall))
        )
        chance = self._chance_of(run, f"end {run.attempt}")
        if chance < 0.05:
            raise Retry(after=timedelta(seconds=30))
        if chance < 0.2:
            raise RuntimeError("as some do")

    def _takes(self, run: Run) -> float:
        """Mostly nothing, sometimes longer than the next tick or the timeout; each attempt alike."""
        chance = self._chance_of(run, "takes")
        if self._healed or chance < 0.6:
            return 0.0
        seconds = 25 * MINUTE * ((chance - 0.6) / 0.4) ** 2
        self._takes_time("run", seconds / 2, run.job_id)
        return seconds

    def _noticed(self, what: str, run: Run | None) -> None:
        """See who waits: for the time that its splay has chosen, or to be tried again."""
        if what in _WAITS and run is not None and run.due is not None:
            self._takes_time("wait", (_micros(run.due) - self._clock()) / SECOND, run.job_id)

    def _chance_of(self, run: Run, what: str) -> float:
        return random.Random(f"{self.seed} {what} {run.job_id} {run.tick}").random()

    # --- the day ---

    def play(self) -> list[checker.Violation]:
        """Live through it; return what is wrong at its end."""
        for machine in self.machines:
            self._in(self.chance.uniform(0, MINUTE), partial(self._start, machine))
        self._in(2 * MINUTE, self._fault)
        for deed in (self.cut_the_power, self.pause, self.lose_commits):  # on each day
            self._in(self.chance.uniform(1, 20) * HOUR, deed)
        self.world.run_for(self.hours * HOUR - QUIET_S)
        self._heal()
        self.world.run_for(QUIET_S)
        until = self._clock() - round(SETTLED_S * SECOND)
        for machine in self.machines:
            self._stop(machine, timedelta(hours=1))
        self.faults.update(self.mail.fates)
        return [*self._verdict(until)]

    def _heal(self) -> None:
        self.world.note("world", "healed")
        self._healed = self.mail.healed = True
        self._be_in_time()
        for machine in self.machines:
            machine.store_fault = None
            machine.failpoints.disarm()
            machine.clock.drift(0)
            self._thaw(machine)
        self._join_again(self.machines)
        for machine in self.machines:
            self._start(machine)
        for name in self.names:
            self._resume(f"sim:{name}")
        self._all_read_it()

    def _in(self, seconds: float, action: Callable[[], object]) -> None:
        self.world.call_in(seconds, action)

    def _clock(self) -> int:
        """Return the time that decides what is due."""
        return _micros(self.schedulers[0].clock.now() if self.one_clock else self.world.now)

    def _who(self) -> str:
        if self.operating:
            return "operator"
        acting: Machine | None = self.world.acting
        node = self.hand if acting is None else acting.node  # type: ignore[attr-defined]
        if acting is not None:
            self.lives.note(node, acting.name, works=acting.works)  # type: ignore[attr-defined]
        return node

    # --- the verdict ---

    def case(self, until: int) -> Case:
        """Return what there is to judge, once the day is over."""
        began, ends = _micros(START), _micros(START + timedelta(hours=self.hours + 30))
        self.lives.look_back()
        return Case(
            runs=self.diary.runs(),
            jobs=self.diary.jobs(),
            until=until,
            lease=LEASE_S * SECOND,
            lease_clock=_BOOTED if self.one_clock else began,
            one_clock=self.one_clock,
            is_well=self.lives.is_well,
            is_worker=self.lives.is_worker,
            wanted=self.wanted,
            keep=KEEP,
            age=AGE,
            calendar=lambda cron: calendar(cron, began - 3 * 3600 * SECOND, ends),
        )

    def _verdict(self, until: int) -> Iterator[checker.Violation]:
        case = self.case(until)
        self.ticks = sum(entry.count for entry in case.runs if entry.was is None)
        yield from judge(case)
        rows = [
            checker.Row(e.run, e.job, e.state, e.tick, fence=e.fence, max_attempts=e.most)
            for e in case.last.values()
        ]
        yield from checker.check({}, rows, [*self._starts, *self._ends()], since=0, until=until)
        yield from self.lives.overlaps()
        for number, state in checker.query(self._url, _LEFT_SLOTS):
            yield checker.Violation("S9", f"run {number} is {state} and has a slot")
        for words in self.broken_words:
            yield checker.Violation("S6", words)
        for key, times in self.mail.sent.items():
            if times > 1:
                yield checker.Violation("S12", f"{key} was sent {times} times")

    def _ends(self) -> Iterator[checker.Effect]:
        for moment in self.world.moments:
            if moment.what == "function_ended":
                run = moment.run
                yield checker.Effect("END", run.job_id, None, run.id, run.fence, 0, 0)

    # --- the story ---

    def story(self, around: str = "") -> str:
        """Return all that happened, or what names one run or job, one line a moment."""
        lines = []
        for moment in self.world.moments:
            run = moment.run
            tick = f"{run.tick:%d %H:%M:%S}" if run and run.tick else "by hand"
            of = f" run {run.id} {run.job_id} {tick} fence {run.fence}" if run else ""
            lines.append(f"{moment.at:%d %H:%M:%S.%f} {moment.node} {moment.what}{of}")
        return "\n".join(line for line in lines if around in line or " world " in line)


class Sim(JobExtension):
    """Has the day's jobs."""

    def __init__(self, jobs: list[object]) -> None:
        self._jobs = jobs

    def jobs(self) -> list[object]:
        return self._jobs


def _micros(instant: datetime) -> int:
    return round(instant.timestamp() * SECOND)
