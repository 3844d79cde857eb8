"""Database URLs: which ones are supported, and relative SQLite paths made absolute."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._parameters import shown

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import URL

_OWN = ("sqlite", "sqlite+pysqlite", "postgresql", "postgresql+psycopg")


def check_url(text: str) -> str:
    """Return `text`; raise ValueError if SQLAlchemy cannot read it as a database URL."""
    _parse(text)
    return text


def check_own_url(text: str) -> str:
    """Return `text`; raise ValueError if the scheduler cannot keep its own records there."""
    if _parse(text).drivername in _OWN:
        return text
    raise ValueError(
        f"{shown(text)} is neither SQLite nor PostgreSQL: write sqlite:///var/jobs.db or "
        "postgresql+psycopg://user@host/database"
    )


def resolve(text: str, root: Path) -> str:
    """Return a checked URL with a relative SQLite path resolved against `root`."""
    url = _parse(text)
    name = url.database or ""
    if url.get_backend_name() != "sqlite" or name in ("", ":memory:"):
        return text
    scheme = "file:" if name.startswith("file:") else ""  # SQLite's own kind of URI
    path = root / name.removeprefix(scheme)
    return url.set(database=f"{scheme}{path}").render_as_string(hide_password=False)


def _parse(text: str) -> URL:
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        return make_url(text)
    except (ArgumentError, ValueError):
        raise ValueError(f"{shown(text)} is no database URL: write sqlite:///var/app.db") from None
