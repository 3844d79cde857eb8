"""Jobs that keep a machine tidy: `cleanup`, `prune_files`, `backup_sqlite`, `disk_usage`.

Each does nothing until it is configured, and destroys nothing unless `enforce` is true.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from systemprompt_jobs import hookimpl

from ._backup import backup_sqlite
from ._disk import disk_usage
from ._files import prune_files
from ._tables import TableRule, cleanup

if TYPE_CHECKING:
    from collections.abc import Iterable

    from systemprompt_jobs import Job

__all__ = ["TableRule", "backup_sqlite", "cleanup", "disk_usage", "jobs", "prune_files"]


@hookimpl
def jobs() -> Iterable[Job[..., Any]]:
    """Return the four jobs of this extension."""
    return [cleanup, prune_files, backup_sqlite, disk_usage]
