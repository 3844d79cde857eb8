"""What commands say about plans, in the same words everywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from systemprompt_jobs.errors import UsageError

from ._lazy import near

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from systemprompt_jobs.model import JobOverview, Plan


def condition(plan: Plan) -> str:
    """Return `enabled`, `disabled` or `degraded`."""
    if plan.problem is not None:
        return "degraded"
    return "enabled" if plan.enabled else "disabled"


def standing(overview: JobOverview) -> str:
    """Return the condition of a job's plan, or `superseded` where another plan is in force."""
    found = condition(overview.plan)
    return "superseded" if overview.superseded and found != "degraded" else found


def next_ticks(plan: Plan, after: datetime, count: int) -> list[datetime]:
    """Return the next ticks, as many as there are of `count`; none for a job that has none."""
    found: list[datetime] = []
    if plan.schedule is None or condition(plan) != "enabled":
        return found
    tick = plan.schedule.next(after)
    while tick is not None and len(found) < count:
        found.append(tick)
        tick = plan.schedule.next(tick)
    return found


def tagged(plans: Iterable[Plan], tag: str) -> list[Plan]:
    """Return the plans of jobs with this tag. Raises UsageError where there is none."""
    plans = list(plans)
    if found := [plan for plan in plans if tag in plan.job.tags]:
        return found
    tags = {tag for plan in plans for tag in plan.job.tags}
    raise UsageError(f"no job has the tag {tag!r}; {near(tag, tags)}")
