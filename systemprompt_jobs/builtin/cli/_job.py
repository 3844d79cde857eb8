"""`status JOB`: all about one job."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from systemprompt_jobs.builtin.words import schedule_words

from ._plans import next_ticks, standing
from ._problems import show_degraded, show_held, show_others
from ._runs import long_when, said, show_runs
from ._shapes import (
    job_shape,
    orphan_shape,
    print_json,
    problem_shape,
    run_shape,
    values_shape,
)
from ._table import Column, show_table
from ._text import indented, many_lines, one_line, paragraph, say
from ._times import instant, now, relative

if TYPE_CHECKING:
    from datetime import datetime

    from systemprompt_jobs import Run, Runtime
    from systemprompt_jobs.model import JobOverview, Orphan, PauseOverview, Plan

_TICKS, _RUNS, _TRACEBACK_LINES = 3, 5, 15
_FAILURES = ("failed", "timed_out", "lost")
_VALUES = (Column("SETTING"), Column("VALUE", "wrap"), Column("SET BY", "wrap"))


def job_answer(runtime: Runtime, plan: Plan) -> dict[str, Any]:
    """Return all about a job as JSON has it."""
    overview = _overview(runtime, plan)
    failure, start = _last_failure(runtime, plan), _ticks_from(overview)
    return {
        "job": {
            **job_shape(overview),
            "values": values_shape(plan),
            "next_ticks": next_ticks(plan, start, _TICKS) if start else [],
            "last_runs": [run_shape(r) for r in runtime.history(job=plan.id, limit=_RUNS)],
            "last_failure": failure
            and {**run_shape(failure), "traceback": runtime.traceback(failure)},
            "problem": problem_shape(plan.problem) if plan.problem else None,
        }
    }


def _overview(runtime: Runtime, plan: Plan) -> JobOverview:
    return next(job for job in runtime.jobs(plan.id) if job.plan is plan)


def _pause(pause: PauseOverview) -> str:
    end = instant(pause.until) if pause.until else "it is resumed"
    by = f", by {pause.who}" if pause.who else ""
    note = f": {pause.note}" if pause.note else ""
    return paragraph(f"paused from {instant(pause.since)} until {end} (UTC){by}{note}", "  ")


def _last_failure(runtime: Runtime, plan: Plan) -> Run | None:
    return next(iter(runtime.history(job=plan.id, states=_FAILURES, limit=1)), None)


def find_orphan(runtime: Runtime, name: str) -> Orphan | None:
    """Return the orphaned job with this id, or the only one with this short name."""
    orphans = runtime.orphans()
    found = [o for o in orphans if o.id == name] or [
        o for o in orphans if o.id.partition(":")[2] == name
    ]
    return found[0] if len(found) == 1 else None


def orphan_answer(runtime: Runtime, orphan: Orphan) -> dict[str, Any]:
    """Return what is known of a job that no plugin provides any more, as JSON has it."""
    runs = runtime.history(job=orphan.id, limit=_RUNS)
    return {"job": {**orphan_shape(orphan), "last_runs": [run_shape(run) for run in runs]}}


def answer_orphan(runtime: Runtime, orphan: Orphan, *, as_json: bool) -> None:
    """Print what is known of a job that no plugin provides any more."""
    if as_json:
        print_json(orphan_answer(runtime, orphan))
        return
    runs = runtime.history(job=orphan.id, limit=_RUNS)
    say(
        one_line(f"{orphan.id} (orphaned)"),
        "  no live scheduler provides it; it is back where it was when one does",
    )
    if runs:
        say("", "Last runs")
        show_runs(runs, now())


def show_job(runtime: Runtime, plan: Plan) -> None:
    """Print all about a job."""
    overview = _overview(runtime, plan)
    origin = f"{plan.extension.distribution} {plan.extension.version}".strip()
    say(
        one_line(f"{plan.id} ({standing(overview)})"),
        f"  {one_line(plan.job.description or 'no description')}",
        f"  {one_line(schedule_words(plan))}",
        f"  from {one_line(origin or plan.extension.module)} ({plan.extension.source})",
        *([_pause(overview.pause)] if overview.pause else []),
    )
    show_held({plan.id: overview.held_until} if overview.held_until else {})
    show_others([overview], [])
    show_degraded([plan.problem] if plan.problem else [])
    say("")
    show_table(_VALUES, [*_values(plan), _start_up(plan)])
    if not overview.superseded:
        _show_ticks(plan, _ticks_from(overview))
    _show_runs(runtime, plan)


def _values(plan: Plan) -> list[tuple[str, str, str]]:
    return [(name, said[-1].text(name), said[-1].by) for name, said in plan.sources.items()]


def _start_up(plan: Plan) -> tuple[str, str, str]:
    declared = plan.job.run_on_startup
    reason = "needs `enabled: true` in config.yaml" if declared and not plan.starts_up else ""
    by = "@job(run_on_startup=True)" if declared else "default"
    return "run_on_startup", str(plan.starts_up).lower(), reason or by


def _ticks_from(overview: JobOverview) -> datetime | None:
    """Return the time after which ticks come; None for a job whose pause has no end."""
    if overview.pause and overview.pause.until is None:
        return None
    return overview.next_tick - timedelta.resolution if overview.next_tick else now()


def _show_ticks(plan: Plan, start: datetime | None) -> None:
    present = now()
    if start and (ticks := next_ticks(plan, start, _TICKS)):
        say("", "Next ticks (UTC)")
        say(*(f"  {instant(tick)}  {relative(tick, present)}" for tick in ticks))


def _show_runs(runtime: Runtime, plan: Plan) -> None:
    if runs := runtime.history(job=plan.id, limit=_RUNS):
        say("", "Last runs")
        show_runs(runs, now())
    if failure := _last_failure(runtime, plan):
        say("", f"Last failure: run {failure.id}, {long_when(failure)}", f"  {said(failure)}")
        say(*indented(many_lines(runtime.traceback(failure)))[-_TRACEBACK_LINES:])
