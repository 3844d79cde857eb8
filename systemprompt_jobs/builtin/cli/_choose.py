"""Which jobs a command is about: names, a tag, or all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from . import _complete
from ._history import find_id
from ._plans import tagged

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from systemprompt_jobs import Runtime


def jobs_by(what: str, *, tags: bool = True) -> Callable[[Any], Any]:
    """Return a decorator that adds `JOB…`, `--all` (`what` it means) and `--tag`."""

    def add(command: Any) -> Any:
        if tags:
            tag = click.option(
                "--tag", metavar="T", help="The jobs with this tag.", shell_complete=_complete.tags
            )
            command = tag(command)
        command = click.option("--all", "every", is_flag=True, help=what)(command)
        return click.argument("names", nargs=-1, metavar="[JOB]...", shell_complete=_complete.jobs)(
            command
        )

    return add


def chosen(
    ctx: click.Context,
    runtime: Runtime,
    names: Iterable[str],
    swept: Iterable[str] | None,
    tag: str | None = None,
) -> list[str]:
    """Return the ids of the jobs asked for, each once; `swept` are those of `--all`, if given.

    Jobs that are not installed count while the database knows them. Raises UsageError.
    """
    if not (names or tag) and swept is None:
        ctx.fail(
            "which jobs? name some, or say --all" + (" or --tag T" if "tag" in ctx.params else "")
        )
    named = [find_id(runtime, name) for name in names]
    with_tag = [plan.id for plan in tagged(runtime.plans, tag)] if tag else []
    return list(dict.fromkeys([*named, *with_tag, *(swept or ())]))
