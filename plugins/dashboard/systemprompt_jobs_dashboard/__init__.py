"""Pages that show what the scheduler did, does and will do, and why.

`create_app` makes the ASGI application, `Access` says who may see and do what. Both load when
first used: a scheduler that only has this plugin installed loads no web framework.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from systemprompt_jobs import hookimpl
from systemprompt_jobs.errors import ConfigurationError
from systemprompt_jobs.model import Problem

if TYPE_CHECKING:
    from collections.abc import Mapping

    from systemprompt_jobs import Runtime

    from ._access import Access
    from ._app import create_app
    from ._serve import Pages

__all__ = ["Access", "create_app"]

_LATE = {"Access": "._access", "create_app": "._app"}


def __getattr__(name: str) -> Any:
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LATE[name], __name__), name)


@hookimpl
def configured(settings: Mapping[str, Any]) -> None:
    """Check the section. Raises ConfigurationError."""
    if not settings:
        return
    from ._serve import mistakes

    path = "scheduler.extensions.dashboard"
    if problems := [Problem(f"{path}.{name}", reason) for name, reason in mistakes(settings)]:
        raise ConfigurationError(problems)


@hookimpl
def open_pages(runtime: Runtime) -> Pages:
    """Serve the pages beside a scheduler, where its configuration says."""
    from . import _serve

    pages = _serve.open_pages(runtime, _serve.read_settings(runtime))
    pages.start()
    return pages
