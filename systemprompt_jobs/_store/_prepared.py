"""Statements that SQLAlchemy translates once: to ask it each time takes longer than SQLite does."""

from __future__ import annotations

from collections import namedtuple
from functools import cached_property
from typing import TYPE_CHECKING, Any

from sqlalchemy import Select
from sqlalchemy.dialects import sqlite

from ._bulk import is_sqlite
from ._sqlite import driver_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sqlalchemy import Connection, Dialect, Update

    Process = Callable[[Any], Any] | None

_SQLITE: Dialect = sqlite.dialect(paramstyle="qmark")


class Prepared:
    """A statement whose text never changes: it has no lists, and its values are bound by name."""

    def __init__(self, statement: Select[Any] | Update) -> None:
        self._statement = statement

    def rows(self, connection: Connection, values: Mapping[str, Any]) -> list[Any]:
        """Return the rows that it selects, with attributes."""
        if not is_sqlite(connection):
            return list(connection.execute(self._statement, values))
        text, sent = self._sent(values)
        found = driver_of(connection).execute(text, sent).fetchall()
        return [self._row(row) for row in found] if found else []

    def change(self, connection: Connection, values: Mapping[str, Any]) -> int:
        """Return how many rows it changed."""
        if not is_sqlite(connection):
            return connection.execute(self._statement, values).rowcount
        text, sent = self._sent(values)
        return driver_of(connection).execute(text, sent).rowcount

    def _sent(self, values: Mapping[str, Any]) -> tuple[str, list[Any]]:
        text, binds = self._text
        chosen = ((values.get(name, default), process) for name, default, process in binds)
        return text, [process(value) if process else value for value, process in chosen]

    @cached_property
    def _text(self) -> tuple[str, list[tuple[str, Any, Process]]]:
        """Its text for SQLite, and in their order the values: name, default, and what to do."""
        made = self._statement.compile(dialect=_SQLITE)
        binds = [
            (name, made.params[name], made.binds[name].type) for name in made.positiontup or ()
        ]
        return str(made), [
            (name, default, _impl(kind).bind_processor(_SQLITE)) for name, default, kind in binds
        ]

    def _row(self, values: tuple[Any, ...]) -> Any:
        kind, processes = self._results
        return kind(
            *(
                process(value) if process else value
                for process, value in zip(processes, values, strict=True)
            )
        )

    @cached_property
    def _results(self) -> tuple[Any, list[Process]]:
        assert isinstance(self._statement, Select)  # noqa: S101  # a change returns no rows
        columns = self._statement.selected_columns
        kind = namedtuple("Row", [column.name for column in columns])  # type: ignore[misc]  # noqa: PYI024
        return kind, [_impl(column.type).result_processor(_SQLITE, None) for column in columns]


def _impl(kind: Any) -> Any:
    return kind.dialect_impl(_SQLITE)
