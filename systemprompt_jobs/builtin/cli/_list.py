"""`list`: every job."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from systemprompt_jobs.builtin.words import schedule_words

from . import _complete
from ._options import as_json
from ._plans import condition, standing, tagged
from ._problems import show_degraded, show_held, show_others
from ._runs import state_cell
from ._shapes import job_shape, orphan_shape, print_json
from ._table import Cell, Column, show_table
from ._text import say
from ._times import now, relative

if TYPE_CHECKING:
    from datetime import datetime

    from systemprompt_jobs.model import JobOverview

    from ._session import Session

_COLUMNS = (Column("JOB", "id"), Column("SCHEDULE", "wrap"), Column("NEXT"), Column("LAST", "wrap"))


@click.command("list")
@click.option("--tag", metavar="T", help="Only jobs with this tag.", shell_complete=_complete.tags)
@as_json
@click.pass_obj
def command(session: Session, tag: str | None, as_json: bool) -> None:
    """Show every job: its schedule, its next tick, how it went last."""
    runtime = session.runtime()
    jobs = runtime.jobs()
    if tag is not None:
        chosen = tagged(runtime.plans, tag)
        jobs = [job for job in jobs if job.plan in chosen]
    orphans = runtime.orphans() if tag is None else []
    if as_json:
        shapes = [orphan_shape(orphan) for orphan in orphans]
        print_json({"jobs": [job_shape(job) for job in jobs], "orphaned": shapes})
        return
    if not jobs:
        say("no jobs yet: install a plugin, or `systemprompt infra jobs init DIR`")
    unlisted = runtime.project.found
    show_table(_COLUMNS, [_row(job, now(), mark=unlisted) for job in jobs])
    if unlisted and any(_is_marked(job) for job in jobs):
        say("", "* not listed in the configuration: runs on its author's schedule")
    show_held({job.plan.id: job.held_until for job in jobs if job.held_until})
    show_others(jobs, orphans)
    show_degraded(runtime.degraded)


def _row(job: JobOverview, present: datetime, *, mark: bool) -> tuple[Cell | str, ...]:
    name = f"{job.plan.id} *" if mark and _is_marked(job) else job.plan.id
    last = state_cell(job.last_run) if job.last_run else "never ran"
    return name, schedule_words(job.plan), _next(job, present), last


def _is_marked(job: JobOverview) -> bool:
    return not job.plan.listed and condition(job.plan) == "enabled"


def _next(job: JobOverview, present: datetime) -> Cell | str:
    found = standing(job)
    if found != "enabled":
        return Cell(found, "bold red" if found == "degraded" else "dim")
    if job.held_until:
        return Cell("held: clock", "bold red")
    if job.pause:
        end = f", {relative(job.next_tick, present)}" if job.next_tick else ""
        return Cell(f"paused{end}", "yellow")
    return relative(job.next_tick, present) if job.next_tick else "-"
