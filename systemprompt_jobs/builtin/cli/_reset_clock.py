"""`reset-clock`: jobs that saw a wrong clock go on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ._choose import chosen, jobs_by
from ._options import as_json
from ._shapes import print_json
from ._text import complain, say
from ._times import instant
from ._who import who

if TYPE_CHECKING:
    from ._session import Session


@click.command("reset-clock")
@jobs_by("Every job that is held because of a clock.", tags=False)
@as_json
@click.pass_context
def command(ctx: click.Context, names: tuple[str, ...], every: bool, as_json: bool) -> None:
    """Let jobs go on that wait because a clock was wrong."""
    session: Session = ctx.obj
    runtime = session.runtime_at_work()
    ids = chosen(ctx, runtime, names, runtime.held() if every else None)
    reset = runtime.reset_clock(*ids, who=who())
    if as_json:
        print_json({"reset": [{"job": id_, "held_until": mark} for id_, mark in reset.items()]})
        return
    for id_, mark in reset.items():
        say(f"{id_} goes on; it would have waited until {instant(mark)} UTC")
    for id_ in ids:
        if id_ not in reset:
            complain(f"{id_} does not wait for a clock")
    if not ids:
        say("no job waits for a clock")
