"""What no hook tells: asked of the runtime each time the page is read."""

from __future__ import annotations

import math
import os
import socket
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import structlog
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector

from systemprompt_jobs.errors import StoreError

from ._series import FAILURES, OTHER, PREFIX, SUCCESS, is_multiprocess

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from prometheus_client import Metric

    from systemprompt_jobs import Runtime
    from systemprompt_jobs.model import Backlog, JobOverview, NodeOverview

    from ._series import Series


WAITING = ("pending", "retrying", "claimed", "dispatched")
LEASES = ("held", "expired")


def page(runtime: Runtime, series: Series) -> tuple[str, bytes]:
    """Return the content type and the text of the page."""
    registry = CollectorRegistry()
    registry.register(Look(runtime, series))  # first: the series show what it learns
    if is_multiprocess():
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    else:
        registry.register(series.registry)
    return CONTENT_TYPE_LATEST, generate_latest(registry)


class Look:
    """A collector that asks a runtime, in a fixed number of statements but for what it learns once.

    Without a database it yields what is known without one: the page stays whole otherwise.
    """

    def __init__(self, runtime: Runtime, series: Series) -> None:
        self._runtime = runtime
        self._series = series

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics, after the series have learnt how jobs ended before."""
        yield _one("ready", "1 while this scheduler can start runs.", self._runtime.health().ready)
        yield _one("degraded", "Plugins and jobs that do not work.", len(self._runtime.degraded))
        yield from self._observers()
        if self._series.is_database_away:
            return  # it would answer after the scraper's patience has ended
        try:
            yield from list(self._ask())
        except StoreError as error:
            log = structlog.get_logger("systemprompt_jobs")
            log.warning("metrics_without_database", reason=str(error))

    def _ask(self) -> Iterator[Metric]:
        began = time.perf_counter()
        jobs = self._runtime.jobs()
        nodes = [node for node in self._runtime.nodes() if node.state == "live"]
        backlog = self._runtime.backlog()
        took = time.perf_counter() - began
        self._learn(jobs)
        yield _one("database_look_seconds", "How long this page waited for the database.", took)
        kinds = Counter(node.kind for node in nodes)
        yield _one("nodes", "Live schedulers of the database.", kinds["scheduler"])
        yield _one("worker_nodes", "Live workers of the database.", kinds["worker"])
        yield from _of_this(nodes)
        yield from self._waiting(backlog)
        paused = Counter(self._series.label(job.plan.id) for job in jobs if job.pause)
        yield _each("paused", "1 for a paused job.", paused)
        yield _each(
            "next_tick_timestamp_seconds", "When the job is due next.", self._next_ticks(jobs)
        )

    def _observers(self) -> Iterator[Metric]:
        load = self._runtime.observers()
        dropped = "Lifecycle hook calls that did not fit into the queue."
        yield _one("observers_waiting", "Lifecycle hook calls that wait.", load.waiting)
        yield CounterMetricFamily(f"{PREFIX}observers_dropped", dropped, value=load.dropped)
        yield _one(
            "observers_busy_seconds",
            "How long the observer at work has been called; 0 if none is.",
            load.busy.total_seconds(),
        )

    def _waiting(self, backlog: Sequence[Backlog]) -> Iterator[Metric]:
        counts: Counter[tuple[str, str]] = Counter()
        since: dict[str, float] = {}
        for job in backlog:
            label = self._series.label(job.job_id)
            for state in WAITING:
                counts[label, state] += getattr(job, state)
            if job.since is not None:
                since[label] = min(job.since.timestamp(), since.get(label, math.inf))
        help_ = "Runs that wait: for a scheduler, a worker, their next attempt, or their start."
        yield _each("waiting", help_, counts, "job_id", "state")
        help_ = "When the longest pending run was due."
        yield _each("waiting_since_timestamp_seconds", help_, since)
        leases = {state: sum(getattr(job, state) for job in backlog) for state in LEASES}
        yield _each("leases", "Runs that schedulers hold, by their lease.", leases, "state")

    def _next_ticks(self, jobs: Sequence[JobOverview]) -> Mapping[str, float]:
        first: dict[str, float] = {}
        for job in jobs:
            if job.next_tick is not None:
                label, tick = self._series.label(job.plan.id), job.next_tick.timestamp()
                first[label] = min(tick, first.get(label, tick))
        return first

    def _learn(self, jobs: Iterable[JobOverview]) -> None:
        """Note how jobs ended last, whoever ran them and whenever that was."""
        for job in jobs:
            job_id, last = job.plan.id, job.last_run
            label = self._series.label(job_id)
            if label == OTHER or (last is None and not job.plan.job.aliases):
                continue
            if last is not None:
                self._series.note_end(label, last)
            if (last is None or last.state != SUCCESS) and job_id not in self._series.recalled:
                self._recall(label, job_id)

    def _recall(self, label: str, job_id: str) -> None:
        """Note the newest success, and the newest failure if it is newer: once in a process."""
        for states in ((SUCCESS, *FAILURES), (SUCCESS,)):
            for run in self._runtime.history(job=job_id, states=states, limit=1):
                self._series.note_end(label, run)
        self._series.recalled.add(job_id)


def this_process() -> str:
    """Return how the ids of this process's nodes begin."""
    return f"{socket.gethostname()}:{os.getpid()}:"


def _of_this(nodes: Iterable[NodeOverview]) -> Iterator[Metric]:
    """Yield what the database knows of this process's scheduler."""
    own = next((node for node in nodes if node.id.startswith(this_process())), None)
    if own is None:
        return
    yield _one("strays", "Threads of this scheduler that outlived their timeouts.", own.strays)
    if own.clock_offset is not None:
        help_ = "How far this clock is ahead of the database's (PostgreSQL only)."
        yield _one("clock_offset_seconds", help_, own.clock_offset.total_seconds())


def _one(name: str, help_: str, value: float) -> Metric:
    return GaugeMetricFamily(PREFIX + name, help_, value=value)


def _each(name: str, help_: str, values: Mapping[Any, float], *labels: str) -> Metric:
    """Return a gauge of each label, or tuple of labels."""
    family = GaugeMetricFamily(PREFIX + name, help_, labels=labels or ["job_id"])
    for key, value in values.items():
        family.add_metric([key] if isinstance(key, str) else key, value)
    return family
