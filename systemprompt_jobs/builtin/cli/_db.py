"""`db`: the database itself: its schema, and everything in it as JSON lines."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import click

from systemprompt_jobs.errors import UsageError

from ._lazy import LazyGroup
from ._options import as_json
from ._shapes import print_json
from ._text import counted, one_line, say

if TYPE_CHECKING:
    from ._session import Session


@click.group("db", cls=LazyGroup)
def command() -> None:
    """See and upgrade the database's schema, export and import all it holds."""


@command.command("current")
@as_json
@click.pass_obj
def current(session: Session, as_json: bool) -> None:
    """Show which schema the database has, and which this version makes."""
    runtime = session.runtime()
    found, newest = runtime.revisions()
    if as_json:
        print_json({"database": runtime.database, "schema": found, "newest": newest})
        return
    say(f"database  {one_line(runtime.database)}")
    state = "up to date" if found == newest else f"`db upgrade` makes it {newest}"
    say(f"schema    {found or 'none yet'}, {state}")


@command.command("upgrade")
@click.pass_obj
def upgrade(session: Session) -> None:
    """Create the tables, or bring them to this version's schema; `serve` does so too."""
    runtime = session.runtime_at_work()
    before, newest = runtime.revisions()
    runtime.upgrade()
    say(f"schema {newest}" + (", as before" if before == newest else f", was {before or 'none'}"))


@command.command("export")
@click.argument("file", required=False, metavar="[FILE]")
@click.pass_obj
def export(session: Session, file: str | None) -> None:
    """Write everything that is recorded as JSON lines, to FILE or standard output."""
    runtime = session.runtime()
    rows = -1  # the first line is none
    try:
        with open(file, "x", encoding="utf-8") if file else nullcontext(sys.stdout) as out:  # noqa: PTH123
            for line in runtime.export():
                out.write(f"{line}\n")
                rows += 1
    except FileExistsError:
        raise UsageError(f"{file} exists: name a new file") from None
    except OSError as error:
        raise UsageError(f"{file} cannot be written: {error.strerror}") from None
    if file:
        say(f"{counted(rows, 'row')} in {one_line(file)}")


@command.command("import")
@click.argument("file", metavar="FILE")
@click.pass_obj
def load(session: Session, file: str) -> None:
    """Read an export into this project's empty database; all of it or nothing."""
    runtime = session.runtime_at_work()
    try:
        with sys.stdin if file == "-" else Path(file).open(encoding="utf-8") as lines:
            counts = runtime.load(lines)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file} cannot be read: {error}") from None
    say(*(f"{count:9,}  {name}" for name, count in counts.items()))
