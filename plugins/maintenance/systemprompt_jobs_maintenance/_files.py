"""`prune_files`: remove old files below one folder, following no symbolic link."""

from __future__ import annotations

import stat
from collections.abc import Sequence  # noqa: TC003 - parameters are checked by annotation
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field
from rich.filesize import decimal

from systemprompt_jobs import JobResult, job

from ._common import NOTHING, Age, conclude, counted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from systemprompt_jobs import JobContext


@dataclass(frozen=True, slots=True)
class _File:
    path: Path
    changed: float
    size: int


@job(schedule="0 30 3 * * *")
def prune_files(
    ctx: JobContext,
    *,
    root: str = "",
    patterns: Sequence[str] = (),
    older_than: Age | None = None,
    keep: Annotated[int, Field(ge=0)] = 0,
) -> JobResult:
    """Remove old files that match a pattern below a folder.

    Age counts back from the tick, or from now. The newest `keep` files of each pattern stay.
    """
    if not root and not patterns:
        return NOTHING
    folder = Path(root).resolve()
    if problem := _refusal(root, folder, patterns):
        return JobResult.failure(problem)
    if older_than is None:
        return JobResult.failure("older_than is missing: say how old a file must be, e.g. 30d")
    problems: list[str] = []
    limit = ((ctx.tick or datetime.now(UTC)) - older_than).timestamp()
    old = _old_files(folder, patterns, limit, keep, problems)
    gone = list(_remove(old, problems)) if ctx.enforce else old
    verb = "removed" if ctx.enforce else "would remove"
    size = decimal(sum(file.size for file in gone))
    done = f"{verb} {counted(len(gone), 'file', 'files')} ({size})"
    return conclude(done, problems, len(gone))


def _refusal(root: str, folder: Path, patterns: Sequence[str]) -> str:
    """Return why this configuration is not followed, empty if it is."""
    if not root:
        return "root is missing: name the folder to prune, as an absolute path"
    if folder == Path(folder.anchor):
        return f"root {root!r} is the whole file system: name a folder"
    if not folder.is_dir():
        return f"root {root!r} is no folder"
    if not patterns:
        return "patterns are missing: say which files, e.g. ['**/*.log']"
    for pattern in map(Path, patterns):
        if not pattern.parts or pattern.is_absolute() or ".." in pattern.parts:
            return f"pattern '{pattern}' must stay below root: no '..', no leading '/'"
    return ""


def _old_files(
    folder: Path, patterns: Iterable[str], limit: float, keep: int, problems: list[str]
) -> list[_File]:
    """Return the files changed before `limit` (seconds since 1970), each once, oldest first."""
    kept: set[_File] = set()
    old: set[_File] = set()
    for pattern in patterns:
        newest_first = sorted(_files(folder, pattern, problems), key=_age, reverse=True)
        kept.update(newest_first[:keep])
        old.update(file for file in newest_first if file.changed < limit)
    return sorted(old - kept, key=_age)


def _age(file: _File) -> tuple[float, Path]:
    return file.changed, file.path


def _files(folder: Path, pattern: str, problems: list[str]) -> Iterator[_File]:
    """Yield the plain files that match, leaving out links and all that lies behind one."""
    try:
        for path in folder.glob(pattern):
            status = path.lstat()
            if stat.S_ISREG(status.st_mode) and path.parent.resolve() == path.parent:
                yield _File(path, status.st_mtime, status.st_size)
    except OSError as error:
        problems.append(_problem(error.filename or pattern, error))


def _remove(files: Iterable[_File], problems: list[str]) -> Iterator[_File]:
    """Remove the files and yield those that went."""
    for file in files:
        try:
            file.path.unlink()
        except OSError as error:
            problems.append(_problem(file.path, error))
        else:
            yield file


def _problem(what: object, error: OSError) -> str:
    return f"{what}: {error.strerror or error}"
