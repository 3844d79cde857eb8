"""What new rows of jobs and runs hold, made of plans."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

from ._retry import freeze
from ._whose import fingerprint, whole_seconds
from .model import State

if TYPE_CHECKING:
    from datetime import datetime

    from .model import Plan, Trigger


def job_row(plan: Plan, owner: str) -> dict[str, Any]:
    """Return the job row of a plan that no scheduler has taken on yet."""
    return {
        "id": plan.id,
        "extension": plan.extension.name,
        "name": plan.job.name,
        "schedule": plan.schedule.text if plan.schedule else "",
        "timezone": plan.timezone,
        "fingerprint": fingerprint(plan),
        "owner": owner,
        "distribution": plan.extension.distribution,
        "version": plan.extension.version,
        "catch_up": plan.catch_up,
        "catchup_window": whole_seconds(plan.catchup_window),
        "next_tick": None,
    }


def run_values(
    plan: Plan, key: str, trigger: Trigger, now: datetime, mark: str = ""
) -> dict[str, Any]:
    """Return the columns of a new run of this plan, claimed by nobody yet.

    All rows of one INSERT need the same columns, so those that differ by state are here too.
    `mark` is the plan's fingerprint, where it is known: it takes longer than all the rest.
    """
    return {
        "job_id": plan.id,
        "dedup_key": key,
        "trigger": trigger,
        "state": State.CLAIMED,
        "reason": "",
        "tick_at": None,
        "available_at": now,
        "node": "",
        "lease_until": None,
        "parameters": dict(plan.parameters),
        "enforce": plan.enforce,
        "overlap": plan.overlap,
        "max_attempts": plan.retry.max_attempts,
        "policy": freeze(plan),
        "pool": plan.executor,
        "fingerprint": mark or fingerprint(plan),
        "distribution": plan.extension.distribution,
        "version": plan.extension.version,
        "available_until": now + plan.catchup_window,
        "created": now,
        "finished": None,
    }


def manual_key() -> str:
    """Return a dedup key that nobody else has: each manual trigger is a run of its own."""
    return f"m:{uuid.uuid4().hex}"
