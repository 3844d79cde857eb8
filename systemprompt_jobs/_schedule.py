"""When is which job due, and what becomes of ticks that have gone by? Pure decisions."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .interfaces import Schedule

CATCHUP_WINDOW = timedelta(hours=24)
"""A missed tick older than this is not caught up."""

_INSTANT = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Stretch:
    """Ticks in a row: the first, the last, and how many they are."""

    first: datetime
    last: datetime
    count: int


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of a job's due ticks.

    `run` is the tick to run, if any; `missed` the ticks before it that will never run; `last`
    the newest tick that is settled by this; `next` the first one that is not.
    """

    run: datetime | None
    missed: Stretch | None
    last: datetime
    next: datetime | None


def decide(schedule: Schedule, due: datetime, now: datetime) -> Decision:
    """Settle the ticks from `due` (the job's next tick) up to `now`.

    One that lies ahead of `now` is settled alone: it was claimed early. Of those behind, the
    newest runs and the others are missed; one older than the catch-up window is missed too.
    Nothing is walked, so a year of a per-second schedule costs no more than a minute.
    """
    newest = due
    if due <= now:
        newest = max(due, schedule.previous(now + _INSTANT) or due)
    following = schedule.next(newest)
    if now - newest > CATCHUP_WINDOW:
        return Decision(None, _stretch(schedule, due, newest), newest, following)
    if newest == due:
        return Decision(newest, None, newest, following)
    last_missed = schedule.previous(newest) or due
    return Decision(newest, _stretch(schedule, due, last_missed), newest, following)


def _stretch(schedule: Schedule, first: datetime, last: datetime) -> Stretch:
    return Stretch(first, last, 1 + schedule.count(first, last))


class Agenda:
    """The heap of next ticks, one for each job that has one."""

    def __init__(self) -> None:
        self._heap: list[tuple[datetime, str]] = []
        self._next: dict[str, datetime] = {}

    def set(self, job_id: str, tick: datetime | None) -> None:
        """Note a job's next tick; None takes the job off."""
        if tick is None:
            self._next.pop(job_id, None)
        elif self._next.get(job_id) != tick:
            self._next[job_id] = tick
            heapq.heappush(self._heap, (tick, job_id))

    def first(self) -> datetime | None:
        """Return the earliest next tick."""
        while self._heap and self._next.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)  # overtaken by a later `set`
        return self._heap[0][0] if self._heap else None

    def due(self, horizon: datetime) -> list[str]:
        """Return the jobs whose next tick is at or before `horizon`, earliest first.

        They stay on the agenda until `set` moves them on, so a claim that fails is tried again.
        """
        found = []
        while (tick := self.first()) is not None and tick <= horizon:
            found.append(heapq.heappop(self._heap))
        for entry in found:
            heapq.heappush(self._heap, entry)
        return list(dict.fromkeys(job_id for _, job_id in found))
