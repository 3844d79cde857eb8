"""Statements on many rows at once, each built once and sent as the driver likes it best.

SQLite runs one short statement again and again in C; PostgreSQL takes one statement with all
rows as JSON, which costs the driver a fifth of what arrays do. Rows are tuples in the order of the
named columns, and values are those of the table's types: instants are datetimes.
"""

from __future__ import annotations

import functools
import json
import operator
from itertools import repeat
from typing import TYPE_CHECKING, Any

from sqlalchemy import JSON, Text, cast, func, literal, select
from sqlalchemy.dialects import postgresql

from ._sqlite import driver_of
from .schema import Instant, metadata, micros

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import TypeVar

    from sqlalchemy import Column, ColumnElement, Connection, Dialect, Table

    T = TypeVar("T")

Names = tuple[str, ...]

_FEW = 8
"""Rows that cost less one by one."""

_CHUNK = 500
"""Keys per statement: far below SQLite's limit of 32,766 variables."""

_POSTGRESQL: Dialect = postgresql.dialect()  # type: ignore[no-untyped-call]


def select_many(
    connection: Connection,
    table: Table,
    columns: Names,
    key: str,
    keys: Iterable[Any],
    lock: str = "",
    also: str = "TRUE",
) -> list[tuple[Any, ...]]:
    """Return the rows with these keys where `also` holds, in the order of the key, as stored.

    `lock` is what PostgreSQL adds, e.g. `FOR UPDATE`; a write on SQLite holds the only lock.
    """
    found = sorted(keys)
    if not found:
        return []
    if (sqlite := driver_of(connection)) is not None:
        one = len(found) == 1
        statement = _select(True, table.name, columns, key, also, one)
        sent = found[0] if one else json.dumps(found)
        return sqlite.execute(statement, (sent,)).fetchall()
    statement = f"{_select(False, table.name, columns, key, also)} {lock}"
    result = connection.exec_driver_sql(statement, (json.dumps(found),))
    return [tuple(row) for row in result]


def insert_many(
    connection: Connection, table: Table, columns: Names, rows: Sequence[tuple[Any, ...]]
) -> None:
    """Insert rows; one whose key exists already is left out."""
    if not rows:
        return
    _execute(connection, table, columns, rows, _insert(is_sqlite(connection), table.name, columns))


def insert_returning(
    connection: Connection,
    table: Table,
    columns: Names,
    rows: Sequence[tuple[Any, ...]],
    returning: Names,
) -> list[tuple[Any, ...]]:
    """Insert rows into a table whose `id` counts itself; return columns of those that are new.

    `returning` are `id` and then some of the columns.
    """
    if (sqlite := driver_of(connection)) is not None:
        return _insert_in_sqlite(sqlite, table, columns, rows, returning)
    statement = f"{_insert(False, table.name, columns)} RETURNING {', '.join(returning)}"
    return [tuple(row) for row in _execute(connection, table, columns, rows, statement)]


def _insert_in_sqlite(
    driver: sqlite3.Connection,
    table: Table,
    columns: Names,
    rows: Sequence[tuple[Any, ...]],
    returning: Names,
) -> list[tuple[Any, ...]]:
    """Send a few rows one by one; sqlite3 returns nothing for many.

    But under the write lock, the new ids are above the old, and one after the other.
    """
    plain = _plain(table.name, columns, rows)
    statement = _insert(True, table.name, columns)
    if len(plain) <= _FEW:
        places = [columns.index(name) for name in returning[1:]]
        sent = [(driver.execute(statement, row), row) for row in plain]
        return [
            (cursor.lastrowid, *(row[n] for n in places)) for cursor, row in sent if cursor.rowcount
        ]
    (newest,) = driver.execute(f"SELECT max(id) FROM {table.name}").fetchone()  # noqa: S608
    if driver.executemany(statement, plain).rowcount == len(plain):
        (last,) = driver.execute("SELECT last_insert_rowid()").fetchone()
        read = operator.itemgetter(*(columns.index(name) for name in returning[1:]))
        return [(id_, *read(row)) for id_, row in enumerate(plain, last - len(plain) + 1)]
    return driver.execute(
        f"SELECT {', '.join(returning)} FROM {table.name} WHERE id > ? ORDER BY id",  # noqa: S608
        (newest or 0,),
    ).fetchall()


def update_many(
    connection: Connection,
    table: Table,
    keys: Names,
    columns: Names,
    rows: Sequence[tuple[Any, ...]],
    also: str = "TRUE",
) -> None:
    """Set columns of the rows with these keys where the condition `also` holds.

    A row of `rows` has the columns first, then the keys, as the statement has.
    """
    if not rows:
        return
    statement = _update(is_sqlite(connection), table.name, keys, columns, also)
    _execute(connection, table, columns + keys, rows, statement)


def delete_many(connection: Connection, table: Table, key: str, keys: Iterable[Any]) -> None:
    """Delete the rows with these keys."""
    found = list(keys)
    if not found:
        return
    if (sqlite := driver_of(connection)) is not None:
        sqlite.executemany(
            f"DELETE FROM {table.name} WHERE {key} = ?",  # noqa: S608
            [(value,) for value in found],
        )
        return
    statement = f"DELETE FROM {table.name} WHERE {_among(False, table.name, key)}"  # noqa: S608
    connection.exec_driver_sql(statement, (json.dumps(found),))


def among(connection: Connection, column: Column[Any], keys: Iterable[str]) -> ColumnElement[bool]:
    """Say that a column is one of any number of texts, for statements that are built."""
    sent = literal(json.dumps(list(keys)), Text)
    if is_sqlite(connection):
        return column.in_(select(func.json_each(sent).table_valued("value").c.value))
    texts = func.json_array_elements_text(cast(sent, postgresql.JSON)).column_valued("value")
    return column.in_(select(texts))


def execute_among(
    connection: Connection,
    statement: str,
    table: Table,
    key: str,
    keys: Iterable[Any],
    values: tuple[Any, ...] = (),
) -> int:
    """Execute a statement that does the same to all rows with these keys; return their number.

    Its `{among}` says that a row is one of them; a `?` before it stands for each of `values`,
    which are as stored.
    """
    sent = list(keys)
    if not sent:
        return 0
    sqlite = driver_of(connection)
    one = sqlite is not None and len(sent) == 1
    text = _filled(statement, sqlite is not None, table.name, key, one)
    sent_values = (*values, sent[0] if one else json.dumps(sent))
    if sqlite is not None:
        return sqlite.execute(text, sent_values).rowcount
    return connection.exec_driver_sql(text, sent_values).rowcount


def _execute(
    connection: Connection,
    table: Table,
    names: Names,
    rows: Sequence[tuple[Any, ...]],
    statement: str,
) -> Any:
    plain = _plain(table.name, names, rows)
    if (sqlite := driver_of(connection)) is not None:
        return sqlite.executemany(statement, plain)
    records = [dict(zip(names, row, strict=True)) for row in plain]
    return connection.exec_driver_sql(statement, (json.dumps(records),))


def chunks(keys: Sequence[T]) -> Iterator[Sequence[T]]:
    """Cut keys into as many as a statement may name one by one."""
    return (keys[start : start + _CHUNK] for start in range(0, len(keys), _CHUNK))


def is_sqlite(connection: Connection) -> bool:
    """Return whether the database is SQLite, where nothing changes beside a write."""
    return driver_of(connection) is not None


# --- the text of statements; names are those of the schema, never anybody's input ---


@functools.cache
def _select(
    sqlite: bool, table: str, columns: Names, key: str, also: str, one: bool = False
) -> str:
    names = ", ".join(map(_quoted, columns))
    among = _among(sqlite, table, key, one)
    return f"SELECT {names} FROM {table} WHERE {among} AND {also} ORDER BY {key}"  # noqa: S608


@functools.cache
def _filled(statement: str, sqlite: bool, table: str, key: str, one: bool) -> str:
    filled = statement.format(among=_among(sqlite, table, key, one))
    return filled if sqlite else filled.replace("?", "%s")


def _among(sqlite: bool, table: str, key: str, one: bool = False) -> str:
    if one:
        return f"{key} = ?"
    if sqlite:
        return f"{key} IN (SELECT value FROM json_each(?))"  # noqa: S608
    # As an array, so that each is looked up: else tables of some thousand rows are read whole.
    elements = "json_array_elements_text(%s::json) AS value"
    return f"{key} = ANY(ARRAY(SELECT value::{_type(table, key)} FROM {elements}))"  # noqa: S608


@functools.cache
def _insert(sqlite: bool, table: str, columns: Names) -> str:
    names = ", ".join(map(_quoted, columns))
    if sqlite:
        marks = ", ".join("?" * len(columns))
        values = f"VALUES ({marks})"
    else:
        values = f"SELECT {_cast(table, columns)} FROM {_records(table, columns)}"  # noqa: S608
    return f"INSERT INTO {table} ({names}) {values} ON CONFLICT DO NOTHING"


@functools.cache
def _update(sqlite: bool, table: str, keys: Names, columns: Names, also: str) -> str:
    if sqlite:
        changes = ", ".join(f"{_quoted(name)} = ?" for name in columns)
        where = " AND ".join(f"{key} = ?" for key in keys)
        return f"UPDATE {table} SET {changes} WHERE {where} AND {also}"  # noqa: S608
    changes = ", ".join(f"{_quoted(name)} = {_cast(table, (name,))}" for name in columns)
    where = " AND ".join(f"{table}.{key} = new.{key}" for key in keys)
    source = _records(table, columns + keys)
    return f"UPDATE {table} SET {changes} FROM {source} WHERE {where} AND {also}"  # noqa: S608


def _records(table: str, columns: Names) -> str:
    types = ", ".join(f"{_quoted(name)} {_sent_type(table, name)}" for name in columns)
    return f"json_to_recordset(%s::json) AS new ({types})"


def _cast(table: str, columns: Names) -> str:
    return ", ".join(f"new.{_quoted(name)}::{_type(table, name)}" for name in columns)


def _quoted(name: str) -> str:
    return f'"{name}"'


def _type(table: str, column: str) -> str:
    return str(_column(table, column).type.compile(dialect=_POSTGRESQL))


def _sent_type(table: str, column: str) -> str:
    return "TEXT" if isinstance(_column(table, column).type, JSON) else _type(table, column)


def _column(table: str, column: str) -> Any:
    return metadata.tables[table].c[column]


# --- values ---


@functools.cache
def _converters(table: str, names: Names) -> tuple[tuple[int, Callable[[Any], Any]], ...]:
    """Return what to do with which value of a row."""
    kinds = [_column(table, name).type for name in names]
    instants = [(n, micros) for n, kind in enumerate(kinds) if isinstance(kind, Instant)]
    return (*instants, *((n, _json) for n, kind in enumerate(kinds) if isinstance(kind, JSON)))


def _json(value: Any) -> str:
    return "{}" if value == {} else json.dumps(value)  # most runs have no parameters


def _plain(table: str, names: Names, rows: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Return the rows with the values that the driver understands."""
    columns: list[Sequence[Any]] = [*zip(*rows, strict=True)]
    for n, convert in _converters(table, names):
        columns[n] = _converted(columns[n], convert)
    return [*zip(*columns, strict=True)]


def _converted(column: Sequence[Any], convert: Callable[[Any], Any]) -> list[Any]:
    """Return the values of a column, converted; many are often one and the same."""
    known, as_sent, converted = None, None, []
    if all(map(operator.is_, column, repeat(column[0]))):
        return [None if column[0] is None else convert(column[0])] * len(column)
    for value in column:
        if value is not known:
            known, as_sent = value, None if value is None else convert(value)
        converted.append(as_sent)
    return converted
