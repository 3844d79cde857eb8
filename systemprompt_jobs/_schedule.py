"""When is which job due, and what becomes of ticks that have gone by? Pure decisions."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from .model import CatchUp

if TYPE_CHECKING:
    from .interfaces import Schedule

CATCHUP_WINDOW = timedelta(hours=24)
"""A missed tick older than this is not caught up."""

PUNCTUAL = timedelta(seconds=60)
"""Without catching up, a tick runs when it is no later than this."""

_INSTANT = timedelta(microseconds=1)


class Policy(NamedTuple):
    """Which ticks of a downtime still run, and how old they may be."""

    catch_up: CatchUp = CatchUp.LATEST
    window: timedelta = CATCHUP_WINDOW


LATEST = Policy()


@dataclass(frozen=True, slots=True)
class Stretch:
    """Ticks in a row: the first, the last, and how many they are."""

    first: datetime
    last: datetime
    count: int


class Pause(NamedTuple):
    """A pause that is over: the ticks at or after `start` and before `end` do not run."""

    start: datetime
    end: datetime


class Decision(NamedTuple):
    """What becomes of a job's due ticks.

    `run` is the tick to run, if any; `missed` the ticks before it that will never run; `last`
    the newest tick that is settled by this; `next` the first one that is not. `paused` are
    ticks that a pause has skipped; then there are no others.
    """

    run: datetime | None
    missed: Stretch | None
    last: datetime
    next: datetime | None
    paused: Stretch | None = None


def decide(
    schedule: Schedule,
    due: datetime,
    now: datetime,
    policy: Policy = LATEST,
    pause: Pause | None = None,
) -> Decision:
    """Settle the ticks from `due` (the job's next tick) up to `now`.

    One that lies ahead of `now` is settled alone: it was claimed early. Of those behind, one
    runs: the newest, or under `all` the oldest inside the window, and the younger ones are
    settled by later calls. Those before it are missed, and so is the newest where it is older
    than the window, or under `none` than a minute.
    The ticks before a pause are settled first, then those in it, then the rest, by a call each.
    Nothing is walked, so a year of a per-second schedule costs no more than a minute.
    """
    if pause is not None and pause.start <= due < pause.end:
        return _skip(schedule, due, pause.end)
    following = schedule.next(due)
    if due > now:
        return Decision(due, None, due, following)
    horizon, overtaken = now + _INSTANT, False
    if pause is not None and due < pause.start:
        horizon = min(horizon, pause.start)
        overtaken = _is_overtaken(schedule, pause, now, policy)
    newest = due
    if following is not None and following < horizon:
        newest = max(due, schedule.previous(horizon) or due)
    window = policy.window
    if policy.catch_up is CatchUp.NONE:
        window = min(window, PUNCTUAL)
    if overtaken or now - newest > window:
        missed = _stretch(schedule, due, newest)
        return Decision(None, missed, newest, schedule.next(newest))
    run = newest
    if policy.catch_up is CatchUp.ALL:
        run = due if now - due <= window else schedule.next(now - window - _INSTANT) or newest
    if run == due:
        return Decision(run, None, run, following)
    missed = _stretch(schedule, due, schedule.previous(run) or due)
    return Decision(run, missed, run, schedule.next(run))


def at_most(most: int, schedule: Schedule, now: datetime, policy: Policy) -> Policy:
    """Return the policy, its window cut to what holds the newest `most` ticks."""
    tick = now + _INSTANT
    for _ in range(most):
        before = schedule.previous(tick)
        if before is None or now - before > policy.window:
            return policy
        tick = before
    return policy._replace(window=now - tick)


def _skip(schedule: Schedule, due: datetime, end: datetime) -> Decision:
    last = max(due, schedule.previous(end) or due)
    return Decision(None, None, last, schedule.next(last), _stretch(schedule, due, last))


def _is_overtaken(schedule: Schedule, pause: Pause, now: datetime, policy: Policy) -> bool:
    """Return whether a tick after the pause runs late instead of one before it."""
    following = schedule.next(pause.end - _INSTANT)
    return policy.catch_up is not CatchUp.ALL and following is not None and following <= now


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
        heap, found, places = self._heap, [], [0]
        while places:
            place = places.pop()
            if place < len(heap) and heap[place][0] <= horizon:
                found.append(heap[place])
                places += (2 * place + 1, 2 * place + 2)  # below it on the heap: not earlier
        found.sort()
        return list(dict.fromkeys(id_ for tick, id_ in found if self._next.get(id_) == tick))
