"""Runs jobs on Celery: the database decides who fires, workers run the functions.

An executor of kind `celery` sends `(run id, fence)` to a queue. Workers find the run in the
database and pass the gate there, so that a message which comes twice or late starts nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from systemprompt_jobs import hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping

    from celery import Celery

    from systemprompt_jobs.interfaces import Executor

__all__ = ["make_executor", "mount"]


@hookimpl
def make_executor(
    kind: str, settings: Mapping[str, Any], origin: Mapping[str, Any]
) -> Executor | None:
    """Provide `celery`."""
    if kind != "celery":
        return None
    from ._executor import CeleryExecutor
    from ._line import read_line

    return CeleryExecutor(read_line(settings, origin["root"], origin["environ"]))


def mount(app: Celery, root: str | None = None) -> None:
    """Have the workers of another Celery application run our jobs too.

    They need our queues (`-Q`), and our plugins and configuration: `root` is the project's
    folder, as for `Runtime`. Nothing is loaded before the first message.
    """
    from ._task import mount as mount_task

    mount_task(app, root)


def __getattr__(name: str) -> Celery:
    """Return what `celery -A systemprompt_jobs_celery` looks for: the application."""
    if name == "app":
        from ._task import project_app

        return project_app()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
