"""`audit`: who did what."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from ._options import as_json
from ._shapes import print_json
from ._table import Column, show_table
from ._text import say
from ._times import instant

if TYPE_CHECKING:
    from ._session import Session

_COLUMNS = (
    Column("WHEN (UTC)"),
    Column("WHO", "wrap"),
    Column("DID"),
    Column("TO", "id"),
    Column("NOTE", "wrap"),
)


@click.command("audit")
@click.option("-n", "--limit", type=click.IntRange(min=1), default=20, show_default=True,
              metavar="N", help="How many entries at most.")  # fmt: skip
@click.option("--before", type=int, metavar="ID", help="Only entries older than this one.")
@as_json
@click.pass_obj
def command(session: Session, limit: int, before: int | None, as_json: bool) -> None:
    """Show who did what by hand, newest first."""
    entries = session.runtime().audit(limit, before)
    if as_json:
        print_json({"entries": [asdict(entry) for entry in entries]})
    elif entries:
        rows = [(instant(e.at), e.who, e.action, e.subject, e.note) for e in entries]
        show_table(_COLUMNS, rows)
    else:
        say("nobody did anything by hand yet")
