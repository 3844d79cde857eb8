"""`run`: jobs here and now."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import closing, contextmanager, nullcontext, redirect_stdout
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import click

from systemprompt_jobs.builtin.signals import INTERRUPTED, STOPPING

from . import _complete
from ._bars import RunCommandBars
from ._failures import FAILED
from ._options import as_json, detach
from ._plans import condition, tagged
from ._runs import said, state_cell
from ._shapes import attempt_shape, print_json, run_shape
from ._text import complain, indented, listed, one_line, say
from ._times import read_instant, took
from ._who import who

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import datetime

    from systemprompt_jobs import Run, Runtime
    from systemprompt_jobs.model import Plan

    from ._session import Session


@click.command("run")
@click.argument("names", nargs=-1, metavar="[JOB]...", shell_complete=_complete.jobs)
@click.option("--all", "every", is_flag=True, help="Run every enabled job.")
@click.option(
    "--tag", metavar="T", help="Run the enabled jobs with this tag.", shell_complete=_complete.tags
)
@click.option(
    "-p",
    "--parameter",
    "parameters",
    multiple=True,
    metavar="KEY=VALUE",
    help="Set a parameter; the value is read as YAML. May be repeated.",
)
@click.option(
    "--enforce/--no-enforce",
    " /--dry-run",
    default=None,
    help="Let the jobs destroy what they are made to destroy, or not; else as configured.",
)
@click.option("--at", metavar="TIME", help="Run now, and tell the jobs that this is their tick; in "
              "their time zone unless it has an offset.")  # fmt: skip
@click.option("--trace-hooks", is_flag=True, help="Print every hook call to standard error.")
@detach
@as_json
@click.pass_context
def command(
    ctx: click.Context,
    names: tuple[str, ...],
    every: bool,
    tag: str | None,
    parameters: tuple[str, ...],
    enforce: bool | None,
    at: str | None,
    trace_hooks: bool,
    detach: bool,
    as_json: bool,
) -> None:
    """Run jobs here and now, and wait until they have ended.

    Exit code 1: a run did not succeed, or a job that was asked for is degraded. A job that
    found nothing to do (skipped: job) is no failure.
    """
    if not (names or every or tag):
        ctx.fail("which jobs? name some, or say --all or --tag T")
    if trace_hooks:
        ctx.obj = replace(ctx.obj, trace_hooks=True)
    runtime, bars = at_work(ctx)
    values = _values(runtime, parameters)
    plans, left_out = _chosen(runtime, names, every=every, tag=tag)
    ids = [plan.id for plan in plans]
    tick = _tick(at, plans) if at else None
    with waiting(ctx, runtime, bars, as_json=as_json):
        start = runtime.submit if detach else runtime.run
        runs = start(*ids, parameters=values, enforce=enforce, at=tick, who=who())
    answer(ctx, runtime, runs, detached=detach, as_json=as_json)
    if left_out:
        ctx.exit(FAILED)


def at_work(ctx: click.Context) -> tuple[Runtime, RunCommandBars]:
    """Return the runtime of a command that runs jobs, and what shows their progress."""
    session: Session = ctx.obj
    bars = RunCommandBars()
    runtime = session.runtime_at_work(bars)
    session.log("run")
    return runtime, bars


def _values(runtime: Runtime, parameters: Iterable[str]) -> dict[str, Any]:
    values = {}
    for text in parameters:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise click.UsageError(f"-p {text!r}: write it as key=value")
        values[key] = runtime.parse_value(value)
    return values


def _tick(text: str, plans: Iterable[Plan]) -> datetime:
    found = {read_instant("--at", text, ZoneInfo(plan.timezone)) for plan in plans}
    if len(found) > 1:
        zones = listed(sorted({plan.timezone for plan in plans}))
        raise click.UsageError(
            f"--at {text}: the jobs are in several time zones ({zones}): add an offset, as in +02:00"
        )
    return found.pop()


def _chosen(
    runtime: Runtime, names: Iterable[str], *, every: bool, tag: str | None
) -> tuple[list[Plan], bool]:
    """Return the jobs to run, and whether a degraded one of --all or --tag is left out."""
    named = [runtime.find(name) for name in names]
    swept = list(runtime.plans) if every else tagged(runtime.plans, tag) if tag else []
    paused = runtime.pauses()
    groups = {c: [p for p in swept if condition(p) == c] for c in ("disabled", "degraded")}
    groups["paused"] = [p for p in swept if condition(p) == "enabled" and p.id in paused]
    for why, plans in groups.items():
        if plans:
            complain(f"left out, {why}: {listed(plan.id for plan in plans)}")
    for plan in named:
        if condition(plan) == "disabled":
            complain(f"{plan.id} is disabled; run by hand all the same")
        if plan.id in paused:
            complain(f"{plan.id} is paused; run by hand all the same")
    left_out = [plan for plans in groups.values() for plan in plans]
    chosen = {p.id: p for p in (*named, *swept) if p in named or p not in left_out}
    if not chosen:
        raise click.ClickException("no job is left to run")
    return list(chosen.values()), bool(groups["degraded"])


@contextmanager
def waiting(
    ctx: click.Context, runtime: Runtime, bars: RunCommandBars, *, as_json: bool
) -> Iterator[None]:
    """Wait for runs in this block, and cut them off at Ctrl-C or TERM."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        # What jobs print must not come between the lines of JSON.
        with redirect_stdout(sys.stderr) if as_json else nullcontext(), closing(bars):
            yield
    except KeyboardInterrupt:
        for number in STOPPING:
            signal.signal(number, lambda *_: os._exit(INTERRUPTED))
        complain("interrupted: the jobs are cut off")
        runtime.stop(grace=timedelta(0))
        ctx.exit(INTERRUPTED)
    finally:
        signal.signal(signal.SIGTERM, before)


def answer(
    ctx: click.Context, runtime: Runtime, runs: Sequence[Run], *, detached: bool, as_json: bool
) -> None:
    """Say how runs went, or that a scheduler has them now."""
    if detached:
        warn_unless_taken(runtime, runs)
    if as_json:
        print_json({"runs": [_shape(runtime, run) for run in runs]})
    elif detached:
        say(*(f"run {run.id} of {one_line(run.job_id)} is handed over" for run in runs))
    else:
        _show(runtime, runs)
    if not (detached or all(map(_went_well, runs))):
        ctx.exit(FAILED)


def _went_well(run: Run) -> bool:
    """Return whether it succeeded, or its job found nothing to do."""
    return run.state == "succeeded" or (run.state, run.reason) == ("skipped", "job")


def warn_unless_taken(runtime: Runtime, runs: Iterable[Run]) -> None:
    """Say of which jobs no live scheduler can take the runs."""
    for job in dict.fromkeys(run.job_id for run in runs):
        if not runtime.schedulers(job):
            complain(
                f"no live scheduler has {job}: it runs when one is started within its "
                "catchup_window (systemprompt infra jobs serve)"
            )


def _shape(runtime: Runtime, run: Run) -> dict[str, Any]:
    attempts = [attempt_shape(attempt) for attempt in runtime.attempts(run)]
    traceback = attempts[-1]["traceback"] if attempts else ""
    return {**run_shape(run), "traceback": traceback, "attempts": attempts}


def _show(runtime: Runtime, runs: Iterable[Run]) -> None:
    for run in runs:
        message = "" if run.message == run.error else run.message
        parts = (state_cell(run).text, run.job_id, took(run.duration), message)
        say("  ".join(filter(None, map(one_line, parts))))
        if run.error:
            complain(f"error: {run.job_id}: {said(run)}")
            complain(*indented(runtime.traceback(run)))
