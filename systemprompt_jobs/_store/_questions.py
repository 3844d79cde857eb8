"""Small questions that are asked each second: past SQLAlchemy, and outside of transactions.

What SQLAlchemy does around a statement takes four times as long as the statement, and where a
process sleeps in between, much more: none of it is in the processor's caches any more.
"""

from __future__ import annotations

import threading
from collections import namedtuple
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

from .schema import micros

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sqlalchemy import Engine, Select

Values = Mapping[str, Any]


class Asked(Protocol):
    """What a question may be asked of: a transaction, or `Questions`."""

    def execute(self, statement: Select[Any], parameters: Values, /) -> Iterable[Any]:
        """Return the rows."""


class Questions:
    """A connection of its own on which each statement stands for itself. Any thread may ask.

    Of `statement` there may be but few, each made once: their texts are kept. Values and rows are
    as stored; instants may be sent as datetimes. Errors are the driver's.
    """

    def __init__(self, engine: Callable[[], Engine]) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._connection: Any = None
        self._cursor: Any = None
        self._distrusted = False
        self._texts: dict[Select[Any], _Text] = {}

    def execute(self, statement: Select[Any], parameters: Values, /) -> list[Any]:
        """Return the rows."""
        with self._lock:
            if self._distrusted:
                self._close()
            text = self._texts.get(statement) or self._compile(statement)
            cursor = self._cursor or self._connect()
            try:
                cursor.execute(text.sql, text.sent(parameters))
                return [*map(text.row, cursor.fetchall())]
            except Exception as error:
                self._failed(error)
                raise

    def distrust(self) -> None:
        """Connect anew before the next question: another connection has failed."""
        self._distrusted = True

    def close(self) -> None:
        """Close the connection; the next question opens it again."""
        with self._lock:
            self._close()

    def _compile(self, statement: Select[Any]) -> _Text:
        self._texts[statement] = text = _Text(self._engine(), statement)
        return text

    def _connect(self) -> Any:
        engine = self._engine()
        pooled = engine.raw_connection()
        connection: Any = pooled.driver_connection
        pooled.detach()
        engine.dialect.set_isolation_level(connection, "AUTOCOMMIT")
        self._connection, self._cursor = connection, connection.cursor()
        return self._cursor

    def _failed(self, error: Exception) -> None:
        """Trust no connection any more that was open when this one broke."""
        engine, connection = self._engine(), self._connection
        if engine.dialect.is_disconnect(error, connection, None):  # type: ignore[arg-type]
            engine.dispose()
        self._close()

    def _close(self) -> None:
        connection, self._connection, self._cursor = self._connection, None, None
        self._distrusted = False
        if connection is not None:
            connection.close()


class _Text:
    """A statement as its driver takes it."""

    def __init__(self, engine: Engine, statement: Select[Any]) -> None:
        compiled: Any = statement.compile(dialect=engine.dialect)
        self.sql = str(compiled)
        self._fixed = {name: _plain(value) for name, value in compiled.params.items()}
        self._order: list[str] | None = compiled.positiontup
        names = statement.selected_columns.keys()
        row: Any = namedtuple("row", names)  # type: ignore[misc]  # noqa: PYI024
        self.row: Callable[[Iterable[Any]], Any] = row._make

    def sent(self, given: Values) -> Any:
        values = self._fixed | {name: _plain(value) for name, value in given.items()}
        return values if self._order is None else [values[name] for name in self._order]


def _plain(value: Any) -> Any:
    """Return what any driver takes: words of ours are texts of a class of their own."""
    if isinstance(value, datetime):
        return micros(value)
    return str(value) if isinstance(value, str) else value
