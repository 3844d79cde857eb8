"""Every metric that hooks move, and what must be remembered to move them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from opentelemetry.metrics import Meter

    from systemprompt_jobs import Report, Run

DURATIONS = (0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600, 14400)
LATENESS = (0.05, 0.1, 0.25, 0.5, 1, 5, 15, 60, 300, 3600)


class Instruments:
    """The metrics of one runtime, moved by its thread of observers alone."""

    def __init__(self, meter: Meter) -> None:
        self._started: dict[tuple[str, int], str] = {}
        prefix = "systemprompt_jobs."
        self._runs = meter.create_counter(
            f"{prefix}runs", "{run}", "Runs that ended, by outcome: succeeded, failed, lost …"
        )
        self._retries = meter.create_counter(
            f"{prefix}run.retries", "{attempt}", "Attempts that failed and are retried."
        )
        self._active = meter.create_up_down_counter(
            f"{prefix}run.active", "{run}", "Functions that run now."
        )
        self._duration = meter.create_histogram(
            f"{prefix}run.duration",
            "s",
            "How long the last attempt of a run took.",
            explicit_bucket_boundaries_advisory=DURATIONS,
        )
        self._lateness = meter.create_histogram(
            f"{prefix}run.lateness",
            "s",
            "How long after its time a tick first started.",
            explicit_bucket_boundaries_advisory=LATENESS,
        )
        self._skipped = meter.create_counter(
            f"{prefix}tick.skips", "{tick}", "Ticks and runs that were skipped."
        )
        self._missed = meter.create_counter(
            f"{prefix}tick.misses", "{tick}", "Ticks that no scheduler could run."
        )

    def start(self, run: Run) -> None:
        """Note that a function runs; a retry is late on purpose."""
        key = (run.node, run.id)
        if key not in self._started:
            self._started[key] = run.job_id
            self._active.add(1, _of(run))
        if run.tick and run.due and run.started and run.attempt == 1:
            self._lateness.record(max(0, (run.started - run.due).total_seconds()), _of(run))

    def end(self, run: Run) -> None:
        """Note that it runs no more. One that waits for any node to retry it names none."""
        self._drop([key for key in self._started if key[1] == run.id and run.node in ("", key[0])])

    def end_all(self, node_id: str) -> None:
        """Note that a node is gone; the end of what it ran may never have been recorded."""
        self._drop([key for key in self._started if key[0] == node_id])

    def _drop(self, keys: Iterable[tuple[str, int]]) -> None:
        for key in keys:
            self._active.add(-1, _attributes(self._started.pop(key)))

    def retry(self, run: Run) -> None:
        """Count an attempt that is tried again."""
        self._retries.add(1, _of(run))

    def finish(self, run: Run, report: Report | None) -> None:
        """Count an end, and its duration where there is a report."""
        attributes = _of(run, outcome=str(run.state))
        if report is not None and report.error_types:
            attributes["error.type"] = report.error_types[0]
        self._runs.add(1, attributes)
        if report is not None:
            self._duration.record(report.duration.total_seconds(), attributes)

    def skip(self, run: Run) -> None:
        """Count ticks that were skipped."""
        self._skipped.add(run.count, _of(run, reason=run.reason))

    def miss(self, run: Run) -> None:
        """Count ticks that were missed."""
        self._missed.add(run.count, _of(run))


def _of(run: Run, **others: str) -> dict[str, str]:
    return _attributes(run.job_id, **others)


def _attributes(job_id: str, **others: str) -> dict[str, str]:
    own = {f"systemprompt_jobs.run.{name}": value for name, value in others.items()}
    return {"systemprompt_jobs.job.id": job_id, **own}
