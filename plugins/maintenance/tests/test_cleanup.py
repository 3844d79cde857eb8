"""`cleanup` deletes exactly the expired rows of the configured tables."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from pydantic import ValidationError
from sqlalchemy import create_engine, event, text
from systemprompt_jobs_maintenance import TableRule, cleanup

from systemprompt_jobs.errors import ServiceError

NOW = datetime(2024, 5, 1, 12, 0, tzinfo=UTC)
EPOCH = int(NOW.timestamp())


def rule(table="items", column="at", **more):
    return TableRule(table=table, column=column, **more)


@pytest.fixture
def expires(execute, context):
    """Say whether a row whose column holds `value` is deleted."""

    def ask(value, declared="", **more):
        execute(f"CREATE TABLE items (id INTEGER PRIMARY KEY, at {declared})")
        execute("INSERT INTO items (at) VALUES (:at)", {"at": value})
        result = cleanup(context(), tables=[rule(**more)])
        assert result.ok, result.message
        return execute("SELECT count(*) FROM items") == [(0,)]

    return ask


def test_without_tables_it_says_that_nothing_is_configured(context):
    result = cleanup(context())
    assert (result.ok, result.message) == (True, "nothing configured")


def test_exactly_the_expired_rows_of_thousands_are_deleted(execute, context):
    execute("CREATE TABLE items (id INTEGER PRIMARY KEY, at DATETIME)")
    hours = [{"id": n, "at": f"{NOW + timedelta(hours=n % 97 - 48):%F %T}"} for n in range(5000)]
    execute("INSERT INTO items VALUES (:id, :at)", *hours)
    expired = sum(n % 97 < 48 for n in range(5000))

    result = cleanup(context(), tables=[rule()])

    assert result.message == f"deleted {expired} rows of items"
    assert (result.ok, result.processed, result.failed) == (True, expired, 0)
    left = execute("SELECT id FROM items ORDER BY id")
    assert [key for (key,) in left] == [n for n in range(5000) if n % 97 >= 48]


def test_a_dry_run_counts_the_same_rows_and_writes_nothing(execute, context, tmp_path):
    execute("CREATE TABLE items (id INTEGER PRIMARY KEY, at INTEGER)")
    execute("INSERT INTO items VALUES (:id, :at)", *[{"id": n, "at": EPOCH - n} for n in range(9)])
    before = (tmp_path / "app.db").read_bytes()

    result = cleanup(context(enforce=False), tables=[rule()])

    assert result.message == "would delete 8 rows of items"
    assert (tmp_path / "app.db").read_bytes() == before
    assert cleanup(context(), tables=[rule()]).message == "deleted 8 rows of items"


def test_several_tables_stand_in_one_message(execute, context):
    for table in ("sessions", "tokens", "empty"):
        execute(f"CREATE TABLE {table} (id INTEGER PRIMARY KEY, at INTEGER)")
    execute("INSERT INTO sessions (at) VALUES (:at)", {"at": EPOCH - 1})
    execute("INSERT INTO tokens (at) VALUES (:at)", {"at": EPOCH - 1}, {"at": EPOCH - 2})
    result = cleanup(context(), tables=[rule("sessions"), rule("tokens"), rule("empty")])
    assert result.message == "deleted 1 row of sessions, 2 of tokens, 0 of empty"


@pytest.mark.parametrize(
    ("value", "gone"),
    [
        ("2024-05-01 11:59:59", True),
        ("2024-05-01 12:00:00", False),
        ("2024-05-01 11:59:59.999", True),
        ("2024-05-01T11:59", True),
        ("2024-05-01T12:01", False),
        ("2024-05-01T11:59:59Z", True),
        ("2024-05-01T13:59:59+02:00", True),  # later as text, earlier as time
        ("2024-05-01T10:00:00-05:00", False),  # earlier as text, later as time
        ("2024-05-01 13:59:59+02:00", True),
        ("2024-04-30", True),
        ("2024-05-01", False),  # the day is not over
        (EPOCH - 1, True),
        (EPOCH, False),
        (EPOCH - 0.5, True),
        (0, False),
        (99_999_999, False),
        (None, False),
        ("", False),
        ("now", False),
        ("never", False),
        ("2024", False),
        ("11:00", False),
        ("2024-99-99 00:00", False),
    ],
)
@pytest.mark.parametrize("declared", ["", "DATETIME", "TIMESTAMP", "TEXT", "DATE", "VARCHAR(40)"])
def test_each_value_is_read_by_how_it_is_stored(expires, value, gone, declared):
    if declared in {"TEXT", "VARCHAR(40)"} and isinstance(value, (int, float)):
        gone = False  # stored as text, and digits alone are no time
    assert expires(value, declared) is gone


@pytest.mark.parametrize(("days", "gone"), [(29, False), (31, True)])
def test_older_than_counts_back_from_the_tick(expires, days, gone):
    value = (NOW - timedelta(days=days)).isoformat()
    assert expires(value, older_than=timedelta(days=30)) is gone


def test_a_tick_in_another_zone_is_the_same_instant(execute, context):
    execute("CREATE TABLE items (id INTEGER PRIMARY KEY, at TEXT)")
    execute("INSERT INTO items (at) VALUES ('2024-05-01T11:59:59'), ('2024-05-01T12:00:01')")
    tick = NOW.astimezone(timezone(timedelta(hours=-9)))
    result = cleanup(context(tick=tick), tables=[rule()])
    assert result.message == "deleted 1 row of items"


def test_without_a_tick_age_counts_from_now(execute, context):
    execute("CREATE TABLE items (id INTEGER PRIMARY KEY, at TEXT)")
    execute("INSERT INTO items (at) VALUES ('2024-05-01T12:00:01'), ('9999-01-01')")
    result = cleanup(context(tick=None), tables=[rule()])
    assert result.message == "deleted 1 row of items"


@pytest.mark.parametrize("batch", [1, 2, 3, 7, 100])
def test_each_batch_is_a_transaction_of_at_most_that_many_rows(execute, context, batch):
    execute("CREATE TABLE items (id INTEGER PRIMARY KEY, at INTEGER)")
    execute("INSERT INTO items VALUES (:id, 200000000)", *[{"id": n} for n in range(7)])
    ctx = context()
    deleted = []

    def remember(_connection, cursor, statement, *_):
        if statement.startswith("DELETE"):
            deleted.append(cursor.rowcount)

    event.listen(ctx.resources.engine("default"), "after_cursor_execute", remember)
    assert cleanup(ctx, tables=[rule()], batch=batch).processed == 7
    assert sum(deleted) == 7
    assert max(deleted) == min(batch, 7)


def test_a_primary_key_of_several_columns_of_any_type_works(execute, context):
    execute(
        "CREATE TABLE items (day DATETIME, name TEXT, n BLOB, at INTEGER,"
        " PRIMARY KEY (day, name, n)) WITHOUT ROWID"
    )
    keys = [
        {"day": f"2024-05-0{d}T0{d}:00Z", "name": name, "n": bytes([n]), "at": EPOCH - 1 + n % 2}
        for d in range(1, 5)
        for name in ("", "a'b", "ü", "%")
        for n in range(5)
    ]
    execute("INSERT INTO items VALUES (:day, :name, :n, :at)", *keys)
    assert cleanup(context(), tables=[rule()], batch=3).processed == 48
    assert execute("SELECT count(*), min(at) FROM items") == [(32, EPOCH)]


def test_rows_with_a_null_in_their_primary_key_stay_and_stop_nothing(execute, context):
    execute("CREATE TABLE items (id TEXT PRIMARY KEY, at INTEGER)")
    rows = [{"id": key, "at": 200_000_000} for key in (None, None, "a", "b", None)]
    execute("INSERT INTO items VALUES (:id, :at)", *rows)
    assert cleanup(context(enforce=False), tables=[rule()]).processed == 2
    assert cleanup(context(), tables=[rule()], batch=1).processed == 2
    assert execute("SELECT count(*) FROM items WHERE id IS NULL") == [(3,)]


def test_a_row_renewed_after_it_was_looked_at_stays(execute, context):
    execute("CREATE TABLE items (id INTEGER PRIMARY KEY, at INTEGER)")
    execute("INSERT INTO items VALUES (1, 200000000), (2, 200000000), (3, 200000000)")
    ctx = context()

    def renew(_connection, _cursor, statement, *_):
        if statement.startswith("DELETE"):
            execute("UPDATE items SET at = 9999999999 WHERE id = 1")

    event.listen(ctx.resources.engine("default"), "before_cursor_execute", renew)
    assert cleanup(ctx, tables=[rule()], batch=2).processed == 2
    assert execute("SELECT id FROM items") == [(1,)]


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (rule("itms"), "itms: the database has no such table (did you mean 'items'?)"),
        (rule("x; DROP TABLE items"), "x; DROP TABLE items: the database has no such table"),
        (rule(column="att"), "items: no column 'att' (did you mean 'at'?)"),
        (rule(column='at" OR 1=1 --'), "items: no column 'at\" OR 1=1 --'"),
        (rule("keyless"), "keyless: no primary key, so its rows cannot be deleted in batches"),
        (rule("glimpse"), "glimpse: no primary key, so its rows cannot be deleted in batches"),
    ],
)
def test_a_wrong_rule_is_named_and_the_other_tables_are_done(execute, context, wrong, reason):
    execute("CREATE TABLE keyless (at INTEGER)")
    execute("CREATE TABLE items (id INTEGER PRIMARY KEY, at INTEGER)")
    execute("CREATE VIEW glimpse AS SELECT * FROM items")
    execute("INSERT INTO items (at) VALUES (200000000)")
    result = cleanup(context(), tables=[wrong, rule()])
    assert not result.ok
    assert result.message == f"deleted 1 row of items; 1 failed; {reason}"
    assert (result.processed, result.failed) == (1, 1)


def test_odd_names_of_tables_and_columns_are_quoted(execute, context):
    execute('CREATE TABLE "or der\'s" ("i d" INTEGER PRIMARY KEY, "wh""en" INTEGER)')
    execute('INSERT INTO "or der\'s" VALUES (1, 200000000)')
    result = cleanup(context(), tables=[rule("or der's", 'wh"en')])
    assert result.message == "deleted 1 row of or der's"


def test_rows_deleted_before_a_table_fails_are_counted(execute, context):
    execute("CREATE TABLE items (id INTEGER PRIMARY KEY, at INTEGER)")
    execute("INSERT INTO items VALUES (1, 200000000), (2, 200000000), (3, 200000000)")
    execute(
        "CREATE TRIGGER guard BEFORE DELETE ON items WHEN old.id = 3"
        " BEGIN SELECT raise(ABORT, 'three stays'); END"
    )
    result = cleanup(context(), tables=[rule()], batch=1)
    assert result.message == "deleted 2 rows of items; 1 failed; items: three stays"
    assert (result.ok, result.processed, result.failed) == (False, 2, 1)


def test_a_database_that_another_writer_holds_is_a_failure_with_the_reason(
    execute, context, engine
):
    execute("CREATE TABLE items (id INTEGER PRIMARY KEY, at INTEGER)")
    execute("INSERT INTO items (at) VALUES (200000000)")
    with engine.connect() as other:
        other.exec_driver_sql("BEGIN IMMEDIATE")
        result = cleanup(context(), tables=[rule()])
    assert result.message == "deleted nothing; 1 failed; items: database is locked"


def test_a_database_that_is_not_configured_is_named(context):
    with pytest.raises(ServiceError, match="no database 'other' is configured"):
        cleanup(context(), tables=[rule()], database="other")


@pytest.mark.parametrize(
    "value",
    [
        {"table": "items"},
        {"table": "items", "column": "at", "older_then": "30d"},
        {"table": "items", "column": "at", "older_than": "-1d"},
        {"table": "items", "column": "at", "older_than": "200000d"},
        {"table": "items", "column": "at", "older_than": "soon"},
    ],
)
def test_a_rule_that_is_mistyped_is_refused(value):
    with pytest.raises(ValidationError):
        TableRule.model_validate(value)


def test_ages_are_written_as_everywhere_else():
    value = {"table": "items", "column": "at", "older_than": "1d12h"}
    assert TableRule.model_validate(value).older_than == timedelta(hours=36)


def test_foreign_keys_of_the_application_are_respected(tmp_path, context):
    engine = create_engine(f"sqlite:///{tmp_path / 'app.db'}")
    ctx = context()
    event.listen(
        ctx.resources.engine("default"),
        "connect",
        lambda connection, _: connection.execute("PRAGMA foreign_keys = ON"),
    )
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE items (id INTEGER PRIMARY KEY, at INTEGER)"))
        connection.execute(text("CREATE TABLE parts (item REFERENCES items (id))"))
        connection.execute(text("INSERT INTO items VALUES (1, 200000000)"))
        connection.execute(text("INSERT INTO parts VALUES (1)"))
    engine.dispose()
    result = cleanup(ctx, tables=[rule()])
    assert result.message == "deleted nothing; 1 failed; items: FOREIGN KEY constraint failed"
