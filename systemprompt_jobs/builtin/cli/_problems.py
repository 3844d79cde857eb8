"""What is wrong with plugins and jobs, below whatever a command shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._text import paragraph, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from systemprompt_jobs.model import Problem


def show_degraded(problems: Sequence[Problem]) -> None:
    """Print what is degraded."""
    show_problems("Degraded", problems)


def show_problems(title: str, problems: Sequence[Problem]) -> None:
    """Print each problem with its reason, place and remedy; nothing where there is none."""
    if problems:
        say("", title)
    for problem in problems:
        _show_problem(problem)


def _show_problem(problem: Problem) -> None:
    code = f" [{problem.code}]" if problem.code else ""
    say(paragraph(f"{problem.culprit}: {problem.reason}{code}", "  "))
    if problem.place.file:
        say(paragraph(f"at {problem.place}", "    "))
    if problem.remedy:
        say(paragraph(problem.remedy, "    "))
