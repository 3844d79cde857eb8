"""Old history is forgotten in batches; what is needed stays, and no tick comes back."""

from __future__ import annotations

from datetime import timedelta

import pytest
import structlog
from sqlalchemy import func, insert, select

from systemprompt_jobs import _prune
from systemprompt_jobs._calendar import parse
from systemprompt_jobs._claim import Claimer
from systemprompt_jobs._node import new_node
from systemprompt_jobs._prune import Pruner, Retention, count_old, delete_old
from systemprompt_jobs._rows import job_row, run_values
from systemprompt_jobs._store import jobs as job_rows
from systemprompt_jobs._store import nodes as node_rows
from systemprompt_jobs._store import plans as plan_rows
from systemprompt_jobs._store import pruning, queries
from systemprompt_jobs._store import runs as run_rows
from systemprompt_jobs._store.schema import attempt, audit, job, job_set, node, run, slot
from systemprompt_jobs.errors import StoreError
from systemprompt_jobs.model import State, Trigger
from tests.support import Calls, ManualClock, make_plan, report

DAY = timedelta(days=1)
MONTH = Retention(30 * DAY, runs=0)


class Patient(ManualClock):
    """A clock on which waiting takes no time."""

    def __init__(self):
        super().__init__()
        self.waited = []

    def wait(self, condition, seconds):
        self.waited.append(seconds)
        self.advance(seconds)


@pytest.fixture
def clock():
    return Patient()


@pytest.fixture(autouse=True)
def _no_boot(monkeypatch):
    monkeypatch.setattr(_prune, "boot_id", lambda: "boot")


def row(clock, ago, name="cleanup", **values):
    at = clock.now() - ago
    found = run_values(make_plan(name), f"{name}{ago}", Trigger.SCHEDULE, at)
    return found | {"state": State.SUCCEEDED, "finished": at} | values


def record(store, *rows):
    with store.write() as connection:
        plans = [make_plan(name) for name in sorted({r["job_id"].split(":")[1] for r in rows})]
        job_rows.add_missing(connection, [job_row(plan, "node") for plan in plans])
        return [run.id for run in run_rows.add(connection, rows)]


def ids(store):
    with store.read() as connection:
        return list(connection.execute(select(run.c.id).order_by(run.c.id)).scalars())


def count(store, table):
    with store.read() as connection:
        return connection.execute(select(func.count()).select_from(table)).scalar()


def test_what_ended_before_its_time_is_forgotten_with_its_attempts(store, clock):
    old, _ = record(store, row(clock, 31 * DAY), row(clock, 29 * DAY))
    with store.write() as connection:
        values = {"fence": 1, "number": 1, "node": "n", "started": clock.now()}
        connection.execute(insert(attempt), [{"run_id": id_} | values for id_ in ids(store)])
    pruned = delete_old(store, clock, MONTH, "me")
    assert (pruned.runs, pruned.jobs) == (1, {"ext:cleanup": 1})
    assert old not in ids(store)
    assert count(store, run) == count(store, attempt) == 1


def test_of_each_job_the_newest_rows_stay_however_old(store, clock):
    frequent = [row(clock, (400 - n) * DAY) for n in range(10)]
    rare = [row(clock, (900 - n) * DAY, "rare") for n in range(3)]
    numbers = record(store, *rare, *frequent)
    pruned = delete_old(store, clock, Retention(30 * DAY, runs=4), "me")
    assert ids(store) == numbers[:3] + numbers[9:]
    assert pruned.jobs == {"ext:cleanup": 6}


def test_where_no_job_has_runs_to_spare_the_rest_is_forgotten_all_the_same(store, clock):
    record(store, row(clock, 400 * DAY))
    with store.write() as connection:
        job_rows.add_audit(connection, clock.now() - 400 * DAY, "me", "pause", "ext:cleanup")
    pruned = delete_old(store, clock, Retention(30 * DAY, runs=100), "me")
    assert (pruned.runs, pruned.audits) == (0, 1)


UNENDED = (State.PENDING, State.CLAIMED, State.DISPATCHED, State.RUNNING)


@pytest.mark.parametrize("state", UNENDED)
def test_what_has_not_ended_stays_however_old(store, clock, state):
    numbers = record(
        store, row(clock, 400 * DAY, state=state, finished=None), row(clock, 399 * DAY)
    )
    delete_old(store, clock, MONTH, "me")
    assert ids(store) == numbers[:1]


@pytest.mark.parametrize("state", [s for s in State if s not in UNENDED])
def test_every_end_is_forgotten(store, clock, state):
    record(store, row(clock, 31 * DAY, state=state))
    assert delete_old(store, clock, MONTH, "me").runs == 1


def test_a_run_that_took_long_counts_from_its_end(store, clock):
    numbers = record(store, row(clock, 90 * DAY, finished=clock.now() - DAY), row(clock, 80 * DAY))
    delete_old(store, clock, MONTH, "me")
    assert ids(store) == numbers[:1]


def test_a_run_that_still_has_a_slot_stays_with_it(store, clock):
    """As that of a function which outlived its timeout and could not be killed."""
    (stray,) = record(store, row(clock, 31 * DAY))
    with store.write() as connection:
        values = {"key": "overlap:ext:cleanup", "n": 0, "run_id": stray, "fence": 1}
        connection.execute(insert(slot).values(values))
    delete_old(store, clock, MONTH, "me")
    assert ids(store) == [stray]
    assert count(store, slot) == 1


def test_no_transaction_deletes_more_than_a_batch_and_others_write_between(store, clock):
    record(store, *(row(clock, 31 * DAY + timedelta(seconds=n)) for n in range(1200)))
    made = list(_prune._new_pass(store, clock, MONTH).delete())
    assert [pruned.runs for pruned in made if pruned.runs] == [500, 500, 200]
    assert count(store, run) == 0
    record(store, *(row(clock, 31 * DAY + timedelta(seconds=n)) for n in range(1200)))
    delete_old(store, clock, MONTH, "me")
    assert len(clock.waited) >= 3
    assert min(clock.waited) > 0


def test_many_jobs_are_walked_in_pieces(store, clock, monkeypatch):
    monkeypatch.setattr(pruning, "_JOBS", 2)
    names = [f"job{n}" for n in range(5)]
    record(store, *(row(clock, n * DAY, name) for n in (40, 35, 2) for name in names))
    pruned = delete_old(store, clock, Retention(30 * DAY, runs=2), "me")
    assert pruned.jobs == {f"ext:{name}": 1 for name in names}
    assert count(store, run) == 10


def test_where_nothing_is_old_a_pass_asks_for_the_oldest_run_and_no_more(store, clock, monkeypatch):
    record(store, *(row(clock, n * DAY) for n in (20, 10)))
    monkeypatch.setattr(pruning, "spare_runs", None)
    assert not delete_old(store, clock, MONTH, "me")


def test_a_clock_that_was_wrong_for_a_while_saves_and_dooms_nothing(store, clock):
    """Ids grow with time only as far as the clock did; each run is looked at."""
    far, past = -4000 * DAY, 9000 * DAY
    ages = [50 * DAY, far, far, 49 * DAY, 48 * DAY, 20 * DAY, past, 19 * DAY, 18 * DAY]
    numbers = record(
        store, *(row(clock, age, "cleanup") | {"dedup_key": str(n)} for n, age in enumerate(ages))
    )
    for _ in range(3):
        delete_old(store, clock, MONTH, "me")
    kept = set(ids(store))
    assert {numbers[n] for n in (1, 2, 5, 7, 8)} <= kept
    assert numbers[0] not in kept


@pytest.mark.parametrize("age", [timedelta(0), timedelta.max])
def test_any_age_is_an_age(store, clock, age):
    clock.advance(1)
    record(store, row(clock, timedelta(seconds=1)))
    delete_old(store, clock, Retention(age, runs=0), "me")
    assert count(store, run) == (0 if not age else 1)


def test_job_rows_and_their_ticks_are_untouched(store, clock):
    record(store, row(clock, 90 * DAY))
    with store.write() as connection:
        connection.execute(job.update().values(last_tick=clock.now() - 90 * DAY))
        before = connection.execute(select(job)).all()
    assert delete_old(store, clock, MONTH, "me").runs == 1
    with store.read() as connection:
        assert connection.execute(select(job)).all() == before


def test_counting_deletes_nothing_and_says_what_deleting_would(store, clock):
    names = ("a", "b")
    record(store, *(row(clock, n * DAY, name) for n in (50, 40, 30.5, 2) for name in names))
    join(store, clock, "gone", ago=40 * DAY)
    with store.write() as connection:
        job_rows.add_audit(connection, clock.now() - 40 * DAY, "me", "run", "ext:a")
    retention = Retention(30 * DAY, runs=2)
    counted = count_old(store, clock, retention)
    assert (counted.jobs, counted.nodes, counted.audits) == ({"ext:a": 2, "ext:b": 2}, 1, 1)
    assert count(store, run) == 8
    assert delete_old(store, clock, retention, "me") == counted


# --- nodes and audit rows ---


def join(store, clock, name, ago, kind="scheduler", hash_="set", lease_until=0, **values):
    at = clock.now() - ago
    with store.write() as connection:
        plan_rows.add_set(connection, hash_, {f"{hash_}:a": "f", f"{hash_}:b": "f"})
        node_rows.join(
            connection,
            {"id": name, "host": "h", "pid": 1, "boot": "boot" if store.one_host else "", "kind": kind, "version": "1",
             "job_set": hash_, "workers": 1, "clock_offset": None, "started": at,
             "heartbeat": at, "lease_until": lease_until} | values,
        )  # fmt: skip


def nodes(store):
    with store.read() as connection:
        return set(connection.execute(select(node.c.id)).scalars())


def test_nodes_that_are_gone_for_long_are_forgotten_and_live_ones_never(store, clock):
    join(store, clock, "dead", ago=31 * DAY)
    join(store, clock, "stopped", ago=31 * DAY, stopped=clock.now() - 31 * DAY)
    join(store, clock, "lately", ago=29 * DAY)
    alive = clock.lease_now() + 1
    join(store, clock, "alive", ago=31 * DAY, lease_until=alive)  # the clock has just jumped
    assert delete_old(store, clock, MONTH, "me").nodes == 2
    assert nodes(store) == {"lately", "alive"}


def test_a_node_that_a_held_run_names_stays(store, clock):
    """Its boot tells whether the lease has run out."""
    join(store, clock, "dead", ago=31 * DAY)
    record(store, row(clock, 31 * DAY, state=State.RUNNING, finished=None, node="dead"))
    delete_old(store, clock, MONTH, "me")
    assert nodes(store) == {"dead"}


def test_commands_are_forgotten_after_a_day(store, clock):
    join(store, clock, "yesterday", ago=1.1 * DAY, kind="command")
    join(store, clock, "today", ago=0.9 * DAY, kind="command")
    delete_old(store, clock, MONTH, "me")
    assert nodes(store) == {"today"}


def test_a_job_set_goes_with_the_last_node_that_names_it(store, clock):
    join(store, clock, "dead", ago=31 * DAY, hash_="old")
    join(store, clock, "dead too", ago=31 * DAY, hash_="shared")
    join(store, clock, "lately", ago=DAY, hash_="shared")
    with store.write() as connection:
        plan_rows.add_set(connection, "joining", {"a": "f"})  # its node comes next
    delete_old(store, clock, MONTH, "me")
    with store.read() as connection:
        assert set(connection.execute(select(job_set.c.hash)).scalars()) == {"shared", "joining"}


def test_old_audit_rows_go_and_pruning_by_hand_leaves_one(store, clock):
    with store.write() as connection:
        for ago in (31, 30.5, 29):
            job_rows.add_audit(connection, clock.now() - ago * DAY, "you", "run", "ext:a")
    assert delete_old(store, clock, Retention(30 * DAY, 7), "me").audits == 2
    with store.read() as connection:
        rows = connection.execute(select(audit).order_by(audit.c.id)).all()
    assert [(r.who, r.action) for r in rows] == [("you", "run"), ("me", "prune")]
    assert rows[1].note == "what ended before 2026-01-31 10:00:00, but 7 per job"


# --- ticks never come back ---


class Scheduler:
    """A claimer whose runs end as soon as they are claimed."""

    def __init__(self, store, clock):
        self.ticks = []
        self._store = store
        self._clock = clock
        self.claimer = Claimer(
            store,
            [make_plan()],
            new_node(),
            clock,
            lambda: 0,
            self._took,
            print,
            room=lambda: {"default": 1000},
            lease_s=30.0,
        )

    def _took(self, runs):
        claimed = [run for run in runs if run.state is State.CLAIMED]
        self.ticks += [run.tick for run in claimed]
        with self._store.write() as connection:
            started, _ = run_rows.gate(connection, claimed, self._clock.now(), 0)
            reports = [(run, report(run, self._clock)) for run in started]
            run_rows.finish(connection, reports, self._clock.now(), 0)

    def second(self):
        self._clock.advance(1)
        self.claimer.step()


EVERYTHING = Retention(timedelta(0), runs=0)


def test_no_tick_fires_again_when_all_is_forgotten_also_on_a_node_that_lagged(store, clock):
    lagging, other = Scheduler(store, clock), Scheduler(store, clock)
    lagging.claimer.install(parse)
    other.claimer.install(parse)
    lagging.second()
    for _ in range(5):
        other.second()
    clock.step(0.001)
    assert delete_old(store, clock, EVERYTHING, "me").runs == 6
    lagging.claimer.step()
    assert count(store, run) == 0, "its agenda was six seconds old"
    clock.step(-3)  # nor when the clock is stepped back
    lagging.claimer.step()
    other.claimer.step()
    assert count(store, run) == 0
    clock.step(3)
    lagging.second()
    other.second()
    assert len({*lagging.ticks, *other.ticks}) == len(lagging.ticks + other.ticks) == 8


def test_no_tick_fires_again_after_a_restart_on_an_empty_history(store, clock):
    before = Scheduler(store, clock)
    before.claimer.install(parse)
    for _ in range(3):
        before.second()
    clock.step(0.001)
    delete_old(store, clock, EVERYTHING, "me")
    after = Scheduler(store, clock)
    after.claimer.install(parse)
    after.claimer.step()
    assert after.ticks == []
    after.second()
    assert not {*after.ticks} & {*before.ticks}
    assert len(after.ticks) == 1


# --- the loop ---


@pytest.fixture
def pruner(store, clock):
    """Return a pruner that keeps a month, and nothing beyond."""
    return Pruner(store, clock, MONTH, Calls(), jitter=lambda: 0.5)


def until_waiting(pruner):
    """Step until there is a long wait; return it, and how many steps that took."""
    for steps in range(1, 100):
        if (wait := pruner.step()) > 60:
            return wait, steps
    raise AssertionError("no end")


def test_a_node_prunes_some_minutes_after_its_start_and_about_every_hour(pruner, clock):
    assert pruner.step() == 330
    clock.advance(330)
    assert until_waiting(pruner)[0] == 3600


def test_nodes_that_start_together_do_not_prune_together(store, clock):
    waits = [Pruner(store, clock, MONTH, Calls()).step() for _ in range(5)]
    assert len(set(waits)) == 5


def test_a_pass_is_observed_once_with_what_it_deleted(pruner, store, clock):
    record(store, *(row(clock, 31 * DAY + timedelta(seconds=n)) for n in range(700)))
    clock.advance(330)
    _, steps = until_waiting(pruner)
    assert steps > 2
    assert pruner._observer.made == [
        (
            "history_pruned",
            {"runs": 700, "nodes": 0, "audits": 0, "before": clock.now() - MONTH.age},
        )
    ]


def test_a_pass_that_finds_nothing_is_not_observed(pruner, clock):
    clock.advance(330)
    until_waiting(pruner)
    assert pruner._observer.made == []


def test_the_pause_grows_with_what_a_batch_took(pruner, store, clock, monkeypatch):
    record(store, row(clock, 31 * DAY))
    slow = pruning.delete_runs
    monkeypatch.setattr(pruning, "delete_runs", lambda *given: (clock.advance(2), slow(*given))[1])
    clock.advance(330)
    assert pruner.step() == 8


def test_a_database_in_trouble_delays_a_pass_and_forgets_no_count(
    pruner, store, clock, monkeypatch
):
    record(store, *(row(clock, 31 * DAY + timedelta(seconds=n)) for n in range(700)))
    clock.advance(330)
    pruner.step()

    def broken(*_):
        raise StoreError("locked")

    with monkeypatch.context() as patch:
        patch.setattr(store, "write", broken)
        with pytest.raises(StoreError):
            pruner.step()
    until_waiting(pruner)
    assert count(store, run) == 0
    assert pruner._observer.made[0][1]["runs"] == 700


def test_a_clock_that_jumps_ahead_puts_a_pass_off(pruner, store, clock):
    """It may be wrong: then what seems old is young."""
    record(store, row(clock, DAY))
    clock.advance(330)
    clock.step(4000 * 86_400)
    with structlog.testing.capture_logs() as logged:
        wait, _ = until_waiting(pruner)
    assert "pruning_postponed" in [entry["event"] for entry in logged]
    clock.step(-4000 * 86_400)
    clock.advance(wait)
    until_waiting(pruner)
    assert count(store, run) == 1


def test_two_nodes_that_prune_at_once_share_the_work(store, clock):
    record(store, *(row(clock, 31 * DAY + timedelta(seconds=n)) for n in range(1200)))
    one, two = (_prune._new_pass(store, clock, MONTH).delete() for _ in range(2))
    deleted = 0
    for turn in (one, two, one, two, one, two):
        deleted += next(turn).runs
    assert deleted == 1200
    with store.read() as connection:
        assert queries.history(connection) == []
