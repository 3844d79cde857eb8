"""What becomes of ticks that were due under a plan when another one replaces it (pure)."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from ._schedule import Decision, Pause, Policy, Stretch, at_most, decide
from ._store import pending as pending_rows
from .model import CatchUp, Overlap

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator
    from datetime import datetime

    from ._store.jobs import JobRow
    from .interfaces import Schedule

_IN_TURN = 10_000
"""Of plans with `catch_up: all` that are replaced at once, so many ticks still run in all."""


def settled(
    rows: Iterable[JobRow],
    enabled: Collection[str],
    parse: Callable[[str, str], Schedule],
    now: datetime,
) -> list[tuple[str, Decision]]:
    """Decide on what was due under plans that are being replaced, by their own policies.

    `rows` are those of the old plans; jobs that are not `enabled` any more run nothing.
    """
    due = [row for row in rows if row.next_tick and row.next_tick <= now]
    most = _IN_TURN // max(1, sum(map(_in_turn, due)))
    return [
        (row.id, decision)
        for row in due
        for decision in _settle(row, now, max(1, most), parse, runs=row.id in enabled)
    ]


def _settle(
    row: JobRow, now: datetime, most: int, parse: Callable[[str, str], Schedule], *, runs: bool
) -> Iterator[Decision]:
    """Decide on a job's ticks; under `all` the newest `most` of them run."""
    runs = runs and not row.is_paused(now)
    pause = pause_of(row, now + timedelta.resolution)
    due = row.next_tick
    try:
        kept = CatchUp(row.catch_up) if runs else CatchUp.LATEST
        policy = Policy(kept, timedelta(seconds=row.catchup_window))
        schedule = parse(row.schedule, row.timezone)
        if kept is CatchUp.ALL:
            policy = at_most(most, schedule, now, policy)
        while due is not None and due <= now:
            decision = decide(schedule, due, now, policy, pause)
            yield decision if runs else _not_run(decision, due)
            due = decision.next
    except Exception:  # noqa: BLE001  # of a syntax or policy that nothing here knows any more
        assert due is not None  # noqa: S101  # it was due
        decision = Decision(due, None, due, None)
        yield decision if runs and pause is None else _not_run(decision, due)


def pause_of(row: JobRow, horizon: datetime) -> Pause | None:
    """Return the pause of a job as far as it has come at `horizon`."""
    if row.paused_at is None:
        return None
    return Pause(row.paused_at, min(row.paused_until or horizon, horizon))


def _in_turn(row: JobRow) -> bool:
    return row.catch_up == CatchUp.ALL


def of_replaced(row: JobRow, due: datetime) -> dict[str, Any]:
    """Return what differs in a run that was due under a plan which is being replaced.

    Its own window bounds it. Those of `all` wait for each other; a run of the new plan does not
    make one `skipped`: it waits for its slot.
    """
    window = {"available_until": due + timedelta(seconds=row.catchup_window)}
    if not _in_turn(row):
        return window
    return window | {"reason": pending_rows.IN_TURN, "overlap": Overlap.QUEUE}


def _not_run(decision: Decision, due: datetime) -> Decision:
    """Return the decision with the tick that would run among the missed ones."""
    if decision.run is None:
        return decision
    missed = decision.missed
    stretch = Stretch(due, decision.last, 1 + (missed.count if missed else 0))
    return decision._replace(run=None, missed=stretch)
