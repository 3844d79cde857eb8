"""One thing worth saying, and its words."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from systemprompt_jobs import Report, Run

FIELDS = ("subject", "text", "kind", "job", "run", "node", "error", "at")
"""What a template may name."""

_LONGEST_ERROR = 1_000
_SHOWN_JOBS = 20
_UNPRINTABLE = re.compile("[^\n\t\x20-\x7e\xa0-\ud7ff\ue000-\U0010ffff]")


class Kind(StrEnum):
    """What routes tell apart."""

    FAILED = "failed"
    TIMED_OUT = "timed_out"
    LOST = "lost"
    MISSED = "missed"
    NO_SUCCESS = "no_success"
    DATABASE = "database"
    RECOVERED = "recovered"


@dataclass(frozen=True, slots=True)
class Alert:
    """What a channel sends. `kind` is a `Kind`, or `summary` or `test`, which no route names."""

    kind: str
    subject: str
    at: datetime
    job: str = ""
    details: str = ""
    run: int | None = None
    node: str = ""
    error: str = ""

    @property
    def text(self) -> str:
        """The subject, then the details."""
        return f"{self.subject}\n{self.details}".rstrip()

    def fields(self) -> dict[str, str]:
        """Return the `FIELDS`; what does not apply is empty."""
        values = {name: getattr(self, name) for name in FIELDS}
        values |= {"at": self.at.isoformat(timespec="seconds"), "run": str(self.run or "")}
        return {name: str(value) for name, value in values.items()}


def clean(text: str) -> str:
    """Return the text without what a channel may not be able to send."""
    return _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text)


def of_run(kind: Kind, run: Run, report: Report | None, now: datetime) -> Alert:
    """Return the alert of a run that came to a bad end."""
    error = clean(report.error if report else run.error)[:_LONGEST_ERROR]
    message = clean(report.message)[:_LONGEST_ERROR] if report else ""
    words = {
        Kind.FAILED: "failed",
        Kind.TIMED_OUT: "took longer than its timeout",
        Kind.LOST: "was lost: its node died, and nobody knows how far it came",
    }
    lines = [error, message if message != error else "", _origin(run)]
    return Alert(
        kind,
        f"{run.job_id} {words[kind]}",
        run.finished or now,
        run.job_id,
        "\n".join(line for line in lines if line),
        run.id,
        run.node,
        error,
    )


def _origin(run: Run) -> str:
    tick = f", tick {run.tick:%Y-%m-%d %H:%M:%S} UTC" if run.tick else f", by {run.trigger}"
    return f"run {run.id}{tick}, attempt {run.attempt}, on node {run.node}"


def of_missed(run: Run, now: datetime) -> Alert:
    """Return the alert of ticks that no scheduler could run."""
    last = run.last_tick or run.tick or now
    ticks = "a tick" if run.count == 1 else f"{run.count} ticks"
    stretch = f"from {run.tick or last:%Y-%m-%d %H:%M:%S} to {last:%Y-%m-%d %H:%M:%S} UTC"
    return Alert(
        Kind.MISSED, f"{run.job_id} missed {ticks}", last, run.job_id, stretch, run.id, run.node
    )


def summary(alerts: Sequence[Alert], now: datetime) -> Alert:
    """Return one alert that stands for several."""
    kinds = {kind: sum(a.kind == kind for a in alerts) for kind in {a.kind: 0 for a in alerts}}
    counts = ", ".join(f"{number} {kind}" for kind, number in kinds.items())
    jobs = list({alert.subject: None for alert in alerts})
    more = [f"and {len(jobs) - _SHOWN_JOBS} more"] if len(jobs) > _SHOWN_JOBS else []
    lines = "\n".join([*jobs[:_SHOWN_JOBS], *more])
    return Alert("summary", f"{len(alerts)} more alerts: {counts}", now, details=lines)


def named(alert: Alert, name: str) -> Alert:
    """Return the alert with the deployment's name before its subject."""
    return replace(alert, subject=f"[{name}] {alert.subject}")
