"""`cleanup`: delete the expired rows of configured tables, in small transactions."""

from __future__ import annotations

from collections.abc import Sequence  # noqa: TC003 - parameters are checked by annotation
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, Field
from sqlalchemy import (
    Engine,
    MetaData,
    Table,
    and_,
    delete,
    func,
    inspect,
    select,
    true,
    tuple_,
    type_coerce,
)
from sqlalchemy.exc import DBAPIError, NoSuchTableError, SQLAlchemyError
from sqlalchemy.types import NullType

from systemprompt_jobs import JobResult, job

from ._common import NOTHING, Age, conclude, counted
from ._expiry import is_past

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sqlalchemy import ColumnElement

    from systemprompt_jobs import JobContext


class TableRule(BaseModel, frozen=True, extra="forbid"):
    """A row of `table` is expired when its `column` is more than `older_than` ago."""

    table: str
    column: str
    older_than: Age = timedelta(0)


class RefusedError(Exception):
    """A rule that cannot be followed; the message says why."""


@dataclass(frozen=True, slots=True)
class _Swept:
    """What became of one table: the rows deleted (or counted), and what went wrong."""

    table: str
    rows: int
    problem: str = ""


@job(schedule="0 0 * * * *", run_on_startup=True)
def cleanup(
    ctx: JobContext,
    *,
    tables: Sequence[TableRule] = (),
    database: str = "default",
    batch: Annotated[int, Field(ge=1)] = 500,
) -> JobResult:
    """Delete expired rows of the configured tables.

    Age counts back from the tick, or from now. Each `batch` of rows is one transaction.
    """
    if not tables:
        return NOTHING
    engine = ctx.db_pool(Engine, database)
    now = ctx.tick or datetime.now(UTC)
    swept = [_sweep(engine, rule, now, batch if ctx.enforce else None) for rule in tables]
    problems = [f"{each.table}: {each.problem}" for each in swept if each.problem]
    verb = "deleted" if ctx.enforce else "would delete"
    return conclude(f"{verb} {_amounts(swept)}", problems, sum(each.rows for each in swept))


def _amounts(swept: Iterable[_Swept]) -> str:
    done = [each for each in swept if each.rows or not each.problem]
    if not done:
        return "nothing"
    first = f"{counted(done[0].rows, 'row', 'rows')} of {done[0].table}"
    return ", ".join([first, *(f"{each.rows} of {each.table}" for each in done[1:])])


def _sweep(engine: Engine, rule: TableRule, now: datetime, batch: int | None) -> _Swept:
    """Delete the expired rows of one table; without a `batch`, count them."""
    rows = 0
    try:
        table = _reflect(engine, rule)
        expired = _expired(table, rule, now, engine.dialect.name)
        if batch is None:
            return _Swept(rule.table, _count(engine, table, expired))
        for deleted in _delete(engine, table, expired, batch):
            rows += deleted
    except (RefusedError, SQLAlchemyError) as error:
        return _Swept(rule.table, rows, _reason(error))
    return _Swept(rule.table, rows)


def _reflect(engine: Engine, rule: TableRule) -> Table:
    try:
        table = Table(rule.table, MetaData(), autoload_with=engine, resolve_fks=False)
    except NoSuchTableError:
        near = _near(rule.table, inspect(engine).get_table_names())
        raise RefusedError(f"the database has no such table{near}") from None
    if rule.column not in table.columns:
        raise RefusedError(f"no column {rule.column!r}{_near(rule.column, table.columns.keys())}")
    if not table.primary_key.columns:
        raise RefusedError("no primary key, so its rows cannot be deleted in batches")
    return table


def _near(name: str, known: Iterable[str]) -> str:
    near = get_close_matches(name, known, n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def _expired(table: Table, rule: TableRule, now: datetime, dialect: str) -> ColumnElement[bool]:
    try:
        past = is_past(table.columns[rule.column], now - rule.older_than, dialect)
    except TypeError as error:
        raise RefusedError(str(error)) from None
    # SQLite allows NULL in primary keys; such a row has no place in the order of batches.
    return and_(past, *(column.is_not(None) for column in table.primary_key))


def _count(engine: Engine, table: Table, expired: ColumnElement[bool]) -> int:
    with engine.connect() as connection:
        return connection.execute(
            select(func.count()).select_from(table).where(expired)
        ).scalar_one()


def _delete(
    engine: Engine, table: Table, expired: ColumnElement[bool], batch: int
) -> Iterator[int]:
    """Yield the number of rows that each transaction deleted, walking the primary key once."""
    # Without their types, keys come and go as the driver has them: SQLite may store a key in
    # another shape than the one its declared type would be written in.
    key = [type_coerce(column, NullType()) for column in table.primary_key]
    rest: ColumnElement[bool] = expired
    while True:
        last = _last_of_batch(engine, rest, key, batch)
        page = true() if last is None else tuple_(*key) <= last
        with engine.begin() as connection:
            yield connection.execute(delete(table).where(rest, page)).rowcount
        if last is None:
            return
        rest = and_(expired, tuple_(*key) > last)


def _last_of_batch(
    engine: Engine, rest: ColumnElement[bool], key: Sequence[ColumnElement[Any]], batch: int
) -> tuple[Any, ...] | None:
    """Return the key of the batch's last row, None if fewer rows than a batch are left."""
    query = select(*key).where(rest).order_by(*key).offset(batch - 1).limit(1)
    with engine.connect() as connection:
        row = connection.execute(query).first()
    return None if row is None else tuple(row)


def _reason(error: Exception) -> str:
    """Return what went wrong, without the statement that SQLAlchemy adds."""
    if isinstance(error, DBAPIError) and error.orig is not None:
        error = error.orig
    return str(error).partition("\n")[0]
