"""`check`: everything that is wrong or looks wrong, in one go, and what a start would change."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from systemprompt_jobs.errors import ConfigurationError

from ._failures import FAILED, WRONG_USE
from ._options import as_json
from ._problems import show_problems
from ._shapes import print_json, problem_shape
from ._table import Column, show_table
from ._text import counted, one_line, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from systemprompt_jobs import Runtime
    from systemprompt_jobs.model import Change, Problem

    from ._session import Session

_CHANGES = (Column("JOB", "id"), Column("SETTING"), Column("IS", "wrap"), Column("WILL BE", "wrap"))


@dataclass(frozen=True, slots=True)
class _Found:
    """What is wrong, by how bad it is."""

    errors: Sequence[Problem]
    degraded: Sequence[Problem]
    warnings: Sequence[Problem]

    def exit_code(self) -> int:
        if self.errors:
            return WRONG_USE
        return FAILED if self.degraded or self.warnings else 0


@click.command("check")
@click.option("--diff", is_flag=True, help="Show what a start or a reload would change.")
@click.option("--github", is_flag=True, help="Print annotations that GitHub's CI shows.")
@as_json
@click.pass_context
def command(ctx: click.Context, diff: bool, github: bool, as_json: bool) -> None:
    """Say everything that is wrong with plugins and configuration.

    Exit code 2: the configuration is wrong and nothing would start; 1: something is degraded
    or looks wrong; 0: all well.
    """
    session: Session = ctx.obj
    runtime = session.runtime()
    found, changes = _look(runtime, diff=diff)
    if as_json:
        print_json(_answer(runtime, found, changes))
    elif github:
        _annotate(found)
    else:
        _show(runtime, found, changes)
    ctx.exit(found.exit_code())


def _look(runtime: Runtime, *, diff: bool) -> tuple[_Found, Sequence[Change] | None]:
    try:
        suspicions = runtime.lint()
    except ConfigurationError as error:
        return _Found(error.problems, runtime.degraded, runtime.warnings), None
    found = _Found((), runtime.degraded, (*runtime.warnings, *suspicions))
    return found, runtime.changes() if diff else None


def _answer(runtime: Runtime, found: _Found, changes: Sequence[Change] | None) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "ok": not found.exit_code(),
        "plugins": len(runtime.collection.extensions),
        "jobs": len(runtime.collection.jobs),
        "errors": [problem_shape(p) for p in found.errors],
        "degraded": [problem_shape(p) for p in found.degraded],
        "warnings": [problem_shape(p) for p in found.warnings],
    }
    if changes is not None:
        answer["changes"] = [asdict(change) for change in changes]
    return answer


def _show(runtime: Runtime, found: _Found, changes: Sequence[Change] | None) -> None:
    bad = {"wrong": found.errors, "degraded": found.degraded, "suspicious": found.warnings}
    verdict = ", ".join(f"{len(problems)} {what}" for what, problems in bad.items() if problems)
    jobs = counted(len(runtime.collection.jobs), "job")
    plugins = counted(len(runtime.collection.extensions), "plugin")
    say(f"{plugins}, {jobs}, {verdict or 'all well'}")
    show_problems("Wrong: nothing would start", found.errors)
    show_problems("Degraded: the others work", found.degraded)
    show_problems("Suspicious", found.warnings)
    if changes is not None:
        say("", "A start would change" if changes else "A start would change nothing.")
        show_table(_CHANGES, [(c.job_id, c.setting, c.now, c.then) for c in changes])


def _annotate(found: _Found) -> None:
    """Print workflow commands, which a pull request shows at the line of each problem."""
    for problem in (*found.errors, *found.degraded):
        say(_annotation("error", problem))
    for problem in found.warnings:
        say(_annotation("warning", problem))


def _annotation(level: str, problem: Problem) -> str:
    place = problem.place
    remedy = f" ({problem.remedy})" if problem.remedy else ""
    text = one_line(f"{problem.culprit}: {problem.reason}{remedy}").replace("%", "%25")
    if place.file is None:
        return f"::{level}::{text}"
    here = Path.cwd()  # CI systems name files from the top of the checkout
    file = place.file.relative_to(here) if place.file.is_relative_to(here) else place.file
    name = one_line(file).replace("%", "%25").replace(":", "%3A").replace(",", "%2C")
    return f"::{level} file={name},line={place.line or 1}::{text}"
