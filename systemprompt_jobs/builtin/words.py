"""Instants, durations and schedules in the short words of commands and pages."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from systemprompt_jobs.model import Plan

_UNITS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))
_MINUTE = 60


def relative(value: datetime, to: datetime) -> str:
    """Return e.g. `in 12 min` or `3 h ago`."""
    seconds = round((value - to).total_seconds())
    size, unit = next((u for u in _UNITS if abs(seconds) >= u[0]), _UNITS[-1])
    number = abs(seconds) // size
    if not number:
        return "now"
    return f"in {number} {unit}" if seconds > 0 else f"{number} {unit} ago"


def took(value: timedelta | None) -> str:
    """Return e.g. `12 ms`, `3.4 s`, `2 min 5 s`; empty for None."""
    if value is None:
        return ""
    seconds = value.total_seconds()
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < _MINUTE:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), _MINUTE)
    if minutes < _MINUTE:
        return f"{minutes} min {rest} s"
    return f"{minutes // _MINUTE} h {minutes % _MINUTE} min"


def schedule_text(plan: Plan) -> str:
    """Return the schedule as it is written; empty for a job without one."""
    if plan.schedule is not None:
        return plan.schedule.text
    sources = plan.sources.get("schedule")
    return str(sources[-1].value) if sources else ""


def schedule_words(plan: Plan) -> str:
    """Return the schedule in plain English."""
    if plan.schedule is None:
        return schedule_text(plan) or ("at start-up" if plan.starts_up else "by hand")
    try:
        return plan.schedule.describe()
    except Exception:  # noqa: BLE001 - a plugin's own schedule
        return plan.schedule.text
