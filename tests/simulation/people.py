"""What people do in the middle of it: pauses, runs by hand, cancels, new configurations."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

from systemprompt_jobs.errors import StoreError, UsageError
from systemprompt_jobs.testing._project import write_config
from tests.faults import checker

if TYPE_CHECKING:
    import random
    from collections import Counter
    from collections.abc import Callable
    from pathlib import Path

    from systemprompt_jobs.testing._machine import Machine, VirtualRuntime
    from systemprompt_jobs.testing._world import World
    from tests.simulation.machines import SimMachine

CRONS = (
    "0 */20 */3 * * *",
    "0 0 */2 * * *",
    "*/20 7 */6 * * *",
    "*/30 */10 */12 * * *",
    "0 */2 5 * * *",
    "30 */5 */8 * * *",
)
"""Some sparse, most of them dense for a short while."""

POLICIES = {
    "catch_up": ("latest", "none", "all"),
    "overlap": ("skip", "queue", "allow"),
    "enabled": (True, True, False),
    "catchup_window": ("24h", "1h", "20m", "5m"),
    "splay": ("0s", "1m", "10m"),
    "max_attempts": (1, 2, 3),
}

_NOTICED_S = 45.0
"""By then every scheduler has looked what was done by hand."""

_PATIENCE_S = 60.0


class People:
    """What they do in a `Day`, through whatever scheduler they reach; all of it is by chance."""

    world: World
    folder: Path
    chance: random.Random
    faults: Counter[str]
    names: tuple[str, ...]
    crons: dict[str, str]
    schedulers: list[SimMachine]
    machines: list[SimMachine]
    operating = False
    _at: tuple[str, Machine | None] = ("", None)
    _url: str
    _healed: bool
    _in: Callable[[float, Callable[[], object]], None]
    _at_a_tick: Callable[[float, Callable[[str], None]], None]

    def _prepare(self) -> None:
        self.wanted: dict[str, bool] = {}
        self.broken_words: list[str] = []
        self._changes: dict[str, dict[str, object]] = {name: {} for name in self.names}

    def _by_hand(self, deed: Callable[[VirtualRuntime], object]) -> bool | None:
        """Do something at a scheduler; None if there is none, False if it said that it failed."""
        desks = [m for m in self.schedulers if m.up and m.reachable and not m.frozen]
        if not desks:
            return None
        done = False

        def do() -> None:
            nonlocal done
            try:
                deed(desk.runtime)
                done = True
            except (StoreError, UsageError):
                return

        desk, self.operating = self.chance.choice(desks), True
        try:
            self.world.act(desk, do)
        finally:
            self.operating = False
        self.world.stir(_NOTICED_S)
        return done

    def _is_paused(self, job: str) -> bool:
        sql = f"SELECT paused_at, paused_until FROM jobs_job WHERE id = '{job}'"
        ((since, until),) = checker.query(self._url, sql) or [(None, None)]
        return since is not None and (until is None or until > self._clock())

    def _some_job(self) -> str:
        """Choose a job, mostly the one with which something is the matter."""
        job = f"sim:{self.chance.choice(self.names)}"
        return self._at[0] if self._at[0] and self.chance.random() < 0.7 else job

    # --- pauses ---

    def pause(self) -> None:
        """Pause a job, rather one whose tick is claimed and has not begun; some of them twice."""
        claimed = checker.query(self._url, "SELECT job_id FROM jobs_run WHERE state = 'claimed'")
        if claimed:
            self._pause(self.chance.choice(claimed)[0])
        else:
            self._at_a_tick(self.chance.uniform(-5, 60), self._pause)

    def _pause(self, job: str) -> None:
        if self._healed:
            return
        minutes = self.chance.choice([None, 3, 30, 120])
        end = None if minutes is None else timedelta(minutes=minutes)
        if self._by_hand(lambda r: r.pause(job, until=end, who="ada")) and not self._is_paused(job):
            self.broken_words.append(f"{job} was paused at {self.world.now} and is not")
        if self.chance.random() < 0.5:
            self._in(self.chance.uniform(30, 1_000), partial(self._pause, job))
        if end is None or self.chance.random() < 0.3:
            self._in(self.chance.uniform(60, 10_000), partial(self._resume, job))

    def _resume(self, job: str) -> None:
        self.world.note("world", f"resume {job}")
        done = self._by_hand(lambda runtime: runtime.resume(job, who="ada"))
        if done and self._is_paused(job):
            self.broken_words.append(f"{job} was resumed at {self.world.now} and is not")
        if not done and self._is_paused(job):
            self._in(_PATIENCE_S, partial(self._resume, job))

    # --- runs by hand ---

    def run_by_hand(self) -> None:
        """Wait for it: the scheduler that is asked runs it."""
        self._want(
            lambda runtime, job, values: runtime.live.trigger(
                runtime._wanted([job], values, None, None)[0], "ada"
            )
        )

    def submit(self) -> None:
        """Leave it to any scheduler."""
        self._want(lambda runtime, job, values: runtime.submit(job, parameters=values, who="ada"))

    def _want(self, ask: Callable[..., object]) -> None:
        job, mark = self._some_job(), f"m{len(self.wanted)}"
        done = self._by_hand(lambda runtime: ask(runtime, job, {"mark": mark}))
        if done is not None:
            self.wanted[mark] = done

    def cancel(self) -> None:
        sql = (
            "SELECT id FROM jobs_run WHERE state IN ('pending', 'claimed', 'dispatched', 'running')"
        )
        mine = checker.query(self._url, f"{sql} AND job_id = '{self._some_job()}' ORDER BY id")
        if found := mine or checker.query(self._url, f"{sql} ORDER BY id"):
            (number,) = self.chance.choice(found)
            self.world.note("world", f"cancel run {number}")
            self._by_hand(lambda runtime: runtime.cancel(number, who="ada"))

    # --- the configuration ---

    def change_the_configuration(self) -> None:
        """Change one job, and have all schedulers read it, or one, or whoever starts next."""
        changes = self._changes[self._some_job().removeprefix("sim:")]
        key = self.chance.choice(["schedule", *POLICIES])
        changes[key] = self.chance.choice(CRONS if key == "schedule" else POLICIES[key])
        self._write_config()
        fate = self.chance.random()
        if fate < 0.5:
            self._by_hand(lambda runtime: runtime.ask_reload(who="ada"))
        elif fate < 0.8:
            self._by_hand(lambda runtime: runtime.reload())

    def _write_config(self) -> None:
        entries = [{"extension": "sim", "job": n} | c for n, c in self._changes.items() if c]
        settings = {
            "jobs": entries,
            "unknown_jobs": "warn",
            "retention": "2h",
            "retention_runs": 5,
            "executors": {"far": {"kind": "threads"}},
        }
        write_config(self.folder, "", settings)

    def _all_read_it(self) -> None:
        for machine in self.schedulers:
            if machine.up:
                self.world.act(machine, machine.runtime.reload)


DEEDS = (
    People.pause,
    People.run_by_hand,
    People.submit,
    People.cancel,
    People.change_the_configuration,
)
