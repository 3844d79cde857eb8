"""The stable JSON of every answer, as documented in `docs/reference/commands.md`."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from systemprompt_jobs.builtin.words import schedule_text
from systemprompt_jobs.secrets import masked

from ._plans import standing

if TYPE_CHECKING:
    from systemprompt_jobs import Run
    from systemprompt_jobs.model import (
        AttemptOverview,
        JobOverview,
        Orphan,
        PauseOverview,
        Plan,
        Problem,
        Source,
        Superseding,
    )


def print_json(answer: dict[str, Any]) -> None:
    """Print an answer; instants are ISO 8601 with their offset."""
    click.echo(json.dumps(answer, indent=2, default=_plain))


def _plain(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def job_shape(overview: JobOverview) -> dict[str, Any]:
    """Return a job with its next tick and its newest run's state."""
    last, plan = overview.last_run, overview.plan
    return {
        **_identity(plan),
        "schedule": schedule_text(plan),
        "timezone": plan.timezone,
        "enabled": plan.enabled,
        "run_on_startup": plan.job.run_on_startup,
        "starts_up": plan.starts_up,
        "next_tick": overview.next_tick,
        "paused": pause_shape(overview.pause) if overview.pause else None,
        "held_until": overview.held_until,
        "last_state": last.state if last else None,
        "tags": list(plan.job.tags),
        "listed": plan.listed,
        "enforce": plan.enforce,
        "overlap": plan.overlap,
        "splay_s": plan.splay.total_seconds(),
        "parameters": masked(plan.parameters),
        "condition": standing(overview),
        "superseded": superseded_shape(overview.superseded) if overview.superseded else None,
        "degraded": plan.problem.reason if plan.problem else None,
    }


def pause_shape(pause: PauseOverview) -> dict[str, Any]:
    """Return a pause."""
    return {
        "job": pause.job_id,
        "since": pause.since,
        "until": pause.until,
        "note": pause.note,
        "who": pause.who,
    }


def _identity(plan: Plan) -> dict[str, Any]:
    return {
        "id": plan.id,
        "extension": plan.extension.name,
        "name": plan.job.name,
        "description": plan.job.description,
        "distribution": plan.extension.distribution,
        "version": plan.extension.version,
    }


def superseded_shape(by: Superseding) -> dict[str, Any]:
    """Return the plan that is in force instead of this machine's."""
    return {
        "distribution": by.distribution,
        "version": by.version,
        "node": by.node,
        "schedule": by.schedule,
    }


def orphan_shape(orphan: Orphan) -> dict[str, Any]:
    """Return a job that no plugin provides any more."""
    last = orphan.last_run
    return {"id": orphan.id, "condition": "orphaned", "last_state": last.state if last else None}


def values_shape(plan: Plan) -> dict[str, Any]:
    """Return each setting of a job with the layers that say something, lowest first."""
    return {
        name: {
            **source_shape(sources[-1], name),
            "layers": [source_shape(source, name) for source in sources],
        }
        for name, sources in plan.sources.items()
    }


def source_shape(source: Source, name: str) -> dict[str, Any]:
    """Return one layer's word on a setting."""
    return {
        "value": masked(source.value, name),
        "layer": source.layer,
        "file": str(source.place.file) if source.place.file else None,
        "line": source.place.line,
    }


def run_shape(run: Run) -> dict[str, Any]:
    """Return a run."""
    duration = run.duration
    return {
        "id": run.id,
        "job": run.job_id,
        "state": run.status,
        "reason": run.reason,
        "trigger": run.trigger,
        "tick": run.tick,
        "due": run.due,
        "last_tick": run.last_tick,
        "count": run.count,
        "attempt": run.attempt,
        "max_attempts": run.max_attempts,
        "node": run.node,
        "parameters": masked(run.parameters),
        "enforce": run.enforce,
        "created": run.created,
        "started": run.started,
        "finished": run.finished,
        "duration_s": duration.total_seconds() if duration is not None else None,
        "message": run.message,
        "processed": run.processed,
        "failed": run.failed,
        "error": run.error,
        "distribution": run.distribution,
        "version": run.version,
        "parent": run.parent,
        "progress": run.progress and asdict(run.progress),
    }


def attempt_shape(attempt: AttemptOverview) -> dict[str, Any]:
    """Return an attempt."""
    shape = asdict(replace(attempt, annotations={}))
    return {**shape, "annotations": dict(attempt.annotations)}


def problem_shape(problem: Problem) -> dict[str, Any]:
    """Return one thing that is wrong."""
    return {
        "culprit": problem.culprit,
        "reason": problem.reason,
        "file": str(problem.place.file) if problem.place.file else None,
        "line": problem.place.line,
        "remedy": problem.remedy,
        "code": problem.code,
    }
