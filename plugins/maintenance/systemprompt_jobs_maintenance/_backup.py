"""`backup_sqlite`: copy a SQLite database while it is in use, and rotate the copies."""

from __future__ import annotations

import re
import sqlite3
import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

from pydantic import Field
from rich.filesize import decimal
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from systemprompt_jobs import JobResult, job

from ._common import NOTHING, conclude, counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from systemprompt_jobs import JobContext

PATIENCE = 60.0
STAMP = "%Y%m%dT%H%M%SZ"


class DamagedError(Exception):
    """The copy is not a sound database; the message is SQLite's finding."""


@job(schedule="0 0 3 * * *")
def backup_sqlite(
    ctx: JobContext,
    *,
    folder: str = "",
    database: str = "default",
    keep: Annotated[int, Field(ge=1)] = 7,
) -> JobResult:
    """Copy a SQLite database safely and rotate the copies.

    A copy bears the time its run started, in UTC. `keep` copies stay, the new one included.
    """
    if not folder:
        return NOTHING
    engine = ctx.db_pool(Engine, database)
    source = Path(engine.url.database or "")
    if problem := _refusal(engine, source, Path(folder)):
        return JobResult.failure(problem)
    started = (ctx.run.started or datetime.now(UTC)).astimezone(UTC)
    copy = Path(folder) / f"{database}-{started:{STAMP}}.db"
    earlier = [path for path in _copies(copy.parent, database, source) if path != copy]
    surplus = earlier[: max(0, len(earlier) + 1 - keep)]
    done = f"{source.name} ({decimal(source.stat().st_size)}) to {copy}"
    old = counted(len(surplus), "old copy", "old copies")
    if not ctx.enforce:
        return conclude(f"would copy {done}, would delete {old}", [], 1)
    try:
        _copy(engine, copy)
    except (OSError, sqlite3.Error, SQLAlchemyError, DamagedError) as error:
        return JobResult.failure(f"{source} was not copied to {folder}: {error}")
    return conclude(f"copied {done}, deleted {old}", _delete(surplus), 1)


def _refusal(engine: Engine, source: Path, folder: Path) -> str:
    """Return why this configuration is not followed, empty if it is."""
    if engine.dialect.name != "sqlite":
        return f"{engine.url!r} is no SQLite database: use the tools of {engine.dialect.name}"
    if not source.is_file():
        return f"{engine.url!r} is no file"
    if not folder.is_dir() and not folder.parent.is_dir():
        # Not made on purpose: it is where a backup disk that is not mounted would be.
        return f"folder '{folder}' cannot be made: there is no '{folder.parent}'"
    return ""


def _copies(folder: Path, database: str, source: Path) -> list[Path]:
    """Return the copies that stand in `folder`, oldest first; never `source` itself."""
    name = re.compile(re.escape(database) + r"-\d{8}T\d{6}Z\.db")
    found = folder.iterdir() if folder.is_dir() else ()
    return sorted(p for p in found if name.fullmatch(p.name) and p.resolve() != source.resolve())


def _copy(engine: Engine, copy: Path) -> None:
    """Make the copy beside its place, check it, and move it there as a whole."""
    copy.parent.mkdir(mode=0o700, exist_ok=True)
    with TemporaryDirectory(prefix=".copying-", dir=copy.parent) as scratch:
        part = Path(scratch) / copy.name
        part.touch(mode=0o600)
        with closing(sqlite3.connect(part)) as target:
            _fill(engine, target)
            _check(target)
        part.replace(copy)


def _fill(engine: Engine, target: sqlite3.Connection) -> None:
    with engine.connect() as connection:
        source = connection.connection.driver_connection
        if not isinstance(source, sqlite3.Connection):
            raise DamagedError(f"the driver {engine.driver} cannot copy")
        source.backup(target, progress=_patience(), sleep=0.01)


def _patience() -> Callable[[int, int, int], None]:
    """Return a watch over `Connection.backup`, which would wait for a lock for ever."""
    deadline = time.monotonic() + PATIENCE

    def watch(status: int, _remaining: int, _total: int) -> None:
        if status in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED) and time.monotonic() > deadline:
            raise TimeoutError(f"it was locked for {PATIENCE:g} s")

    return watch


def _check(target: sqlite3.Connection) -> None:
    (finding,) = target.execute("PRAGMA quick_check(1)").fetchone()
    if finding != "ok":
        raise DamagedError(f"it is damaged: {finding}")


def _delete(copies: Iterable[Path]) -> list[str]:
    """Delete old copies; return what went wrong."""
    problems = []
    for path in copies:
        try:
            path.unlink()
        except OSError as error:
            problems.append(f"{path}: {error.strerror}")
    return problems
