"""Background jobs and schedules as pytest-style plugins.

One sentence for the whole package: what plugins declare is collected, configured into plans,
scheduled as ticks, claimed as runs, run as attempts, recorded, and then observed.

Heavy parts load when first used: importing this package loads neither SQLAlchemy nor pydantic.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import errors, hookspecs, interfaces, model
from ._declare import GIVE_UP, JobExtension, JobResult, Retry, Skip, job
from ._version import __version__
from .hookspecs import hookimpl
from .model import Job, Progress, Report, Run

if TYPE_CHECKING:
    from ._calendar import cron, every
    from ._context import JobContext
    from ._runtime import Runtime
    from ._types import Duration

__all__ = [
    "GIVE_UP",
    "Duration",
    "Job",
    "JobContext",
    "JobExtension",
    "JobResult",
    "Progress",
    "Report",
    "Retry",
    "Run",
    "Runtime",
    "Skip",
    "__version__",
    "cron",
    "errors",
    "every",
    "hookimpl",
    "hookspecs",
    "interfaces",
    "job",
    "model",
]

_LATE = {
    "Duration": "._types",
    "JobContext": "._context",
    "Runtime": "._runtime",
    "cron": "._calendar",
    "every": "._calendar",
}


def __getattr__(name: str) -> Any:
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_LATE[name], __name__), name)
    globals()[name] = value
    return value
