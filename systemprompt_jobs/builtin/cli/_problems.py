"""What is wrong with plugins and jobs, below whatever a command shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._text import one_line, paragraph, say

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from systemprompt_jobs.model import JobOverview, Orphan, Problem


def show_degraded(problems: Sequence[Problem]) -> None:
    """Print what is degraded."""
    show_problems("Degraded", problems)


def show_problems(title: str, problems: Sequence[Problem]) -> None:
    """Print each problem with its reason, place and remedy; nothing where there is none."""
    if problems:
        say("", title)
    for problem in problems:
        _show_problem(problem)


def show_others(jobs: Iterable[JobOverview], orphans: Sequence[Orphan]) -> None:
    """Print whose plans are in force instead of this machine's, and what nobody provides."""
    superseded = [job for job in jobs if job.superseded]
    if superseded:
        say("", "Superseded: this machine's plan is not in force")
        say(*(paragraph(f"{job.plan.id}: {job.superseded}", "  ") for job in superseded))
    if orphans:
        say("", "Orphaned: no live scheduler provides them, their history is kept")
        say(*(f"  {one_line(orphan.id)}" for orphan in orphans))


def _show_problem(problem: Problem) -> None:
    say(paragraph(f"{problem.culprit}: {problem.reason}", "  "))
    if problem.place.file:
        say(paragraph(f"at {problem.place}", "    "))
    if problem.remedy:
        say(paragraph(problem.remedy, "    "))
