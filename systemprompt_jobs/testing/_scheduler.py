"""The fixture `scheduler`: nodes on virtual time and what a test says to them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from systemprompt_jobs import Job

from ._machine import Machine
from ._project import Tests, write_config
from ._timeline import Count, Timeline
from ._times import instant_of, seconds_of
from ._world import World

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from pathlib import Path

    from systemprompt_jobs import Run, Runtime

    from ._times import Time

_NEWS_S = 2.5
"""Within this time schedulers find out what was changed from outside."""


class Scheduler:
    """A scheduler, or several, on a clock that the test moves, with a real SQLite database.

    Functions are called when their time comes, on the thread of the test. `folder` is the root
    of the project. It starts at the first `advance`, with one node unless told otherwise.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.zone = "UTC"
        self._begun = False
        self.world = World(takes=self._seconds, fails=self._error)
        self._plugins: list[object] = []
        self._own = Tests()
        self._services: dict[type, object] = {}
        self._takes: dict[str, Callable[[Run], Time]] = {}
        self._fails: dict[str, list[BaseException]] = {}

    # --- before the start ---

    def add(self, *parts: object) -> None:
        """Add jobs, and plugins: modules, objects, or their names."""
        self._not_started("add")
        for part in parts:
            if isinstance(part, Job):
                self._own.own.append(part)
            else:
                self._plugins.append(part)

    def configure(self, text: str = "", **settings: Any) -> None:
        """Write config.yaml: its text, or the settings below `scheduler:`."""
        write_config(self.folder, text, settings)

    def service(self, kind: type, value: object) -> None:
        """Have `ctx.get(kind)` return this, whatever plugins register for it."""
        self._not_started("service")
        self._services[kind] = value

    def nodes(self, number: int) -> list[Machine]:
        """Start so many schedulers of one database: node1, node2 and so on."""
        self._not_started("nodes")
        made = [self._new_node(f"node{n + 1}") for n in range(number)]
        for node in made:
            node.start()
            degraded = "\n".join(map(str, node.runtime.degraded if node.runtime else ()))
            assert not degraded, f"degraded:\n{degraded}"
        return made

    def _new_node(self, name: str) -> Machine:
        plugins = [*self._plugins, *([self._own] if self._own.own else [])]
        return Machine(self.world, name, self.folder, plugins=plugins, services=self._services)

    def _not_started(self, what: str) -> None:
        assert not self.world.machines, f"{what}() comes too late: the scheduler has started"

    # --- time ---

    @property
    def now(self) -> datetime:
        """The time, aware UTC."""
        return self.world.now

    def at(self, when: str | datetime, zone: str | None = None) -> None:
        """Begin at an instant; if it has begun, have all happen that is due until then.

        A text such as `2026-10-25 00:00` is read in `zone`, which from now on is that of the test
        (its time line); it is UTC to begin with.
        """
        self.zone = zone or self.zone
        instant = instant_of(when, self.zone)
        if self.world.machines or self._begun:
            self.advance(instant - self.now)
        else:
            self.world.start, self._begun = instant, True

    def advance(self, duration: Time) -> None:
        """Let time pass, e.g. `1 day`, and have all happen that is due meanwhile."""
        seconds = seconds_of(duration)
        assert seconds >= 0, "time does not go back; step_clock() has a clock do so"
        if not self.world.machines:
            self.nodes(1)
        self.world.stir(_NEWS_S)
        self.world.run_for(seconds)

    def takes(self, job: str, duration: Time | Callable[[Run], Time]) -> None:
        """Have a job's runs take so long: they end later than they began."""
        self._takes[job] = duration if callable(duration) else lambda _: duration

    def fails(self, job: str, error: BaseException, times: int = 1) -> None:
        """Have the next attempts of a job raise an error in place of calling its function."""
        self._fails[job] = [error] * times

    def _seconds(self, run: Run) -> float:
        found = next((self._takes[name] for name in _names(run) if name in self._takes), None)
        return 0.0 if found is None else seconds_of(found(run))

    def _error(self, run: Run) -> BaseException | None:
        found = [self._fails[name] for name in _names(run) if self._fails.get(name)]
        return found[0].pop() if found else None

    # --- trouble ---

    def stop_database(self) -> None:
        """Have no node reach the database."""
        for node in self.world.machines:
            node.lose_database()

    def start_database(self) -> None:
        """Have all nodes reach it again."""
        for node in self.world.machines:
            node.find_database()

    def step_clock(self, duration: Time) -> None:
        """Step every node's wall clock, e.g. `-1h`; no time passes."""
        for node in self.world.machines:
            node.step_clock(seconds_of(duration))

    # --- what has come of it ---

    @property
    def runtime(self) -> Runtime:
        """The runtime of a node that is up, to ask and to tell what an operator can."""
        if not self.world.machines:
            self.nodes(1)
        up = [node.runtime for node in self.world.machines if node.runtime is not None]
        assert up, "all nodes are down"
        return up[0]

    def run(self, job: str, **values: Any) -> Run:
        """Run a job by hand, as `Runtime.run`; time passes until it has ended."""
        (run,) = self.runtime.run(job, **values)
        return run

    def runs(self, job: str, *states: str) -> list[Run]:
        """Return the runs of a job, oldest first: all, or those in these states."""
        id_ = self.runtime.find(job).id
        found = self.runtime.history(job=id_, states=states or None, limit=1_000_000)
        return found[::-1]

    def ran(self, job: str, *states: str) -> Count:
        """Return how many runs of a job have begun, or how many ticks ended in these states.

        E.g. `ran("cleanup", "failed")`. A `missed` or `skipped` row counts its ticks.
        """
        if states:
            number = sum(run.count for run in self.runs(job, *states))
            return Count(number, f"{' or '.join(states)} runs of {job}")
        id_ = self.runtime.find(job).id
        begun = self.timeline(job).of("function_began")
        return Count(
            len({m.run.id for m in begun if m.run and m.run.job_id == id_}), f"runs of {job}"
        )

    def timeline(self, job: str | None = None) -> Timeline:
        """Return all that has happened, or what has happened to a job."""
        moments = self.world.moments
        if job is None:
            return Timeline(moments, self.zone)
        return Timeline((m for m in moments if m.run and job in _names(m.run)), self.zone)

    def close(self) -> None:
        """End all nodes at once."""
        for node in self.world.machines:
            node.crash()


def _names(run: Run) -> tuple[str, str]:
    return run.job_id, run.job
