"""When was which node well? Told by the moments of the world alone."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.faults.checker import Violation

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from systemprompt_jobs.testing._world import Moment, World

_DEATHS = frozenset({"crashed", "stopping"})
_FROM, _TO = {"frozen", "database_stopped"}, {"thawed", "database_started"}
_FOREVER = 2**62


@dataclass(frozen=True, slots=True)
class _Life:
    machine: str
    since: int
    works: bool


class Lives:
    """The lives of the nodes of a world; `look_back` once it has ended, before anything is asked."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._lives: dict[str, _Life] = {}
        self._troubles: dict[str, list[tuple[int, int]]] = defaultdict(list)
        self._deaths: dict[str, list[int]] = defaultdict(list)

    def note(self, node: str, machine: str, *, works: bool) -> None:
        """Note which node a machine is now."""
        if node not in self._lives:
            self._lives[node] = _Life(machine, self._world.micros, works)

    def is_worker(self, node: str) -> bool:
        """Return whether it claims nothing."""
        return node in self._lives and self._lives[node].works

    def look_back(self) -> None:
        """Read the moments."""
        open_: dict[tuple[str, str], int] = {}
        for moment in self._world.moments:
            name, at = moment.node, self._at(moment.at)
            if moment.what in _DEATHS:
                self._deaths[name].append(at)
                if (name, "frozen") in open_:
                    self._troubles[name].append((open_.pop((name, "frozen")), at))
            if moment.what in _FROM:
                open_.setdefault((name, moment.what), at)
            elif moment.what in _TO:
                kind = "frozen" if moment.what == "thawed" else "database_stopped"
                if (name, kind) in open_:
                    self._troubles[name].append((open_.pop((name, kind)), at))
        for (name, _), since in open_.items():
            self._troubles[name].append((since, _FOREVER))

    def _at(self, instant: datetime) -> int:
        return round((instant - self._world.start).total_seconds() * 1_000_000)

    def is_well(self, node: str, since: int, until: int) -> bool:
        """Return whether a node lived, was awake and had its database all this time."""
        life = self._lives.get(node)
        if life is None:
            return False
        return not (
            any(life.since <= death <= until for death in self._deaths[life.machine])
            or any(a <= until and since <= b for a, b in self._troubles[life.machine])
        )

    def overlaps(self) -> Iterator[Violation]:
        """S9: what still runs where all is well keeps its slot, also once its time was up."""
        running: dict[str, dict[tuple[str, int], Moment]] = defaultdict(dict)
        for moment in self._world.moments:
            run, name = moment.run, moment.node
            if moment.what in _DEATHS:
                for others in running.values():
                    for key in [key for key in others if key[0] == name]:
                        del others[key]
            elif moment.what == "function_began" and run.overlap != "allow":
                for (other, number), began in running[run.job_id].items():
                    since, at = self._at(began.at), self._at(moment.at)
                    if self._machine_is_well(other, since, at) and number != run.id:
                        text = f"run {run.id} of {run.job_id} began at {moment.at}"
                        yield Violation("S9", f"{text}, and run {number} goes on")
                running[run.job_id][name, run.id] = moment
            elif moment.what == "function_ended":
                running[run.job_id].pop((name, run.id), None)

    def _machine_is_well(self, name: str, since: int, until: int) -> bool:
        return not any(a <= until and since <= b for a, b in self._troubles[name])
