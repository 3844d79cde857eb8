"""Every metric that hooks move, in one registry, and what must be remembered to move them."""

from __future__ import annotations

import os
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

if TYPE_CHECKING:
    from collections.abc import Iterable

    from systemprompt_jobs import Run

PREFIX = "systemprompt_jobs_"

OTHER = "other"
"""The label of all jobs beyond the limit."""

SUCCESS = "succeeded"
FAILURES = ("failed", "timed_out", "lost")

DURATIONS = (0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600, 14400)
LATENESS = (0.05, 0.1, 0.25, 0.5, 1, 5, 15, 60, 300, 3600)

_NEVER = datetime.min.replace(tzinfo=UTC)


class Series:
    """The metrics of one registry. At most `max_jobs` jobs have a label of their own."""

    def __init__(self, registry: CollectorRegistry, max_jobs: int) -> None:
        self.registry = registry
        self._max_jobs = max_jobs
        self._job_ids: set[str] = set()
        self._lock = threading.Lock()
        self._started: dict[tuple[str, int], str] = {}
        self.recalled: set[str] = set()  # jobs whose earlier ends were looked up
        self.is_database_away = False

        def counter(name: str, help_: str, *labels: str) -> Counter:
            return Counter(PREFIX + name, help_, labels, registry=registry)

        def histogram(name: str, help_: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(PREFIX + name, help_, ["job_id"], registry=registry, buckets=buckets)

        def gauge(
            name: str, help_: str, *labels: str, mode: Literal["livesum", "max", "livemax"]
        ) -> Gauge:
            return Gauge(PREFIX + name, help_, labels, registry=registry, multiprocess_mode=mode)

        self.runs = counter(
            "runs",
            "Runs that ended, by outcome: succeeded, failed, lost …",
            "job_id",
            "outcome",
        )
        self.retried = counter("runs_retried", "Attempts that failed and are retried.", "job_id")
        self.rescued = counter(
            "runs_rescued", "Runs taken from a dead scheduler before they had begun.", "job_id"
        )
        self.fenced = counter(
            "runs_fenced", "Reports that came too late and were discarded.", "job_id"
        )
        self.claimed = counter("ticks_claimed", "Ticks that this scheduler claimed.", "job_id")
        self.skipped = counter(
            "ticks_skipped", "Ticks and runs that were skipped.", "job_id", "reason"
        )
        self.missed = counter("ticks_missed", "Ticks that no scheduler could run.", "job_id")
        self.duration = histogram(
            "run_duration_seconds", "How long the last attempt of a run took.", DURATIONS
        )
        self.lateness = histogram(
            "run_lateness_seconds", "How long after its time a tick first started.", LATENESS
        )
        self.running = gauge("running", "Functions that run now.", "job_id", mode="livesum")
        self._last_success = _Newest(
            gauge(
                "last_success_timestamp_seconds", "When a run last succeeded.", "job_id", mode="max"
            )
        )
        self._last_failure = _Newest(
            gauge(
                "last_failure_timestamp_seconds",
                "When a run last failed, timed out or was lost.",
                "job_id",
                mode="max",
            )
        )
        self._unavailable = gauge(
            "database_unavailable", "1 while the database cannot be used.", mode="livemax"
        )
        self._outages = counter("database_outages", "How often the database was lost.")
        self._outage_seconds = counter(
            "database_outage_seconds", "How long it was lost, added when it is back."
        )
        self.plugin_errors = counter(
            "plugin_errors", "Plugins and jobs found degraded, and observers that raised."
        )
        self.pruned = counter("pruned_rows", "Old rows that were forgotten.", "kind")

    def label(self, job_id: str) -> str:
        """Return the job's label: its id, or `other` once there are too many."""
        with self._lock:
            if job_id not in self._job_ids:
                if len(self._job_ids) >= self._max_jobs:
                    return OTHER
                self._job_ids.add(job_id)
            return job_id

    # --- what runs in this process; other processes count their own ---

    def start(self, run: Run) -> None:
        """Note that a function runs."""
        key = (run.node, run.id)
        if key not in self._started:
            self._started[key] = self.label(run.job_id)
            self.running.labels(self._started[key]).inc()

    def end(self, run: Run) -> None:
        """Note that it runs no more. One that waits for any node to retry it names none."""
        self._drop([key for key in self._started if key[1] == run.id and run.node in ("", key[0])])

    def end_all(self, node_id: str) -> None:
        """Note that a node is gone; the end of what it ran may never have been recorded."""
        self._drop([key for key in self._started if key[0] == node_id])

    def _drop(self, keys: Iterable[tuple[str, int]]) -> None:
        for key in keys:
            self.running.labels(self._started.pop(key)).dec()

    # --- how jobs did last ---

    def note_end(self, label: str, run: Run) -> None:
        """Note a success or a failure, also one of the past or of another process."""
        if run.state == SUCCESS:
            self._last_success.note(label, run.finished or datetime.now(UTC))
        elif run.state in FAILURES:
            self._last_failure.note(label, run.finished or datetime.now(UTC))

    # --- the database ---

    def lose_database(self) -> None:
        """Note that an outage begins."""
        self._outages.inc()
        self._set_away(away=True)

    def regain_database(self, after_s: float = 0) -> None:
        """Note that it can be used, after `after_s` seconds of an outage."""
        self._outage_seconds.inc(max(0, after_s))
        self._set_away(away=False)

    def _set_away(self, *, away: bool) -> None:
        self.is_database_away = away
        self._unavailable.set(away)


class _Newest:
    """A gauge of instants by job that only moves forward. `other` has none: it would be anybody's."""

    def __init__(self, gauge: Gauge) -> None:
        self._gauge = gauge
        self._lock = threading.Lock()  # hooks note, and so does whoever reads the page
        self._instants: dict[str, datetime] = {}

    def note(self, label: str, instant: datetime) -> None:
        with self._lock:
            if label != OTHER and instant > self._instants.get(label, _NEVER):
                self._instants[label] = instant
                self._gauge.labels(label).set(instant.timestamp())


_process_registry = CollectorRegistry()
"""In multi-process mode: two registries of one process would overwrite each other's values."""

_shared: dict[CollectorRegistry, Series] = {}


def is_multiprocess() -> bool:
    """Return whether prometheus_client keeps the values in files that processes share."""
    return "PROMETHEUS_MULTIPROC_DIR" in os.environ


def make_series(
    registry: CollectorRegistry | None, max_jobs: int, *, is_global: bool = False
) -> Series:
    """Return the metrics of a registry; without one, of the global, the process's or a new one."""
    if registry is None and is_global:
        registry = REGISTRY
    elif registry is None and is_multiprocess():
        registry = _process_registry
    if registry not in {REGISTRY, _process_registry}:
        return Series(registry or CollectorRegistry(), max_jobs)
    if registry not in _shared:  # a registry can hold a name only once
        _shared[registry] = Series(registry, max_jobs)
    return _shared[registry]
