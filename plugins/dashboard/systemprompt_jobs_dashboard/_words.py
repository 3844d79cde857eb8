"""Instants, durations, states and runs in the short words and marks of the pages."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from systemprompt_jobs.builtin import words
from systemprompt_jobs.model import RETRYING, State

if TYPE_CHECKING:
    from systemprompt_jobs import Run
    from systemprompt_jobs.model import Glance, JobOverview

MARKS = {
    "pending": "·",
    "claimed": "·",
    "dispatched": "→",
    "running": "▶",
    "succeeded": "✓",
    "retried": "↻",
    "failed": "✗",
    "timed_out": "T",
    "cancelled": "■",
    "lost": "?",
    "skipped": "-",
    "missed": "!",
}
"""Look → its mark; an unknown state of a newer scheduler has a dot."""

_OWN_ENDS = (State.SUCCEEDED, State.FAILED, State.TIMED_OUT)
_WHY = {
    "overlap": "the run before still ran",
    "paused": "the job was paused",
    "catch-up": "a tick that was caught up ran instead",
    "clock": "a clock was wrong",
    "missed": "no scheduler ran it in time",
}
"""Reason or state of what never ran → why, for who sees only a line of it."""


class Mark(NamedTuple):
    """How a run looks: `look` is the style, `words` say it in full."""

    look: str
    symbol: str
    words: str
    run: Glance


def now() -> datetime:
    """Return the present."""
    return datetime.now(UTC)


def look(run: Run | Glance) -> str:
    """Return the style of a run: its state, or that it has succeeded only at a later attempt."""
    return "retried" if run.state is State.SUCCEEDED and run.attempt > 1 else str(run.state)


def mark(run: Glance) -> Mark:
    """Return how a run looks."""
    said = f"{state_words(run)}, {instant(run.at)} UTC"
    if run.duration is not None:
        said += f", took {took(run.duration)}"
    return Mark(look(run), MARKS.get(look(run), "·"), said, run)


def state_words(run: Run | Glance) -> str:
    """Return the state, its reason, and how many ticks or attempts it stands for."""
    reason = f": {run.reason}" if run.reason else ""
    count = f" x{run.count}" if run.count > 1 else ""
    tries = f", attempt {run.attempt}" if run.attempt > 1 else ""
    waits = run.attempt and run.state in (State.PENDING, State.CLAIMED)
    return f"{spaced(RETRYING if waits else run.state)}{reason}{count}{tries}"


def spaced(state: str) -> str:
    """Return a state as people write it."""
    return state.replace("_", " ")


def said(run: Run) -> str:
    """Return what a run said, or why there was none."""
    return run.error or run.message or _WHY.get(run.reason or run.state, "")


def duration(run: Glance) -> timedelta | None:
    """Return how long a run took that came to its own end; of a lost one nobody knows."""
    return run.duration if run.state in _OWN_ENDS else None


def instant(value: datetime | None) -> str:
    """Return e.g. `2026-05-01 02:30:00`, UTC; a dash for None."""
    return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S") if value else "-"


def precise(value: datetime | None) -> str:
    """Return an instant with its milliseconds."""
    return f"{instant(value)}.{value.microsecond // 1000:03}" if value else "-"


def relative(value: datetime | None, to: datetime) -> str:
    """Return e.g. `in 12 min` or `3 h ago`; a dash for None."""
    return words.relative(value, to) if value else "-"


def took(value: timedelta | None) -> str:
    """Return e.g. `12 ms`, `3.4 s`, `2 min 5 s`; a dash for None."""
    return words.took(value) or "-"


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
