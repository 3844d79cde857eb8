"""What would a start of this configuration change? Compares plans with the database's jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .model import Change

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from ._store.jobs import JobRow
    from .model import Plan


def changes(plans: Iterable[Plan], rows: Mapping[str, JobRow]) -> list[Change]:
    """Return every difference, in the order of job ids; a job that is gone keeps its history."""
    known = {plan.id: plan for plan in plans if plan.problem is None}
    found = []
    for id_ in sorted(known.keys() | rows.keys()):
        if id_ not in rows:
            found.append(Change(id_, "job", "", f"new, {_schedule(known[id_]) or 'no schedule'}"))
        elif id_ not in known:
            found.append(Change(id_, "job", rows[id_].schedule, "gone: nothing here provides it"))
        else:
            found += _differences(known[id_], rows[id_])
    return found


def _differences(plan: Plan, row: JobRow) -> Iterator[Change]:
    window = round(plan.catchup_window.total_seconds())
    pairs = {
        "enabled": (row.next_tick is not None, plan.enabled and plan.schedule is not None),
        "schedule": (row.schedule, _schedule(plan)),
        "timezone": (row.timezone, plan.timezone),
        "catch_up": (row.catch_up, plan.catch_up),
        "catchup_window": (f"{row.catchup_window}s", f"{window}s"),
        "version": (row.version, plan.extension.version),
    }
    for setting, (was, will_be) in pairs.items():
        if was != will_be:
            yield Change(plan.id, setting, _word(was), _word(will_be))


def _schedule(plan: Plan) -> str:
    return plan.schedule.text if plan.schedule else ""


def _word(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value) or "none"
