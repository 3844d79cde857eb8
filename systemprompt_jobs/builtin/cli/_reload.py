"""`reload`: every scheduler reads its configuration again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ._text import counted, say
from ._who import who

if TYPE_CHECKING:
    from ._session import Session


@click.command("reload")
@click.option("--note", default="", metavar="TEXT", help="Why, for the audit.")
@click.pass_obj
def command(session: Session, note: str) -> None:
    """Have every scheduler read its configuration again, without a restart."""
    runtime = session.runtime_at_work()  # what is wrong here is refused before anybody is asked
    nodes = len(runtime.status().nodes)
    runtime.ask_reload(note=note, who=who())
    say(f"asked {counted(nodes, 'live scheduler')}: each reads its own files within a second")
