"""The answers of commands as their `--json` has them, for pages that serve the same."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any

from .cli._job import job_answer
from .cli._nodes import _answer as _node
from .cli._run_details import run_answer
from .cli._shapes import job_shape, orphan_shape, run_shape
from .cli._stats import _answer as _stats
from .cli._status import _answer as _status

if TYPE_CHECKING:
    from collections.abc import Iterable

    from systemprompt_jobs import Run, Runtime
    from systemprompt_jobs.model import JobStats, NodeOverview

__all__ = ["audit", "dumps", "history", "job", "jobs", "nodes", "run", "stats", "status"]

job, run = job_answer, run_answer


def dumps(answer: dict[str, Any]) -> str:
    """Return an answer as text; instants are ISO 8601 with their offset."""
    return json.dumps(
        answer, default=lambda v: v.isoformat() if isinstance(v, datetime) else str(v)
    )


def jobs(runtime: Runtime) -> dict[str, Any]:
    """Return what `list` answers."""
    return {
        "jobs": [job_shape(found) for found in runtime.jobs()],
        "orphaned": [orphan_shape(found) for found in runtime.orphans()],
    }


def status(runtime: Runtime) -> dict[str, Any]:
    """Return what `status` answers without a job."""
    return _status(runtime.status())


def history(runs: Iterable[Run]) -> dict[str, Any]:
    """Return what `history` answers."""
    return {"runs": [run_shape(run) for run in runs]}


def nodes(found: Iterable[NodeOverview]) -> dict[str, Any]:
    """Return what `nodes` answers."""
    return {"nodes": [_node(node) for node in found]}


def stats(found: Iterable[JobStats]) -> dict[str, Any]:
    """Return what `stats` answers."""
    return {"jobs": [_stats(one) for one in found]}


def audit(runtime: Runtime, limit: int, before: int | None) -> dict[str, Any]:
    """Return what `audit` answers."""
    return {"entries": [asdict(entry) for entry in runtime.audit(limit, before)]}
