"""`status`: the scheduler at a glance."""

from __future__ import annotations

import sys
from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click

from systemprompt_jobs.errors import UnknownJobError

from . import _complete
from ._job import answer_orphan, find_orphan, job_answer, show_job
from ._options import as_json
from ._plans import standing
from ._problems import show_degraded, show_held, show_others, show_refused
from ._run_details import run_answer, show_run
from ._runs import STATES, show_runs
from ._shapes import orphan_shape, pause_shape, print_json, problem_shape, run_shape
from ._table import Column, show_table
from ._text import counted, listed, one_line, paragraph, say
from ._times import instant, now, relative, took
from ._watch import keep_drawing

if TYPE_CHECKING:
    from datetime import datetime

    from systemprompt_jobs import Run, Runtime
    from systemprompt_jobs.model import NodeOverview, PauseOverview, SchedulerOverview

    from ._session import Session

_NEXT = 5
_CONDITIONS = ("enabled", "disabled", "degraded", "superseded", "orphaned")


@click.command("status")
@click.argument("name", required=False, metavar="[JOB|RUN]", shell_complete=_complete.jobs)
@click.option("-w", "--watch", is_flag=True, help="Draw it anew every 2 s, until Ctrl-C.")
@as_json
@click.pass_context
def command(ctx: click.Context, name: str | None, watch: bool, as_json: bool) -> None:
    """Show the scheduler at a glance, or all about one job or run."""
    session: Session = ctx.obj
    if watch and (as_json or not sys.stdout.isatty()):
        ctx.fail("--watch draws on a terminal; for programs there is --json")
    runtime = session.runtime()
    if watch:
        keep_drawing(lambda: _print(runtime, name, as_json=False))
    else:
        _print(runtime, name, as_json=as_json)


def _print(runtime: Runtime, name: str | None, *, as_json: bool) -> None:
    if name is None:
        overview = runtime.status()
        if as_json:
            print_json(_answer(overview))
        else:
            _show(overview, now())
        return
    if name.isdecimal() and name not in {plan.job.name for plan in runtime.plans}:
        run = runtime.find_run(int(name))
        if as_json:
            print_json(run_answer(runtime, run))
        else:
            show_run(runtime, run)
        return
    try:
        plan = runtime.find(name)
    except UnknownJobError:
        if orphan := find_orphan(runtime, name):
            answer_orphan(runtime, orphan, as_json=as_json)
            return
        raise
    if as_json:
        print_json(job_answer(runtime, plan))
    else:
        show_job(runtime, plan)


def _answer(overview: SchedulerOverview) -> dict[str, Any]:
    return {
        "root": overview.root,
        "database": overview.database,
        "problem": overview.problem,
        "enabled": overview.enabled,
        "nodes": [_node_shape(node) for node in overview.nodes],
        "jobs": _conditions(overview),
        "running": [run_shape(run) for run in overview.running],
        "next_ticks": [{"job": id_, "tick": tick} for tick, id_ in _coming(overview)],
        "counts": dict(overview.counts),
        "lag": {"waiting": overview.waiting, "since": overview.waiting_since},
        "paused": [pause_shape(pause) for pause in overview.pauses],
        "held": [{"job": id_, "until": mark} for id_, mark in overview.held.items()],
        "troubled": [run_shape(run) for run in overview.troubled],
        "degraded": [problem_shape(problem) for problem in overview.degraded],
        "orphaned": [orphan_shape(orphan) for orphan in overview.orphaned],
    }


def _node_shape(node: NodeOverview) -> dict[str, Any]:
    return {
        "id": node.id,
        "kind": node.kind,
        "version": node.version,
        "workers": node.workers,
        "started": node.started,
        "heartbeat": node.heartbeat,
        "strays": node.strays,
        "problem": node.problem,
    }


def _conditions(overview: SchedulerOverview) -> dict[str, int]:
    found = Counter(standing(job) for job in overview.jobs)
    found["orphaned"] = len(overview.orphaned)
    return {name: found[name] for name in _CONDITIONS}


def _coming(overview: SchedulerOverview) -> list[tuple[datetime, str]]:
    """Return the next ticks of the jobs that are due first."""
    return sorted((job.next_tick, job.plan.id) for job in overview.jobs if job.next_tick)[:_NEXT]


def _show(overview: SchedulerOverview, present: datetime) -> None:
    jobs = listed(f"{n} {name}" for name, n in _conditions(overview).items() if n) or "none"
    say(
        f"root       {one_line(overview.root)}",
        f"database   {one_line(overview.database)}",
        f"nodes      {_nodes(overview)}",
        f"jobs       {jobs}",
        f"lag        {_lag(overview)}",
        f"last 24 h  {_counts(overview)}",
    )
    if overview.problem:
        say("", paragraph(f"Nothing can be recorded: {overview.problem}", ""))
    _show_section("Running", overview.running, present)
    if coming := _coming(overview):
        say("", "Next")
        columns = (Column("TICK (UTC)"), Column("", "keep"), Column("JOB", "id"))
        rows = [(instant(tick), relative(tick, present), id_) for tick, id_ in coming]
        show_table(columns, rows)
    _show_pauses(overview.pauses)
    _show_section("Trouble", overview.troubled, present)
    show_held(overview.held)
    show_others(overview.jobs, overview.orphaned)
    show_refused(overview.nodes)
    show_degraded(overview.degraded)


def _show_section(title: str, runs: tuple[Run, ...], present: datetime) -> None:
    if runs:
        say("", title)
        show_runs(runs, present)


def _show_pauses(pauses: tuple[PauseOverview, ...]) -> None:
    if pauses:
        say("", "Paused")
        columns = (
            Column("JOB", "id"),
            Column("UNTIL (UTC)"),
            Column("BY", "cut"),
            Column("NOTE", "cut"),
        )
        rows = [
            (p.job_id, instant(p.until) if p.until else "resumed", p.who, p.note) for p in pauses
        ]
        show_table(columns, rows)


def _nodes(overview: SchedulerOverview) -> str:
    if not overview.enabled:
        return "switched off: scheduler.enabled is false"
    if not overview.nodes:
        return "none live; start one: systemprompt infra jobs serve"
    names = listed(f"{one_line(node.id)}{_kind(node)}{_strays(node)}" for node in overview.nodes)
    return f"{counted(len(overview.nodes), 'live node')}: {names}"


def _kind(node: NodeOverview) -> str:
    return "" if node.kind == "scheduler" else f" ({node.kind})"


def _strays(node: NodeOverview) -> str:
    if not node.strays:
        return ""
    unready = ": it starts nothing until they end" if node.strays >= node.workers else ""
    return f" ({counted(node.strays, 'stray thread')} beside {node.workers} workers{unready})"


def _lag(overview: SchedulerOverview) -> str:
    if overview.waiting_since is None:
        return "none: all that is due is taken"
    lag = max(now() - overview.waiting_since, timedelta(0))
    return f"{overview.waiting} due and not taken, the oldest for {took(lag)}"


def _counts(overview: SchedulerOverview) -> str:
    return (
        listed(f"{overview.counts[s]} {s}" for s in STATES if overview.counts.get(s)) or "no runs"
    )
