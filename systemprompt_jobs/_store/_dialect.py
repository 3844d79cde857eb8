"""The few words in which SQLite and PostgreSQL differ."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, TypeVar

from sqlalchemy.dialects import postgresql, sqlite

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sqlalchemy import Connection, Table

T = TypeVar("T")

_CHUNK = 500
"""Ids per statement: far below SQLite's limit of 32,766 variables, few enough plans to cache."""


def insert(connection: Connection, table: Table) -> sqlite.Insert | postgresql.Insert:
    """Return an INSERT that understands ON CONFLICT."""
    if connection.dialect.name == "sqlite":
        return sqlite.insert(table)
    return postgresql.insert(table)


def chunks(items: Iterable[T]) -> Iterator[list[T]]:
    """Yield the items in lists of at most `_CHUNK`."""
    iterator = iter(items)
    while chunk := list(islice(iterator, _CHUNK)):
        yield chunk
