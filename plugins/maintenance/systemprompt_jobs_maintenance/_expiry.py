"""Which rows are past a cutoff, whatever the column holds.

Times without an offset are UTC. A date is past when its whole day is. Numbers are seconds since
1970; those before March 1973 are taken for no time at all, so a 0 that means "never", or a
counter named by mistake, expires nothing. What cannot be read as a time never expires.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    Date,
    DateTime,
    Float,
    Integer,
    Numeric,
    String,
    and_,
    case,
    cast,
    false,
    func,
    type_coerce,
)
from sqlalchemy.types import NullType

FIRST_SECOND = 100_000_000
DAY_GLOB = "[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]"
DAY_REGEX = "^[0-9]{4}-[0-9]{2}-[0-9]{2}"


def is_past(column: Column[Any], cutoff: datetime, dialect: str) -> ColumnElement[bool]:
    """Return the condition that `column` is before `cutoff` (aware).

    Raises TypeError, naming the type, for a column that holds no times.
    """
    cutoff = cutoff.astimezone(UTC)
    if dialect == "sqlite":
        return _stored(column, cutoff)
    match column.type:
        case DateTime(timezone=True):
            return column < cutoff
        case DateTime():
            return column < cutoff.replace(tzinfo=None)
        case Date():
            return column < cutoff.date()
        case Integer() | Numeric() | Float():
            return _seconds(column, cutoff)
        case String() if dialect == "postgresql":
            return _text(column, cutoff)
    raise TypeError(f"column {column.name!r} is {column.type}, which holds no times")


def _seconds(column: ColumnElement[Any], cutoff: datetime) -> ColumnElement[bool]:
    return and_(column >= FIRST_SECOND, column < cutoff.timestamp())


def _stored(column: Column[Any], cutoff: datetime) -> ColumnElement[bool]:
    # SQLite stores any value in any column: what counts is how this one is stored. Its own date
    # functions also take "now", "12:00" and "2024" (a Julian day), hence the patterns.
    value = type_coerce(column, NullType())
    instant = f"{cutoff:%Y-%m-%d %H:%M:%S}.{cutoff.microsecond // 1000:03}"
    return case(
        (func.typeof(value).in_(("integer", "real")), _seconds(value, cutoff)),
        (value.op("GLOB")(DAY_GLOB), value < cutoff.date().isoformat()),
        (value.op("GLOB")(f"{DAY_GLOB}[T ]*"), func.julianday(value) < func.julianday(instant)),
        else_=false(),
    )


def _text(column: Column[Any], cutoff: datetime) -> ColumnElement[bool]:
    has_offset = column.regexp_match("(Z|[+-][0-9]{2}(:?[0-9]{2})?)$")
    instant = cast(case((has_offset, column), else_=column + "Z"), DateTime(timezone=True))
    return case(
        (column.regexp_match(f"{DAY_REGEX}$"), column < cutoff.date().isoformat()),
        (column.regexp_match(f"{DAY_REGEX}[T ][0-9]{{2}}:"), instant < cutoff),
        else_=false(),
    )
