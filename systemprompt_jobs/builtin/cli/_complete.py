"""What the shell completes: jobs, tags, runs and states. Silent where anything is wrong."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from ._runs import STATES
from ._session import Session

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import click

    from systemprompt_jobs import Runtime

_RUNS = 50


def jobs(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Return the names of jobs: short ones, and whole ids once there is a colon."""
    whole = ":" in incomplete
    return _asked(ctx, incomplete, lambda r: (p.id if whole else p.job.name for p in r.plans))


def tags(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Return the tags that jobs have."""
    return _asked(ctx, incomplete, lambda r: (tag for plan in r.plans for tag in plan.job.tags))


def runs(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Return the numbers of the newest runs."""
    return _asked(ctx, incomplete, lambda r: (str(run.id) for run in r.history(limit=_RUNS)))


def states(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Return the states of runs."""
    return [state for state in STATES if state.startswith(incomplete)]


def _asked(
    ctx: click.Context, incomplete: str, question: Callable[[Runtime], Iterable[str]]
) -> list[str]:
    """Ask the runtime that the line so far means."""
    with contextlib.suppress(Exception), ctx.scope(cleanup=True):
        found = set(question(Session(**ctx.find_root().params).runtime()))
        return sorted(word for word in found if word.startswith(incomplete))
    return []
