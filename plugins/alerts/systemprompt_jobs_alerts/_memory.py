"""What is wrong at the moment, and what of it is worth saying. Pure: it is told the time."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ._alert import Alert, Kind

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime, timedelta


@dataclass(slots=True)
class _Incident:
    """`alert` is the newest of `count`; the first came at `since`. `told` is monotonic."""

    alert: Alert
    since: datetime
    told: float
    count: int = 1


class Memory:
    """One incident for each job and kind, from the first alert until the job succeeds.

    Times called `mono` are monotonic seconds. Any thread may call; no call takes long.
    """

    def __init__(self, repeat: timedelta, database_after: timedelta) -> None:
        self._repeat = repeat.total_seconds()
        self._database_after = database_after.total_seconds()
        self._open: dict[tuple[str, str], _Incident] = {}
        self._deadlines: Mapping[str, float] = {}
        self._successes: dict[str, float] = {}
        self._seen: set[str] = set()  # the others count from the start of this process
        self._outage: tuple[Alert, float] | None = None
        self._lock = threading.Lock()

    def watch(self, deadlines: Mapping[str, timedelta], mono: float) -> None:
        """Expect a success of each of these jobs once in so long, from now on."""
        with self._lock:
            self._deadlines = {job: age.total_seconds() for job, age in deadlines.items()}
            self._successes = dict.fromkeys(deadlines, mono)

    def deadline(self, job: str) -> float:
        """Return how many seconds the job may go without a success."""
        with self._lock:
            return self._deadlines[job]

    def last_success(self, job: str, mono: float) -> None:
        """Learn when a job that is watched last succeeded; `mono` may be long ago."""
        with self._lock:
            known = self._successes[job]
            self._successes[job] = mono if job not in self._seen else max(mono, known)
            self._seen.add(job)

    def remember(self, alert: Alert, mono: float) -> None:
        """Take an incident for told: it was there before this process."""
        with self._lock:
            self._open.setdefault((alert.job, alert.kind), _Incident(alert, alert.at, mono))

    def happened(self, alert: Alert, mono: float) -> list[Alert]:
        """Return what is to be said of it: nothing if it has been said already."""
        with self._lock:
            key = alert.job, alert.kind
            if known := self._open.get(key):
                known.alert, known.count = alert, known.count + 1
                return []
            self._open[key] = _Incident(alert, alert.at, mono)
            return [alert]

    def succeeded(self, job: str, at: datetime, mono: float) -> list[Alert]:
        """Close what is open of the job; ticks that were missed are not recovered from."""
        with self._lock:
            if job in self._deadlines:
                self._successes[job] = mono
                self._seen.add(job)
            keys = [key for kind in Kind if (key := (job, str(kind))) in self._open]
            closed = [self._open.pop(key) for key in keys]
        bad = [incident for incident in closed if incident.alert.kind != Kind.MISSED]
        if not bad:
            return []
        since = min(incident.since for incident in bad)
        told = ", ".join(_times(incident) for incident in bad)
        details = f"{told} since {since:%Y-%m-%d %H:%M:%S} UTC"
        return [Alert(Kind.RECOVERED, f"{job} succeeds again", at, job, details)]

    def repeats(self, mono: float) -> list[Alert]:
        """Return what was last said so long ago that it is to be said again."""
        if not self._repeat:
            return []
        with self._lock:
            due = [i for i in self._open.values() if mono - i.told >= self._repeat]
            for incident in due:
                incident.told = mono
            return [_again(incident) for incident in due]

    def troubled(self) -> dict[str, datetime]:
        """Return the jobs with something open, and when it was last so."""
        with self._lock:
            jobs: dict[str, datetime] = {}
            for (job, _), incident in self._open.items():
                if job:
                    jobs[job] = max(incident.alert.at, jobs.get(job, incident.alert.at))
            return jobs

    def overdue(self, mono: float) -> dict[str, float]:
        """Return the jobs without a success in time, and seconds since; each until it is told."""
        with self._lock:
            return {
                job: mono - self._successes[job]
                for job, limit in self._deadlines.items()
                if mono - self._successes[job] >= limit and (job, Kind.NO_SUCCESS) not in self._open
            }

    def database_gone(self, alert: Alert, mono: float) -> None:
        """Say so if it lasts."""
        with self._lock:
            self._outage = self._outage or (alert, mono)

    def database_lasting(self, mono: float) -> list[Alert]:
        """Return the outage when it has lasted long enough to be said."""
        with self._lock:
            outage = self._outage
            if outage is None or mono - outage[1] < self._database_after:
                return []
            self._outage = None
        return self.happened(outage[0], mono)

    def database_back(self, at: datetime, after: timedelta) -> list[Alert]:
        """Close the outage."""
        with self._lock:
            self._outage = None
            closed = self._open.pop(("", Kind.DATABASE), None)
        if closed is None:
            return []
        seconds = f"{after.total_seconds():.0f} s"
        return [Alert(Kind.RECOVERED, f"the database is back after {seconds}", at)]


def _times(incident: _Incident) -> str:
    kind = incident.alert.kind.replace("_", " ")
    return kind if incident.count == 1 else f"{incident.count} times {kind}"


def _again(incident: _Incident) -> Alert:
    alert = incident.alert
    since = f"{_times(incident)} since {incident.since:%Y-%m-%d %H:%M:%S} UTC"
    details = "\n".join(line for line in (since, alert.details) if line)
    return replace(alert, subject=f"still: {alert.subject}", details=details)
