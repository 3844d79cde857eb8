"""The answers of commands as their `--json` has them, for pages that serve the same."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from systemprompt_jobs.errors import UnknownJobError

from .cli._check import _answer as _check
from .cli._check import _look
from .cli._config import _answer as _config
from .cli._doctor import _answer as _doctor
from .cli._explain import _answer as _explain
from .cli._history import known_states
from .cli._job import find_orphan, job_answer, orphan_answer
from .cli._logs import _answer as _logs
from .cli._next import _answer as _next
from .cli._next import _upcoming
from .cli._nodes import _answer as _node
from .cli._plans import tagged
from .cli._plugins import _plugins
from .cli._run_details import run_answer
from .cli._shapes import job_shape, orphan_shape, run_shape
from .cli._stats import _answer as _stats
from .cli._status import _answer as _status
from .cli._times import duration, moment, read_instant

if TYPE_CHECKING:
    from collections.abc import Sequence

    from systemprompt_jobs import Runtime

__all__ = [
    "audit",
    "check",
    "config",
    "doctor",
    "dumps",
    "explain",
    "history",
    "job",
    "jobs",
    "logs",
    "nodes",
    "plugins",
    "run",
    "stats",
    "status",
    "upcoming",
]

config, logs, run = _config, _logs, run_answer


def dumps(answer: dict[str, Any]) -> str:
    """Return an answer as text; instants are ISO 8601 with their offset."""
    return json.dumps(
        answer, default=lambda v: v.isoformat() if isinstance(v, datetime) else str(v)
    )


def jobs(runtime: Runtime, tag: str | None = None) -> dict[str, Any]:
    """Return what `list` answers. Raises UsageError for a tag that no job has."""
    found = runtime.jobs()
    if tag is not None:
        chosen = tagged(runtime.plans, tag)
        found = [job for job in found if job.plan in chosen]
    orphans = runtime.orphans() if tag is None else []
    shapes = [orphan_shape(orphan) for orphan in orphans]
    return {"jobs": [job_shape(one) for one in found], "orphaned": shapes}


def job(runtime: Runtime, name: str) -> dict[str, Any]:
    """Return what `status JOB` answers, also of an orphaned job. Raises UnknownJobError."""
    try:
        return job_answer(runtime, runtime.find(name))
    except UnknownJobError:
        if orphan := find_orphan(runtime, name):
            return orphan_answer(runtime, orphan)
        raise


def explain(runtime: Runtime, name: str, at: str | None = None) -> dict[str, Any]:
    """Return what `explain JOB --at TIME` answers."""
    zone = ZoneInfo(runtime.find(name).timezone)
    return _explain(runtime.explain(name, read_instant("at", at, zone) if at else None))


def upcoming(
    runtime: Runtime,
    number: int,
    *,
    job: str | None = None,
    start: str | None = None,
    zone: str | None = None,
    schedule: str | None = None,
) -> dict[str, Any]:
    """Return what `next` answers of a job, of a schedule's text, or of all jobs."""
    return _next(_upcoming(runtime, job, start, zone, schedule), number)


def status(runtime: Runtime) -> dict[str, Any]:
    """Return what `status` answers without a job."""
    return _status(runtime.status())


def history(
    runtime: Runtime,
    number: int,
    *,
    states: Sequence[str] = (),
    tag: str | None = None,
    since: str | None = None,
    until: str | None = None,
    **filters: Any,
) -> dict[str, Any]:
    """Return what `history` answers; `filters` are more of what `Runtime.history` takes."""
    if tag is not None:
        tagged(runtime.plans, tag)
    found = runtime.history(
        states=known_states(states) or None,
        tag=tag,
        since=moment("since", since) if since else None,
        until=moment("until", until) if until else None,
        limit=number,
        **filters,
    )
    return {"runs": [run_shape(one) for one in found]}


def nodes(runtime: Runtime, gone: str) -> dict[str, Any]:
    """Return what `nodes` answers."""
    return {"nodes": [_node(node) for node in runtime.nodes(duration("gone", gone))]}


def stats(runtime: Runtime, names: Sequence[str], since: str) -> dict[str, Any]:
    """Return what `stats` answers."""
    found = runtime.stats(*names, since=duration("since", since))
    return {"jobs": [_stats(one) for one in found]}


def audit(runtime: Runtime, limit: int, before: int | None) -> dict[str, Any]:
    """Return what `audit` answers."""
    return {"entries": [asdict(entry) for entry in runtime.audit(limit, before)]}


def check(runtime: Runtime, *, diff: bool = False) -> dict[str, Any]:
    """Return what `check` answers."""
    return _check(runtime, *_look(runtime, diff=diff))


def doctor(runtime: Runtime) -> dict[str, Any]:
    """Return what `doctor` answers."""
    return _doctor(runtime.examine())


def plugins(runtime: Runtime) -> dict[str, Any]:
    """Return what `plugins` answers."""
    return {"plugins": list(_plugins(runtime))}
