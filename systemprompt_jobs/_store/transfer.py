"""A whole database as JSON lines, and back: so a deployment moves from SQLite to PostgreSQL.

The first line says which schema the others are of; each other is one row of one table, in an
order in which they can be inserted. Instants are microseconds since the epoch, as stored.
"""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from itertools import groupby, islice
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, insert, select

from ..errors import UsageError
from .schema import (
    Instant,
    Microseconds,
    attempt,
    audit,
    instant,
    job,
    job_set,
    metadata,
    micros,
    node,
    run,
    slot,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sqlalchemy import Connection, Table

_TABLES = (job, job_set, node, run, attempt, slot, audit)
_BATCH = 500
_FORMAT = "systemprompt-jobs"


def export(connection: Connection, revision: str) -> Iterator[str]:
    """Yield the lines of everything that is recorded."""
    yield json.dumps({"format": _FORMAT, "schema": revision})
    for table in _TABLES:
        rows = connection.execution_options(yield_per=_BATCH).execute(
            select(table).order_by(*table.primary_key.columns)
        )
        for row in rows:
            values = {name: _plain(value) for name, value in row._mapping.items()}  # noqa: SLF001
            yield json.dumps({"table": table.name, "row": values}, ensure_ascii=False)


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return micros(value)
    return value // timedelta(microseconds=1) if isinstance(value, timedelta) else value


def load(connection: Connection, lines: Iterable[str], revision: str) -> dict[str, int]:
    """Insert exported lines into an empty database; return how many rows each table got.

    The leases of held runs are ended, since they counted on another database's clock: whoever
    starts next rescues those runs. Raises UsageError, and then the transaction must be undone.
    """
    numbered = _documents(lines)
    _check_head(next(numbered, (1, {})), revision)
    for table in _TABLES:
        if connection.execute(select(func.count()).select_from(table)).scalar():
            raise UsageError(
                f"the database is not empty: {table.name} has rows; import into a new one"
            )
    counts = {table.name: 0 for table in _TABLES}
    for name, rows in groupby(_rows(numbered), key=lambda pair: pair[0]):
        values = (row for _, row in rows)
        while batch := list(islice(values, _BATCH)):
            connection.execute(insert(metadata.tables[name]), batch)
            counts[name] += len(batch)
    _go_on_counting(connection)
    return counts


def _documents(lines: Iterable[str]) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(lines, 1):
        try:
            yield number, json.loads(line)
        except ValueError:
            raise UsageError(f"line {number} is no JSON: {line[:60]!r}") from None


def _check_head(head: tuple[int, Any], revision: str) -> None:
    found = head[1]
    if not isinstance(found, dict) or found.get("format") != _FORMAT:
        raise UsageError("line 1 is not that of an export: write one with `db export`")
    if found.get("schema") != revision:
        raise UsageError(
            f"the export is of schema {found.get('schema')}, this version has {revision}: "
            "export it with the same version, after `db upgrade`"
        )


def _rows(numbered: Iterator[tuple[int, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, line in numbered:
        try:
            table = metadata.tables[line["table"]]
            values = {name: _stored(table, name, value) for name, value in line["row"].items()}
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError(f"line {number} is no row that this version knows: {error}") from None
        if table is run and values.get("lease_until") is not None:
            values["lease_until"] = 0
        yield table.name, values


def _stored(table: Table, name: str, value: Any) -> Any:
    kind = table.c[name].type
    if value is not None and isinstance(kind, Instant):
        return instant(int(value))
    return (
        timedelta(microseconds=value)
        if value is not None and isinstance(kind, Microseconds)
        else value
    )


def _go_on_counting(connection: Connection) -> None:
    """Have new ids come after the imported ones; SQLite sees to that by itself."""
    if connection.dialect.name != "postgresql":
        return
    for table in (run, audit):
        newest = connection.execute(select(func.max(table.c.id))).scalar() or 0
        sequence = func.pg_get_serial_sequence(table.name, "id")
        connection.execute(select(func.setval(sequence, newest + 1, False)))
