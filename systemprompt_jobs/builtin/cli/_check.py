"""`check`: everything that is wrong, in one go."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from systemprompt_jobs.errors import ConfigurationError

from ._failures import FAILED, WRONG_USE
from ._options import as_json
from ._problems import show_problems
from ._shapes import print_json, problem_shape
from ._text import counted, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from systemprompt_jobs import Runtime
    from systemprompt_jobs.model import Problem

    from ._session import Session


@click.command("check")
@as_json
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """Say everything that is wrong with plugins and configuration.

    Exit code 2: the configuration is wrong and nothing would start; 1: something is degraded
    or has a warning; 0: all well.
    """
    session: Session = ctx.obj
    runtime = session.runtime()
    mistakes = _mistakes(runtime)
    if as_json:
        _print_answer(runtime, mistakes)
    else:
        _show(runtime, mistakes)
    if mistakes:
        ctx.exit(WRONG_USE)
    if runtime.degraded or runtime.warnings:
        ctx.exit(FAILED)


def _mistakes(runtime: Runtime) -> Sequence[Problem]:
    try:
        _ = runtime.plans
    except ConfigurationError as error:
        return error.problems
    return ()


def _print_answer(runtime: Runtime, mistakes: Sequence[Problem]) -> None:
    print_json(
        {
            "ok": not (mistakes or runtime.degraded or runtime.warnings),
            "plugins": len(runtime.collection.extensions),
            "jobs": len(runtime.collection.jobs),
            "errors": [problem_shape(p) for p in mistakes],
            "degraded": [problem_shape(p) for p in runtime.degraded],
            "warnings": [problem_shape(p) for p in runtime.warnings],
        }
    )


def _show(runtime: Runtime, mistakes: Sequence[Problem]) -> None:
    found = {"wrong": mistakes, "degraded": runtime.degraded, "suspicious": runtime.warnings}
    verdict = ", ".join(f"{len(problems)} {what}" for what, problems in found.items() if problems)
    jobs = counted(len(runtime.collection.jobs), "job")
    plugins = counted(len(runtime.collection.extensions), "plugin")
    say(f"{plugins}, {jobs}, {verdict or 'all well'}")
    show_problems("Wrong: nothing would start", mistakes)
    show_problems("Degraded: the others work", runtime.degraded)
    show_problems("Warnings", runtime.warnings)
