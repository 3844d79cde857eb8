"""The plugin: each lifecycle hook moves its metrics, and `/metrics` shows them."""

from __future__ import annotations

import os
import socket
import threading
from typing import TYPE_CHECKING

from systemprompt_jobs import hookimpl

if TYPE_CHECKING:
    from datetime import timedelta

    from prometheus_client import CollectorRegistry

    from systemprompt_jobs import Report, Run, Runtime
    from systemprompt_jobs.model import Node

    from ._series import Series

PATH = "/metrics"
MAX_JOBS = "SYSTEMPROMPT_JOBS_PROMETHEUS_MAX_JOBS"
WHICH_REGISTRY = "SYSTEMPROMPT_JOBS_PROMETHEUS_REGISTRY"


class Metrics:
    """The plugin.

    - `registry`: where the metrics are kept, e.g. `prometheus_client.REGISTRY`. Otherwise what
      `SYSTEMPROMPT_JOBS_PROMETHEUS_REGISTRY` says; by default a new one.
    - `max_jobs`: how many jobs have a label of their own. Otherwise what
      `SYSTEMPROMPT_JOBS_PROMETHEUS_MAX_JOBS` says; by default 1000.

    Raises ValueError for a variable with a value that makes no sense.
    """

    def __init__(
        self, registry: CollectorRegistry | None = None, max_jobs: int | None = None
    ) -> None:
        self._registry = registry
        self._is_global = _is_global()
        self._max_jobs = _max_jobs() if max_jobs is None else max_jobs
        self._lock = threading.Lock()
        self._made: Series | None = None

    def _series(self) -> Series:
        """Return the metrics, made when first needed: most commands are over before."""
        with self._lock:
            if self._made is None:
                from ._series import make_series

                self._made = make_series(self._registry, self._max_jobs, is_global=self._is_global)
            return self._made

    @hookimpl
    def health_page(self, path: str, runtime: Runtime) -> tuple[str, bytes] | None:
        """Return all metrics in the text format."""
        if path != PATH:
            return None
        from ._look import page

        return page(runtime, self._series())

    # --- schedulers ---

    @hookimpl
    def scheduler_started(self) -> None:
        """Note that there is a database."""
        self._series().regain_database()

    @hookimpl
    def scheduler_stopped(self, node: Node) -> None:
        """Note that nothing of it runs any more."""
        self._series().end_all(node.id)

    @hookimpl
    def node_left(self, node: Node) -> None:
        """Drop from the files of all processes what one that was killed had running."""
        from ._series import is_multiprocess

        if is_multiprocess() and node.host == socket.gethostname() and not _is_alive(node.pid):
            from prometheus_client.multiprocess import mark_process_dead

            mark_process_dead(node.pid)  # type: ignore[no-untyped-call]

    # --- ticks ---

    @hookimpl
    def tick_claimed(self, run: Run) -> None:
        """Count it."""
        self._series().claimed.labels(self._label(run)).inc()

    @hookimpl
    def tick_skipped(self, run: Run) -> None:
        """Count them: the ticks of a pause are one call."""
        self._series().skipped.labels(self._label(run), run.reason).inc(run.count)

    @hookimpl
    def tick_missed(self, run: Run) -> None:
        """Count them: a stretch is one call."""
        self._series().missed.labels(self._label(run)).inc(run.count)

    # --- runs ---

    @hookimpl
    def run_started(self, run: Run) -> None:
        """Note how late a tick is; a retry is late on purpose."""
        self._series().start(run)
        if run.tick and run.due and run.started and run.attempt == 1:
            late = (run.started - run.due).total_seconds()
            self._series().lateness.labels(self._label(run)).observe(max(0, late))

    @hookimpl(optionalhook=True)  # of versions that retry
    def run_retrying(self, run: Run, report: Report) -> None:
        """Count it; what waits does not run. An attempt that was lost ran elsewhere."""
        if report.outcome != "lost":
            self._series().end(run)
        self._series().retried.labels(self._label(run)).inc()

    @hookimpl
    def run_finished(self, run: Run, report: Report | None) -> None:
        """Count it by its outcome."""
        self._series().end(run)
        label = self._label(run)
        self._series().runs.labels(label, str(run.state)).inc()
        self._series().note_end(label, run)
        if report is not None:
            self._series().duration.labels(label).observe(report.duration.total_seconds())

    @hookimpl
    def run_cancelled(self, run: Run) -> None:
        """Count what was given up before it began: it has no `run_finished`."""
        if run.attempt == 0:
            self._series().runs.labels(self._label(run), str(run.state)).inc()

    @hookimpl
    def run_rescued(self, run: Run) -> None:
        """Count it."""
        self._series().rescued.labels(self._label(run)).inc()

    @hookimpl
    def run_fenced(self, run: Run) -> None:
        """Count it; what became of the run is counted by whoever took it."""
        self._series().end(run)
        self._series().fenced.labels(self._label(run)).inc()

    # --- the rest ---

    @hookimpl
    def database_unavailable(self) -> None:
        """Count it."""
        self._series().lose_database()

    @hookimpl
    def database_recovered(self, after: timedelta) -> None:
        """Add up how long it was away."""
        self._series().regain_database(after.total_seconds())

    @hookimpl
    def history_pruned(self, runs: int, nodes: int, audits: int) -> None:
        """Count the rows."""
        for kind, rows in (("runs", runs), ("nodes", nodes), ("audits", audits)):
            self._series().pruned.labels(kind).inc(rows)

    @hookimpl
    def plugin_failed(self) -> None:
        """Count it; the log names the culprit."""
        self._series().plugin_errors.inc()

    def _label(self, run: Run) -> str:
        return self._series().label(run.job_id)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    return True


def _is_global() -> bool:
    wanted = os.environ.get(WHICH_REGISTRY, "own")
    if wanted not in {"own", "global"}:
        raise ValueError(f"{WHICH_REGISTRY}={wanted!r}: write `own` or `global`")
    return wanted == "global"


def _max_jobs() -> int:
    text = os.environ.get(MAX_JOBS, "1000")
    if not text.isascii() or not text.isdigit():
        raise ValueError(f"{MAX_JOBS}={text!r}: write a whole number")
    return int(text)
