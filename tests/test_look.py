"""What operators ask of the database: runs by many filters, nodes, audit, statistics."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import create_engine, event

from systemprompt_jobs import _look
from systemprompt_jobs._rows import job_row, run_values
from systemprompt_jobs._store import jobs as job_rows
from systemprompt_jobs._store import nodes as node_rows
from systemprompt_jobs._store import plans as plan_rows
from systemprompt_jobs._store import queries, statistics
from systemprompt_jobs._store import runs as run_rows
from systemprompt_jobs._store.queries import Wanted
from systemprompt_jobs._store.schema import metadata
from systemprompt_jobs._store.schema import run as run_table
from systemprompt_jobs.model import Backlog, State, Trigger
from tests.support import START, ManualClock, make_plan

SECOND, HOUR, DAY = timedelta(seconds=1), timedelta(hours=1), timedelta(days=1)


@pytest.fixture(autouse=True)
def _no_boot(monkeypatch):
    monkeypatch.setattr(_look, "boot_id", lambda: "boot")


@pytest.fixture
def clock():
    return ManualClock()


def record(store, *rows):
    """Insert runs; each is a name, how long ago, a state and other columns."""
    plans = [make_plan(name) for name in sorted({name for name, *_ in rows})]
    with store.write() as connection:
        job_rows.add_missing(connection, [job_row(plan, "node") for plan in plans])
        return [_insert(connection, n, *row) for n, row in enumerate(rows)]


def _insert(connection, number, name, ago, state, values):
    at = START - ago
    row = run_values(make_plan(name), f"{number}", Trigger.SCHEDULE, at)
    (added,) = run_rows.add(
        connection, [row | {"state": state, "tick_at": at, "finished": at, "node": "h:1:a"}]
    )
    connection.execute(
        run_table.update().where(run_table.c.id == added.id).values({"count": 1} | values)
    )
    return added.id


def ids(store, **wanted):
    with store.read() as connection:
        return [run.id for run in queries.history(connection, wanted=Wanted(**wanted))]


def done(name, ago, took=0.0, late=0.0, state=State.SUCCEEDED, **values):
    started = START - ago + timedelta(seconds=late)
    times = {"started": started, "finished": started + timedelta(seconds=took)}
    return name, ago, state, {"available_at": START - ago, **times, **values}


# --- history ---


def test_runs_that_overlap_a_time(store):
    night = (
        "a",
        2 * HOUR,
        State.MISSED,
        {"tick_at": START - 8 * HOUR, "last_tick": START - 3 * HOUR},
    )
    one, two, three, stretch = record(
        store, done("a", 6 * HOUR), done("a", 5 * HOUR), done("a", 1 * HOUR), night
    )
    assert ids(store, since=START - 5 * HOUR) == [stretch, three, two]
    assert ids(store, until=START - 5 * HOUR) == [stretch, one]
    assert ids(store, since=START - 4 * HOUR, until=START - 2 * HOUR) == [stretch]


def test_a_run_that_goes_on_overlaps_the_present(store):
    (going,) = record(store, ("a", 5 * HOUR, State.RUNNING, {"finished": None}))
    assert ids(store, since=START - HOUR) == [going]


def test_runs_of_a_node_by_the_beginning_of_its_id(store):
    one, two = record(store, done("a", HOUR, node="web%1:7:x"), done("a", HOUR, node="web21:7:y"))
    assert ids(store, node="web%1") == [one]
    assert ids(store, node="web21:7:y") == [two]
    assert ids(store, node="eb") == []


def test_runs_that_say_something_in_error_or_message(store):
    failed, told, _ = record(
        store,
        done("a", HOUR, error="ValueError: no 100% luck"),
        done("a", HOUR, message="Luck was 100% there"),
        done("a", HOUR, message="nothing"),
    )
    assert ids(store, text="LUCK") == [told, failed]
    assert ids(store, text="100% L") == [failed]
    assert ids(store, text="_luck") == []


def test_the_next_page_begins_below_the_last_run(store):
    numbers = record(store, *(done("a", n * HOUR) for n in range(5)))
    assert ids(store, before=numbers[3]) == numbers[2::-1]


# --- what has not ended ---


def test_what_has_not_ended_is_counted_by_job(store, clock):
    over, good = clock.lease_now() - 1, clock.lease_now() + 1
    again = {"attempt": 1, "max_attempts": 2}
    record(
        store,
        ("a", HOUR, State.PENDING, {"node": "", "available_at": START - HOUR}),
        ("a", 2 * HOUR, State.PENDING, {"node": "", "available_at": START - 2 * HOUR}),
        ("a", 3 * HOUR, State.PENDING, {"node": "", "available_at": START - 3 * HOUR, **again}),
        ("b", HOUR, State.CLAIMED, {"lease_until": good}),
        ("b", HOUR, State.CLAIMED, {"lease_until": good, **again}),
        ("b", HOUR, State.RUNNING, {"lease_until": over, "attempt": 1}),
        ("b", HOUR, State.RUNNING, {"lease_until": good, "attempt": 1}),
        done("c", HOUR),
    )
    assert _look.backlog(store, clock) == [
        Backlog("ext:a", pending=2, retrying=1, since=START - 2 * HOUR),
        Backlog("ext:b", retrying=1, claimed=1, running=2, held=3, expired=1),
    ]


@pytest.mark.parametrize(
    "ask",
    [
        lambda connection: queries.backlog(connection, 1, "boot"),
        lambda connection: queries.history(
            connection, states=["running", "dispatched", "retrying"], limit=100
        ),
    ],
    ids=["backlog", "history"],
)
def test_what_has_not_ended_is_looked_for_in_its_indexes_and_not_in_the_history(ask):
    engine = create_engine("sqlite://")
    metadata.create_all(engine)
    asked = []

    @event.listens_for(engine, "before_cursor_execute")
    def note(connection, cursor, statement, parameters, context, many):
        asked.append((statement, parameters))

    with engine.begin() as connection:
        ask(connection)
        statement, values = asked[-1]
        rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values).fetchall()
    engine.dispose()
    scans = {row[3] for row in rows if row[3].startswith("SCAN jobs_run")}
    assert {scan.replace("COVERING ", "") for scan in scans} == {
        "SCAN jobs_run USING INDEX jobs_run_pending",
        "SCAN jobs_run USING INDEX jobs_run_held",
    }


# --- statistics ---


def stats(store, clock, jobs=None, since=7 * DAY):
    return {found.job_id: found for found in _look.stats(store, clock, jobs, since)}


def test_percentiles_are_by_nearest_rank(store, clock):
    record(store, *(done("a", DAY, took=n, late=n / 100) for n in range(1, 101)))
    found = stats(store, clock)["ext:a"]
    assert found.took == (50 * SECOND, 95 * SECOND)
    assert found.late == (0.5 * SECOND, 0.95 * SECOND)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_few_runs_have_percentiles_too(store, clock, number):
    record(store, *(done("a", DAY, took=n + 1) for n in range(number)))
    half = (number + 1) // 2
    assert stats(store, clock)["ext:a"].took == (half * SECOND, number * SECOND)


def test_of_many_runs_the_newest_are_ranked(store, clock, monkeypatch):
    monkeypatch.setattr(statistics, "RANKED", 10)
    record(store, *(done("a", DAY, took=n) for n in range(100, 0, -1)))
    found = stats(store, clock)["ext:a"]
    assert (found.runs, found.took) == (100, (5 * SECOND, 10 * SECOND))


def test_runs_count_and_what_never_ran_does_not(store, clock):
    record(
        store,
        *(done("a", DAY) for _ in range(3)),
        done("a", DAY, state=State.FAILED),
        ("a", DAY, State.SKIPPED, {}),
        ("a", DAY, State.MISSED, {"count": 60}),
    )
    found = stats(store, clock)["ext:a"]
    assert (found.runs, found.success_rate) == (4, 0.75)
    assert found.counts == {"succeeded": 3, "failed": 1, "skipped": 1, "missed": 60}


def test_only_what_was_recorded_lately_counts_and_each_job_for_itself(store, clock):
    record(
        store,
        done("a", 9 * DAY, took=100),
        done("c", 9 * DAY),
        done("a", DAY, took=1),
        done("b", DAY, took=5),
    )
    found = stats(store, clock)
    assert found["ext:a"].took == (SECOND, SECOND)
    assert found["ext:b"].took == (5 * SECOND, 5 * SECOND)
    assert (found["ext:c"].runs, found["ext:c"].success_rate, found["ext:c"].took) == (
        0, None, (None, None),
    )  # fmt: skip
    assert [state for state, _ in found["ext:c"].last] == ["succeeded"]
    assert stats(store, clock, ["ext:b"]).keys() == {"ext:b"}


def test_the_newest_runs_come_oldest_first(store, clock):
    record(store, *(done("a", (40 - n) * HOUR, took=n) for n in range(30)))
    last = stats(store, clock)["ext:a"].last
    assert [took for _, took in last] == [n * SECOND for n in range(10, 30)]


# --- nodes and audit ---


def join(store, clock, name, hash_, ids, lease_until=None, **values):
    row = {
        "id": name, "host": "h", "pid": 1, "boot": "boot" if store.one_host else "",
        "kind": "scheduler", "version": "1", "job_set": hash_, "workers": 4,
        "clock_offset": timedelta(seconds=0.5), "started": START - 9 * HOUR, "heartbeat": START,
        "lease_until": clock.lease_now() + 1 if lease_until is None else lease_until,
    }  # fmt: skip
    with store.write() as connection:
        plan_rows.add_set(connection, hash_, dict.fromkeys(ids, "f"))
        node_rows.join(connection, row | values)


def test_live_nodes_come_first_and_say_what_they_lack(store, clock):
    join(store, clock, "one", "ab", ["a", "b"])
    join(store, clock, "two", "bc", ["b", "c"], started=START)
    join(store, clock, "dead", "d", ["d"], lease_until=0, heartbeat=START - HOUR)
    join(store, clock, "hand", "e", ["e"], kind="command")
    nodes = _look.nodes(store, clock, DAY)
    assert [(n.id, n.state, n.jobs, n.lacks) for n in nodes] == [
        ("one", "live", 2, ("c",)),
        ("two", "live", 2, ("a",)),
        ("dead", "died", 1, ()),
    ]
    assert nodes[0].clock_offset == timedelta(seconds=0.5)


def test_a_node_that_left_is_told_from_one_that_died(store, clock):
    for name in ("left", "died"):
        join(store, clock, name, "a", ["a"], lease_until=0, heartbeat=START - HOUR)
    with store.write() as connection:
        node_rows.leave(connection, "left", START - HOUR)
        (died,) = node_rows.silent(connection, clock.lease_now(), "boot" if store.one_host else "")
        assert node_rows.bury(connection, [died], START) == [died[0]]
    assert {n.id: n.state for n in _look.nodes(store, clock, DAY)} == {
        "left": "left", "died": "died",
    }  # fmt: skip
    assert _look.nodes(store, clock, HOUR / 2) == []


def test_the_audit_is_newest_first_and_comes_in_pages(store):
    with store.write() as connection:
        for n in range(4):
            job_rows.add_audit(connection, START, "me", "run", f"e:{n}", "why")
    newest = _look.audit(store, None, 2)
    assert [(e.who, e.action, e.subject, e.note) for e in newest] == [
        ("me", "run", "e:3", "why"), ("me", "run", "e:2", "why"),
    ]  # fmt: skip
    assert [e.subject for e in _look.audit(store, newest[-1].id, 9)] == ["e:1", "e:0"]


def test_the_newest_runs_of_each_job_oldest_first(store):
    rows = [done(name, n * HOUR) for n in (4, 3, 2, 1) for name in ("a", "b", "c")]
    a1, _, _, a2, _, _, a3, b3, _, a4, b4, _ = record(store, *rows)
    with store.read() as connection:
        found = statistics.newest(connection, ["ext:a", "ext:b", "ext:gone"], 2)
        more = statistics.newest(connection, ["ext:a"], 9)
    assert {id_: [run.id for run in runs] for id_, runs in found.items()} == {
        "ext:a": [a3, a4],
        "ext:b": [b3, b4],
    }
    assert [run.id for run in more["ext:a"]] == [a1, a2, a3, a4]


def test_glances_activity_and_last_states_are_of_the_jobs_asked_for(store):
    second = timedelta(seconds=1)
    record(
        store,
        ("a", 3 * HOUR, "succeeded", {"started": START, "finished": START + 2 * second}),
        ("a", 2 * HOUR, "skipped", {"reason": "overlap", "count": 4}),
        ("b", 2 * HOUR, "failed", {"attempt": 1}),
        ("b", HOUR, "succeeded", {"attempt": 2}),
        ("c", HOUR, "lost", {}),
    )
    with store.read() as connection:
        glances = statistics.glances(connection, ["ext:a", "ext:gone"], 9)
        newest = statistics.glances(connection, ["ext:a"], 1)
        cells = statistics.activity(connection, ["ext:a", "ext:b"], START - 4 * HOUR, HOUR)
        begun = statistics.begun(connection, START - 2 * HOUR, HOUR)
        bad = queries.last_in(connection, ["lost", "failed"])
    (done, skipped) = glances["ext:a"]
    assert (done.state, done.duration, done.at) == ("succeeded", 2 * second, START - 3 * HOUR)
    assert (skipped.reason, skipped.count, skipped.late) == ("overlap", 4, None)
    assert list(glances) == ["ext:a"]
    assert newest == {"ext:a": [skipped]}
    assert sorted(cells) == [
        ("ext:a", 1, "succeeded", 0, 1),
        ("ext:a", 2, "skipped", 0, 4),
        ("ext:b", 2, "failed", 0, 1),
        ("ext:b", 3, "succeeded", 1, 1),
    ]
    assert begun == {0: 2, 1: 2}
    assert bad == {"ext:c"}


# --- trouble ---


def test_trouble_is_what_went_wrong_and_not_what_a_job_has_skipped(store):
    skipped = [done("a", n * SECOND, state=State.SKIPPED, reason="job") for n in range(9)]
    failed = done("b", HOUR, state=State.FAILED)
    overlap = done("a", HOUR, state=State.SKIPPED, reason="overlap")
    numbers = record(store, done("a", DAY, state=State.LOST), failed, overlap, *skipped)
    record_well = numbers[0:3]
    with store.read() as connection:
        assert [run.id for run in queries.troubled(connection, 2)] == record_well[:0:-1]
