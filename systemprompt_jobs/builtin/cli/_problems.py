"""What is wrong with plugins and jobs, below whatever a command shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from systemprompt_jobs.model import Problem

from ._text import one_line, paragraph, say
from ._times import instant

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from systemprompt_jobs.model import JobOverview, NodeOverview, Orphan


def show_degraded(problems: Sequence[Problem]) -> None:
    """Print what is degraded."""
    show_problems("Degraded", problems)


def show_held(held: Mapping[str, datetime]) -> None:
    """Print which jobs wait for a time that a wrong clock has shown, and the remedy."""
    show_problems(
        "Held",
        [
            Problem(
                id_,
                f"a clock was wrong: its ticks are settled up to {instant(until)} UTC",
                remedy=f"when the clock is right: systemprompt infra jobs reset-clock {id_}",
            )
            for id_, until in held.items()
        ],
    )


def show_problems(title: str, problems: Sequence[Problem]) -> None:
    """Print each problem with its reason, place and remedy; nothing where there is none."""
    if problems:
        say("", title)
    for problem in problems:
        _show_problem(problem)


def show_refused(nodes: Iterable[NodeOverview]) -> None:
    """Print which live schedulers were told to read files that are wrong, and go on without."""
    problems = [
        Problem(node.id, node.problem, remedy="mend the file, then: systemprompt infra jobs reload")
        for node in nodes
        if node.problem and node.state == "live"
    ]
    show_problems("Refused: the configuration before goes on", problems)


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
    code = f" [{problem.code}]" if problem.code else ""
    say(paragraph(f"{problem.culprit}: {problem.reason}{code}", "  "))
    if problem.place.file:
        say(paragraph(f"at {problem.place}", "    "))
    if problem.remedy:
        say(paragraph(problem.remedy, "    "))
