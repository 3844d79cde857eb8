"""One log line for every transition, written by the observer's thread.

The event's name is the hook's; its fields are documented in `docs/reference/events.md`.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import structlog

from systemprompt_jobs import hookimpl

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from systemprompt_jobs import Report, Run
    from systemprompt_jobs.model import Problem


class _Log:
    """Our logger, put together anew only when structlog was configured anew: it costs 2 µs."""

    def __init__(self) -> None:
        self._lazy = structlog.get_logger("systemprompt_jobs")
        self._made: tuple[Any, Any] = (None, None)

    def __getattr__(self, level: str) -> Any:
        configured = structlog.get_config()
        known, bound = self._made
        if configured != known:
            bound = self._lazy.bind()
            self._made = configured, bound
        return getattr(bound, level)


_log = _Log()

observe = hookimpl(tryfirst=True)
"""Before other observers: a slow one must not hold a log line up."""


@functools.lru_cache(1024)
def _text(tick: datetime) -> str:
    """Return what two lines say of each run, often of many runs."""
    return tick.isoformat()


def _run_fields(run: Run) -> dict[str, Any]:
    fields: dict[str, Any] = {"job": run.job_id, "run": run.id, "trigger": str(run.trigger)}
    if run.tick is not None:
        fields["tick"] = _text(run.tick)
    return fields


def _end_fields(run: Run, report: Report) -> dict[str, Any]:
    """Return the fields of an attempt's end, last what plugins noted, e.g. a trace's id."""
    fields = _run_fields(run)
    fields["duration_s"] = round(report.duration.total_seconds(), 6)
    for name in ("message", "processed", "failed", "error"):
        value = getattr(report, name)
        if value not in ("", None):
            fields[name] = value
    for name, note in report.annotations.items():
        if name != "event":
            fields.setdefault(name, note)
    return fields


@observe
def scheduler_started(node: Any) -> None:
    """Log it."""
    _log.info("scheduler_started", node=node.id, version=node.version)


@observe
def scheduler_stopping(node: Any) -> None:
    """Log it."""
    _log.info("scheduler_stopping", node=node.id)


@observe
def scheduler_stopped(node: Any) -> None:
    """Log it."""
    _log.info("scheduler_stopped", node=node.id)


@observe
def configuration_reloaded(node: Any, problems: tuple[Problem, ...]) -> None:
    """Log it."""
    if problems:
        _log.error("configuration_refused", node=node.id, problems=[str(p) for p in problems])
    else:
        _log.info("configuration_reloaded", node=node.id)


@observe
def node_joined(node: Any) -> None:
    """Log it."""
    _log.info("node_joined", node=node.id, version=node.version)


@observe
def node_left(node: Any) -> None:
    """Log it."""
    _log.info("node_left", node=node.id)


@observe
def clock_skewed(node: Any, offset: timedelta) -> None:
    """Log it."""
    _log.warning("clock_skewed", node=node.id, offset_s=round(offset.total_seconds(), 3))


@observe
def job_paused(job_id: str, until: datetime | None, note: str, who: str) -> None:
    """Log it."""
    end = {"until": until.isoformat()} if until else {}
    _log.info("job_paused", job=job_id, **end, note=note, who=who)


@observe
def job_resumed(job_id: str, note: str, who: str) -> None:
    """Log it."""
    _log.info("job_resumed", job=job_id, note=note, who=who)


@observe
def tick_skipped(run: Run) -> None:
    """Log it: as a warning, unless its job found nothing to do."""
    last = run.last_tick
    stretch = {"last_tick": last.isoformat(), "count": run.count} if last else {}
    write = _log.info if run.reason == "job" else _log.warning
    write("tick_skipped", **_run_fields(run), **stretch, reason=run.reason)


@observe
def tick_missed(run: Run) -> None:
    """Log it."""
    last = run.last_tick.isoformat() if run.last_tick else ""
    _log.warning("tick_missed", **_run_fields(run), last_tick=last, count=run.count)


@observe
def run_started(run: Run) -> None:
    """Log it."""
    _log.info("run_started", **_run_fields(run), attempt=run.attempt)


@observe
def run_succeeded(run: Run, report: Report) -> None:
    """Log it."""
    _log.info("run_succeeded", **_end_fields(run, report))


@observe
def run_failed(run: Run, report: Report) -> None:
    """Log it, with the traceback."""
    fields = _end_fields(run, report)
    if report.traceback:
        fields["exception"] = report.traceback.rstrip()
    _log.error("run_failed", **fields)


@observe
def run_timed_out(run: Run, report: Report) -> None:
    """Log it, with the place where the function was."""
    fields = _end_fields(run, report) | {"stray": report.stray}
    if report.traceback:
        fields["exception"] = report.traceback.rstrip()
    _log.error("run_timed_out", **fields)


@observe
def run_retrying(run: Run, report: Report, delay: timedelta) -> None:
    """Log it, with the traceback."""
    fields = _end_fields(run, report)
    fields |= {"attempt": run.attempt, "max_attempts": run.max_attempts}
    fields["delay_s"] = round(delay.total_seconds(), 3)
    if report.traceback:
        fields["exception"] = report.traceback.rstrip()
    _log.warning("run_retrying", **fields)


@observe
def run_cancelled(run: Run, report: Report) -> None:
    """Log it."""
    _log.warning("run_cancelled", **_end_fields(run, report))


@observe
def run_lost(run: Run) -> None:
    """Log it."""
    _log.error("run_lost", **_run_fields(run), node=run.node)


@observe
def run_rescued(run: Run) -> None:
    """Log it."""
    _log.warning("run_rescued", **_run_fields(run), node=run.node)


@observe
def run_handed_back(run: Run) -> None:
    """Log it."""
    why = {"reason": run.reason, "message": run.message}
    _log.warning("run_handed_back", **_run_fields(run), **why)


@observe
def run_fenced(run: Run, report: Report) -> None:
    """Log it."""
    _log.warning("run_fenced", **_end_fields(run, report))


@observe
def database_unavailable(reason: str) -> None:
    """Log it."""
    _log.error("database_unavailable", reason=reason)


@observe
def database_recovered(after: timedelta) -> None:
    """Log it."""
    _log.info("database_recovered", after_s=round(after.total_seconds(), 3))


@observe
def history_pruned(runs: int, nodes: int, audits: int, before: datetime) -> None:
    """Log it."""
    counts = {"runs": runs, "nodes": nodes, "audits": audits}
    _log.info("history_pruned", **counts, before=before.isoformat())


@observe
def plugin_failed(problem: Any) -> None:
    """Log it; that an observer raised stands there already, with its traceback."""
    if problem.code == "observer":
        return
    place = str(problem.place) if problem.place.file else None
    fields = {"place": place, "remedy": problem.remedy or None}
    shown = {name: value for name, value in fields.items() if value}
    _log.error("plugin_failed", culprit=problem.culprit, reason=problem.reason, **shown)
