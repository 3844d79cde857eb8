"""Instants, durations, states and runs in the short words and marks of the pages."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from systemprompt_jobs.model import State

if TYPE_CHECKING:
    from systemprompt_jobs import Run
    from systemprompt_jobs.model import JobOverview, Plan

_UNITS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))
_MINUTE = 60
MARKS = {
    "pending": "·",
    "claimed": "·",
    "dispatched": "→",
    "running": "▶",
    "succeeded": "✓",
    "retried": "↻",
    "failed": "✗",
    "cancelled": "■",
    "lost": "?",
    "skipped": "-",
    "missed": "!",
}
"""Look → its mark; an unknown state of a newer scheduler has a dot."""


class Mark(NamedTuple):
    """How a run looks: `look` is the style, `words` say it in full."""

    look: str
    symbol: str
    words: str
    run: Run


def now() -> datetime:
    """Return the present."""
    return datetime.now(UTC)


def look(run: Run) -> str:
    """Return the style of a run: its state, or that it has succeeded only at a later attempt."""
    return "retried" if run.state is State.SUCCEEDED and run.attempt > 1 else str(run.state)


def mark(run: Run) -> Mark:
    """Return how a run looks."""
    begun = run.tick or run.started or run.created
    words = f"{state_words(run)}, {instant(begun)} UTC"
    if run.duration is not None:
        words += f", took {took(run.duration)}"
    return Mark(look(run), MARKS.get(look(run), "·"), words, run)


def state_words(run: Run) -> str:
    """Return the state, its reason, and how many ticks or attempts it stands for."""
    reason = f": {run.reason}" if run.reason else ""
    count = f" x{run.count}" if run.count > 1 else ""
    tries = f", attempt {run.attempt}" if run.attempt > 1 else ""
    return f"{run.state}{reason}{count}{tries}"


def instant(value: datetime | None) -> str:
    """Return e.g. `2026-05-01 02:30:00`, UTC; a dash for None."""
    return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S") if value else "-"


def precise(value: datetime | None) -> str:
    """Return an instant with its milliseconds."""
    return f"{instant(value)}.{value.microsecond // 1000:03}" if value else "-"


def relative(value: datetime | None, to: datetime) -> str:
    """Return e.g. `in 12 min` or `3 h ago`; a dash for None."""
    if value is None:
        return "-"
    seconds = round((value - to).total_seconds())
    size, unit = next((u for u in _UNITS if abs(seconds) >= u[0]), _UNITS[-1])
    number = abs(seconds) // size
    if not number:
        return "now"
    return f"in {number} {unit}" if seconds > 0 else f"{number} {unit} ago"


def took(value: timedelta | None) -> str:
    """Return e.g. `12 ms`, `3.4 s`, `2 min 5 s`; a dash for None."""
    if value is None:
        return "-"
    seconds = value.total_seconds()
    if abs(seconds) < 1:
        return f"{seconds * 1000:.0f} ms"
    if abs(seconds) < _MINUTE:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), _MINUTE)
    if minutes < _MINUTE:
        return f"{minutes} min {rest} s"
    return f"{minutes // _MINUTE} h {minutes % _MINUTE} min"


def schedule_words(plan: Plan) -> str:
    """Return the schedule in plain English."""
    if plan.schedule is None:
        sources = plan.sources.get("schedule")
        written = str(sources[-1].value) if sources else ""
        return written or ("at start-up" if plan.starts_up else "by hand")
    try:
        return plan.schedule.describe()
    except Exception:  # noqa: BLE001 - a plugin's own schedule
        return plan.schedule.text


def condition(job: JobOverview) -> str:
    """Return in one word what keeps a job from running as planned; `enabled` if nothing does."""
    if job.plan.problem is not None:
        return "degraded"
    if job.superseded is not None:
        return "superseded"
    if not job.plan.enabled:
        return "disabled"
    if job.held_until is not None:
        return "held"
    return "paused" if job.pause is not None else "enabled"
