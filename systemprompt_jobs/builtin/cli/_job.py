"""`status JOB`: all about one job."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._plans import condition, next_ticks, schedule_words
from ._problems import show_degraded
from ._runs import long_when, said, show_runs
from ._shapes import job_shape, masked, problem_shape, run_shape, values_shape
from ._table import Column, show_table
from ._text import indented, many_lines, one_line, say
from ._times import instant, now, relative

if TYPE_CHECKING:
    from systemprompt_jobs import Run, Runtime
    from systemprompt_jobs.model import Plan, Source

_TICKS, _RUNS, _TRACEBACK_LINES = 3, 5, 15
_FAILURES = ("failed", "timed_out", "lost")
_VALUES = (Column("SETTING"), Column("VALUE", "wrap"), Column("SET BY", "wrap"))


def job_answer(runtime: Runtime, plan: Plan) -> dict[str, Any]:
    """Return all about a job as JSON has it."""
    overview = next(job for job in runtime.jobs() if job.plan is plan)
    failure = _last_failure(runtime, plan)
    return {
        "job": {
            **job_shape(overview),
            "values": values_shape(plan),
            "next_ticks": next_ticks(plan, now(), _TICKS),
            "last_runs": [run_shape(r) for r in runtime.history(job=plan.id, limit=_RUNS)],
            "last_failure": failure
            and {**run_shape(failure), "traceback": runtime.traceback(failure)},
            "problem": problem_shape(plan.problem) if plan.problem else None,
        }
    }


def _last_failure(runtime: Runtime, plan: Plan) -> Run | None:
    return next(iter(runtime.history(job=plan.id, states=_FAILURES, limit=1)), None)


def show_job(runtime: Runtime, plan: Plan) -> None:
    """Print all about a job."""
    origin = f"{plan.extension.distribution} {plan.extension.version}".strip()
    say(
        one_line(f"{plan.id} ({condition(plan)})"),
        f"  {one_line(plan.job.description or 'no description')}",
        f"  {one_line(schedule_words(plan))}",
        f"  from {one_line(origin or plan.extension.module)} ({plan.extension.source})",
    )
    show_degraded([plan.problem] if plan.problem else [])
    say("")
    show_table(_VALUES, [*_values(plan), _start_up(plan)])
    _show_ticks(plan)
    _show_runs(runtime, plan)


def _values(plan: Plan) -> list[tuple[str, str, str]]:
    return [
        (name, str(masked(sources[-1].value)), _set_by(sources[-1]))
        for name, sources in plan.sources.items()
    ]


def _start_up(plan: Plan) -> tuple[str, str, str]:
    declared = plan.job.run_on_startup
    reason = "needs `enabled: true` in config.yaml" if declared and not plan.starts_up else ""
    return "run_on_startup", str(plan.starts_up), reason or f"@job(run_on_startup={declared})"


def _set_by(source: Source) -> str:
    """Return the layer and its line; `--json` has whole paths."""
    place = source.place
    if place.file is None:
        return source.layer
    where = f"{place.file.name}:{place.line}"
    return f"@job at {where}" if source.layer == "job" else where


def _show_ticks(plan: Plan) -> None:
    present = now()
    if ticks := next_ticks(plan, present, _TICKS):
        say("", "Next ticks (UTC)")
        say(*(f"  {instant(tick)}  {relative(tick, present)}" for tick in ticks))


def _show_runs(runtime: Runtime, plan: Plan) -> None:
    if runs := runtime.history(job=plan.id, limit=_RUNS):
        say("", "Last runs")
        show_runs(runs, now())
    if failure := _last_failure(runtime, plan):
        say("", f"Last failure: run {failure.id}, {long_when(failure)}", f"  {said(failure)}")
        say(*indented(many_lines(runtime.traceback(failure)))[-_TRACEBACK_LINES:])
