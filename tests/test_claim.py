"""Due ticks become runs, each tick once, whoever claims it and whatever the clock does."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select

from systemprompt_jobs import _runtime
from systemprompt_jobs._calendar import cron, parse, splay
from systemprompt_jobs._claim import AHEAD, Claimer
from systemprompt_jobs._node import new_node
from systemprompt_jobs._store import jobs as job_rows
from systemprompt_jobs._store import pending as pending_rows
from systemprompt_jobs._store import queries
from systemprompt_jobs._store import runs as run_rows
from systemprompt_jobs._store.schema import job as job_table
from systemprompt_jobs._store.schema import run as run_table
from systemprompt_jobs.errors import StoreError
from systemprompt_jobs.model import CatchUp, Overlap, State
from tests.support import START, ManualClock, answer_lost, make_plan, report

SECOND = timedelta(seconds=1)


class Scheduler:
    """A claimer and what it took."""

    def __init__(self, store, clock, *plans):
        self.taken = []
        self.pending = []
        self.missed = []
        self.failed = []
        self.clock = clock
        self.store = store
        self.room = 10_000
        self.node = new_node()
        self.claimer = Claimer(
            *(store, plans, self.node, clock, lambda: 0, self._took, self.failed.append),
            room=lambda: {"default": self.room},
            lease_s=30.0,
        )

    def _took(self, rows):
        self.taken += [run for run in rows if run.state is State.CLAIMED]
        self.missed += [run for run in rows if run.state is State.MISSED]
        self.pending += [run for run in rows if run.state is State.PENDING]

    def install(self):
        self.claimer.install(parse)
        return self

    def ticks(self):
        return [run.tick for run in self.taken]

    def second(self):
        self.clock.advance(1)
        self.claimer.step()


@pytest.fixture
def clock():
    return ManualClock()


def test_a_new_job_starts_from_now(store, clock):
    scheduler = Scheduler(store, clock, make_plan()).install()
    scheduler.claimer.step()
    assert scheduler.taken == []
    scheduler.second()
    assert scheduler.ticks() == [START + SECOND]
    assert scheduler.taken[0].state is State.CLAIMED


def test_a_tick_is_claimed_a_little_ahead_so_that_it_starts_on_the_instant(store, clock):
    scheduler = Scheduler(store, clock, make_plan()).install()
    clock.advance(1 - AHEAD.total_seconds())
    scheduler.claimer.step()
    assert scheduler.ticks() == [START + SECOND]


def test_the_wait_ends_when_the_next_tick_may_be_claimed(store, clock):
    scheduler = Scheduler(store, clock, make_plan()).install()
    assert scheduler.claimer.step() == pytest.approx(1 - AHEAD.total_seconds())


def test_however_far_the_next_tick_is_others_are_looked_for_each_third_of_a_lease(store, clock):
    scheduler = Scheduler(store, clock, make_plan(schedule="0 0 0 1 1 *")).install()
    assert scheduler.claimer.step() == 10


def test_without_a_schedule_there_is_nothing_to_wait_for_but_what_other_nodes_do(store, clock):
    assert Scheduler(store, clock, make_plan(schedule="")).install().claimer.step() == 10.0
    assert Scheduler(store, clock).install().claimer.step() is None


def test_two_nodes_share_the_ticks_and_none_is_claimed_twice(store, clock):
    one = Scheduler(store, clock, make_plan()).install()
    two = Scheduler(store, clock, make_plan()).install()
    for turn in range(10):
        clock.advance(1)
        for scheduler in (one, two) if turn % 2 else (two, one):
            scheduler.claimer.step()
    assert sorted(one.ticks() + two.ticks()) == [START + n * SECOND for n in range(1, 11)]
    assert one.ticks()
    assert two.ticks()


def test_a_restart_goes_on_where_the_last_one_stopped(store, clock):
    Scheduler(store, clock, make_plan()).install().second()
    again = Scheduler(store, clock, make_plan()).install()
    again.second()
    assert again.ticks() == [START + 2 * SECOND]
    assert again.missed == []


def test_after_downtime_the_newest_tick_runs_and_the_rest_is_one_missed_row(store, clock):
    Scheduler(store, clock, make_plan()).install().second()
    clock.advance(100)
    again = Scheduler(store, clock, make_plan()).install()
    again.claimer.step()
    assert again.ticks() == [START + 101 * SECOND]
    (missed,) = again.missed
    assert (missed.tick, missed.last_tick, missed.count) == (
        START + 2 * SECOND,
        START + 100 * SECOND,
        99,
    )
    assert missed.state is State.MISSED


def test_a_clock_stepped_back_fires_nothing_twice(store, clock):
    scheduler = Scheduler(store, clock, make_plan()).install()
    for _ in range(5):
        scheduler.second()
    clock.step(-5)
    for _ in range(8):
        scheduler.second()
    assert scheduler.ticks() == [START + n * SECOND for n in range(1, 9)]


def test_a_clock_stepped_forward_misses_what_it_jumped_over_and_says_so(store, clock):
    scheduler = Scheduler(store, clock, make_plan()).install()
    clock.step(60)
    scheduler.claimer.step()
    assert scheduler.ticks() == [START + 60 * SECOND]
    assert [run.count for run in scheduler.missed] == [59]


def test_pruning_the_history_never_makes_a_tick_fire_again(store, clock):
    Scheduler(store, clock, make_plan()).install().second()
    with store.write() as connection:
        connection.execute(run_table.delete())
    clock.step(-1)
    again = Scheduler(store, clock, make_plan()).install()
    again.second()
    assert again.ticks() == []


def test_the_high_water_mark_is_the_newest_settled_tick(store, clock):
    scheduler = Scheduler(store, clock, make_plan()).install()
    clock.advance(30)
    scheduler.claimer.step()
    with store.read() as connection:
        assert connection.execute(select(job_table.c.last_tick)).scalar() == START + 30 * SECOND


def test_a_disabled_job_has_no_due_ticks_and_its_disabled_time_is_not_made_up(store, clock):
    Scheduler(store, clock, make_plan()).install().second()
    off = Scheduler(store, clock, make_plan(enabled=False)).install()
    for _ in range(5):
        off.second()
    on = Scheduler(store, clock, make_plan()).install()
    on.second()
    assert (off.taken, off.missed, on.missed) == ([], [], [])
    assert on.ticks() == [START + 7 * SECOND]


def test_ticks_due_before_a_job_was_disabled_are_missed_not_forgotten(store, clock):
    Scheduler(store, clock, make_plan()).install()
    clock.advance(10)
    off = Scheduler(store, clock, make_plan(enabled=False)).install()
    assert [run.count for run in off.missed] == [10]
    assert off.taken == []


def test_a_new_schedule_settles_what_was_due_under_the_old_one_first(store, clock):
    Scheduler(store, clock, make_plan(schedule="0 * * * * *")).install()
    clock.advance(125)  # 10:01 and 10:02 are due under the old schedule
    changed = Scheduler(store, clock, make_plan(schedule="30 * * * * *")).install()
    assert changed.ticks() == [START + timedelta(minutes=2)]
    assert [(run.tick, run.count) for run in changed.missed] == [(START + timedelta(minutes=1), 1)]
    clock.advance(30)
    changed.claimer.step()
    assert changed.ticks()[1:] == [START + timedelta(minutes=2, seconds=30)]


@pytest.mark.parametrize(
    "other",
    [
        {"schedule": "0 * * * * *"},
        {"timezone": "Europe/Berlin"},
        {"overlap": Overlap.ALLOW},
        {"splay": timedelta(seconds=9)},
        {"catch_up": CatchUp.NONE},
        {"catchup_window": timedelta(hours=1)},
        {"enabled": False},
    ],
)
def test_each_part_of_a_plan_that_decides_ticks_is_in_its_fingerprint(store, clock, other):
    values = dict(other)
    Scheduler(store, clock, make_plan()).install()
    before = _fingerprint(store)
    Scheduler(store, clock, make_plan(values.pop("name", "cleanup"), **values)).install()
    assert _fingerprint(store) != before


def _fingerprint(store):
    with store.read() as connection:
        return connection.execute(select(job_table.c.fingerprint)).scalar()


def test_a_job_that_this_node_does_not_know_is_left_alone(store, clock):
    Scheduler(store, clock, make_plan("theirs")).install()
    mine = Scheduler(store, clock, make_plan("mine")).install()
    clock.advance(10)
    mine.claimer.step()
    assert {run.job for run in mine.taken} == {"mine"}
    back = Scheduler(store, clock, make_plan("theirs")).install()
    back.claimer.step()
    assert back.ticks() == [START + 10 * SECOND]
    assert [run.count for run in back.missed] == [9]


def test_many_jobs_due_at_one_instant_are_claimed_together(store, clock):
    plans = [make_plan(f"job{n}") for n in range(1500)]
    scheduler = Scheduler(store, clock, *plans).install()
    scheduler.second()
    assert len(scheduler.taken) == 1500
    assert {run.tick for run in scheduler.taken} == {START + SECOND}


def test_a_claim_that_fails_is_tried_again_and_nothing_is_half_done(store, clock, monkeypatch):
    scheduler = Scheduler(store, clock, make_plan()).install()
    clock.advance(1)
    with monkeypatch.context() as patch:
        patch.setattr("systemprompt_jobs._store.jobs.advance", _fail)
        with pytest.raises(StoreError):
            scheduler.claimer.step()
    with store.read() as connection:
        assert queries.history(connection) == []
    scheduler.claimer.step()
    assert scheduler.ticks() == [START + SECOND]


def _fail(*_arguments):
    raise StoreError("no")


def test_jobs_that_another_node_is_just_claiming_are_looked_at_again_soon(make_store, clock):
    store = make_store("postgresql")
    scheduler = Scheduler(store, clock, make_plan("theirs"), make_plan("free")).install()
    clock.advance(1)
    with store.write() as other:
        job_rows.lock(other, ["ext:theirs"], skip_locked=True)
        assert 0 < scheduler.claimer.step() <= 0.1
    assert [run.job for run in scheduler.taken] == ["free"]
    scheduler.claimer.step()
    assert {run.job for run in scheduler.taken} == {"free", "theirs"}


def test_a_node_whose_clock_is_ahead_claims_nothing_early_and_waits(make_store):
    store = make_store("postgresql")
    ahead = ManualClock(datetime.now(UTC) + timedelta(hours=1))
    plan = make_plan(schedule="0 0 0 1 1 *")
    scheduler = Scheduler(store, store.clock(ahead), plan).install()
    with store.write() as connection:
        due = datetime.now(UTC) + timedelta(minutes=30)
        connection.execute(job_table.update().values(next_tick=due))
    scheduler.claimer._agenda.set(plan.id, due)
    assert scheduler.claimer.step() > 1
    assert scheduler.taken == []


def test_a_node_whose_clock_is_behind_claims_on_time(make_store):
    store = make_store("postgresql")
    behind = ManualClock(datetime.now(UTC) - timedelta(hours=1))
    scheduler = Scheduler(store, store.clock(behind), make_plan()).install()
    with store.write() as connection:
        past = datetime.now(UTC).replace(microsecond=0) - timedelta(seconds=1)
        connection.execute(job_table.update().values(next_tick=past))
    scheduler.claimer._agenda.set("ext:cleanup", past)
    scheduler.claimer.step()
    assert len(scheduler.taken) == 1


def test_a_claim_whose_answer_was_lost_is_read_back(store, clock):
    scheduler = Scheduler(store, clock, make_plan("a"), make_plan("b")).install()
    clock.advance(1)
    with answer_lost(store), pytest.raises(StoreError):
        scheduler.claimer.step()
    assert scheduler.taken == []
    scheduler.claimer.step()
    assert sorted(run.job for run in scheduler.taken) == ["a", "b"]
    assert {run.state for run in scheduler.taken} == {State.CLAIMED}
    assert scheduler.ticks() == [START + SECOND] * 2


def test_ticks_missed_in_a_claim_whose_answer_was_lost_are_told_of(store, clock):
    scheduler = Scheduler(store, clock, make_plan()).install()
    clock.advance(10)
    with answer_lost(store), pytest.raises(StoreError):
        scheduler.claimer.step()
    scheduler.second()
    assert [run.count for run in scheduler.missed] == [9]
    assert scheduler.ticks() == [START + 10 * SECOND, START + 11 * SECOND]


def test_an_installation_whose_answer_was_lost_is_made_again_and_loses_nothing(store, clock):
    Scheduler(store, clock, make_plan()).install()
    clock.advance(10)
    scheduler = Scheduler(store, clock, make_plan(schedule="*/7 * * * * *"))
    with answer_lost(store), pytest.raises(StoreError):
        scheduler.install()
    scheduler.install()
    assert (scheduler.ticks(), [run.count for run in scheduler.missed]) == (
        [START + 10 * SECOND],
        [9],
    )
    clock.advance(4)
    scheduler.claimer.step()
    assert scheduler.ticks()[1:] == [START + 14 * SECOND]


def test_what_another_node_has_claimed_is_not_read_back(store, clock):
    Scheduler(store, clock, make_plan("theirs")).install().second()
    scheduler = Scheduler(store, clock, make_plan("mine")).install()
    clock.advance(1)
    with answer_lost(store), pytest.raises(StoreError):
        scheduler.claimer.step()
    scheduler.claimer.step()
    assert [run.job for run in scheduler.taken] == ["mine"]


def test_a_job_that_is_degraded_is_not_claimed(store, clock):
    from systemprompt_jobs.model import Problem

    plan = make_plan(problem=Problem("ext:cleanup", "it is broken"))
    scheduler = Scheduler(store, clock, plan).install()
    scheduler.second()
    assert scheduler.taken == []


def test_the_old_schedule_of_a_syntax_that_is_gone_leaves_a_row(store, clock):
    Scheduler(store, clock, make_plan()).install()
    with store.write() as connection:
        connection.execute(job_table.update().values(schedule="solar: noon", fingerprint="x"))
    clock.advance(3)
    runtime = _runtime.Runtime(environ={"SYSTEMPROMPT_PLUGINS": ""})
    scheduler = Scheduler(store, clock, make_plan())
    scheduler.claimer.install(runtime.parse)
    assert scheduler.ticks() == [START + SECOND]


def test_a_plan_of_a_zone_is_stored_as_the_text_that_parses_back(store, clock):
    plan = make_plan(schedule="0 0 8 * * MON-FRI", timezone="Europe/Berlin")
    Scheduler(store, clock, plan).install()
    with store.read() as connection:
        row = connection.execute(select(job_table)).one()
    assert parse(row.schedule, row.timezone) == cron("0 0 8 * * MON-FRI", "Europe/Berlin")


class Moody:
    """A plugin's schedule that works until it does not."""

    text = "moody: x"
    timezone = "UTC"
    broken = False

    def __init__(self):
        self._inner = cron("* * * * * *")

    def next(self, after):
        if self.broken:
            raise ZeroDivisionError("moody")
        return self._inner.next(after)

    def previous(self, before):
        return self._inner.previous(before)

    def count(self, start, end):
        return self._inner.count(start, end)


def test_a_plugins_schedule_that_raises_stops_its_own_job_alone(store, clock):
    moody = Moody()
    scheduler = Scheduler(
        store, clock, make_plan("moody", schedule=moody), make_plan("sound")
    ).install()
    moody.broken = True
    scheduler.second()
    scheduler.second()
    assert [run.job for run in scheduler.taken] == ["sound", "sound"]
    (problem,) = scheduler.failed
    assert problem.culprit == "ext:moody"
    assert "ZeroDivisionError: moody" in problem.reason


def test_a_plugins_schedule_that_raises_at_the_start_stops_its_own_job_alone(store, clock):
    moody = Moody()
    moody.broken = True
    plans = make_plan("moody", schedule=moody), make_plan("sound")
    scheduler = Scheduler(store, clock, *plans).install()
    scheduler.second()
    assert [run.job for run in scheduler.taken] == ["sound"]
    (problem,) = scheduler.failed
    assert (problem.culprit, "ZeroDivisionError: moody" in problem.reason) == ("ext:moody", True)


def test_an_old_schedule_that_raises_where_it_is_replaced_is_settled_by_its_due_tick(store, clock):
    Scheduler(store, clock, make_plan(schedule=Moody())).install()
    clock.advance(1)
    broken = Moody()
    broken.broken = True
    changed = Scheduler(store, clock, make_plan(schedule="0 * * * * *"))
    changed.claimer.install(lambda _text, _zone: broken)
    assert changed.ticks() == [START + SECOND]


def test_a_job_that_a_reload_has_taken_away_stops_no_other(store, clock):
    scheduler = Scheduler(store, clock, make_plan("gone"), make_plan("stays")).install()
    scheduler.claimer.look(["ext:gone"])
    scheduler.claimer.reload([make_plan("stays")])
    scheduler.second()
    assert [run.job for run in scheduler.taken] == ["stays"]


def test_splay_delays_a_tick_by_the_same_amount_on_every_node_and_never_changes_it(store, clock):
    plans = [make_plan(f"job{n}", "0 * * * * *", splay=timedelta(seconds=30)) for n in range(50)]
    scheduler = Scheduler(store, clock, *plans).install()
    clock.advance(60)
    scheduler.claimer.step()
    minute = START + timedelta(minutes=1)
    assert {run.tick for run in scheduler.taken} == {minute}
    delays = {run.job_id: run.due - minute for run in scheduler.taken}
    assert delays == {p.id: splay(p.id, minute, timedelta(seconds=30)) for p in plans}
    assert all(timedelta() <= delay < timedelta(seconds=30) for delay in delays.values())
    assert len(set(delays.values())) == 50


def test_splay_never_reaches_the_next_tick(store, clock):
    plans = [make_plan(f"job{n}", splay=timedelta(hours=1)) for n in range(50)]
    scheduler = Scheduler(store, clock, *plans).install()
    scheduler.second()
    assert all(run.tick <= run.due < run.tick + SECOND for run in scheduler.taken)


EVERY_MINUTE = "0 * * * * *"


def finish(scheduler, run):
    """Start and end a claimed run, as the recorder does."""
    now = scheduler.clock.now()
    with scheduler.store.write() as connection:
        started, _ = run_rows.gate(connection, [run], now, 0)
        reports = [(r, report(r, scheduler.clock)) for r in started]
        run_rows.finish(connection, reports, now, 0)
    assert [r.id for r in started] == [run.id]


def covered(store):
    """Return every tick that a row covers, one item for each time it is covered."""
    with store.read() as connection:
        rows = queries.history(connection, limit=10_000)
    schedule = cron(EVERY_MINUTE)
    return sorted(
        tick
        for row in rows
        for tick in [row.tick, *schedule.between(row.tick, row.last_tick or row.tick)]
    )


def minute(n):
    return START + timedelta(minutes=n)


class TestCatchingUpOnAll:
    PLAN = make_plan(schedule=EVERY_MINUTE, catch_up=CatchUp.ALL)

    def test_ticks_run_one_at_a_time_oldest_first(self, store, clock):
        Scheduler(store, clock, self.PLAN).install()
        clock.advance(5 * 60 + 30)
        again = Scheduler(store, clock, self.PLAN).install()
        for n in range(1, 6):
            again.claimer.step()
            again.claimer.step()
            assert again.ticks() == [minute(k) for k in range(1, n + 1)]
            run = again.taken[-1]
            finish(again, run)
            assert again.claimer.ended(run) == (n < 5)
        assert covered(store) == [minute(k) for k in range(1, 6)]
        assert again.missed == []

    def test_a_run_that_ended_on_another_node_is_noticed_within_a_second_or_two(self, store, clock):
        one = Scheduler(store, clock, self.PLAN).install()
        two = Scheduler(store, clock, self.PLAN).install()
        clock.advance(150)
        one.claimer.step()
        two.claimer.step()
        assert (one.ticks(), two.ticks()) == ([minute(1)], [])
        finish(one, one.taken[0])
        two.second()
        two.second()
        assert two.ticks() == [minute(2)]

    def test_while_it_waits_it_does_not_keep_the_claimer_busy(self, store, clock):
        Scheduler(store, clock, self.PLAN).install()
        clock.advance(150)
        again = Scheduler(store, clock, self.PLAN).install()
        again.claimer.step()
        assert again.claimer.step() == pytest.approx(1, abs=0.01)

    def test_what_is_older_than_the_window_is_one_missed_row(self, store, clock):
        plan = make_plan(
            schedule=EVERY_MINUTE, catch_up=CatchUp.ALL, catchup_window=timedelta(minutes=3)
        )
        Scheduler(store, clock, plan).install()
        clock.advance(10 * 60)
        again = Scheduler(store, clock, plan).install()
        again.claimer.step()
        assert again.ticks() == [minute(7)]
        assert [(run.tick, run.last_tick, run.count) for run in again.missed] == [
            (minute(1), minute(6), 6)
        ]

    def test_on_time_a_tick_does_not_wait_for_the_run_before(self, store, clock):
        scheduler = Scheduler(store, clock, self.PLAN).install()
        for _ in range(2):
            clock.advance(60)
            scheduler.claimer.step()
        assert scheduler.ticks() == [minute(1), minute(2)]

    def test_when_its_plan_is_replaced_each_tick_waits_for_its_turn(self, store, clock):
        Scheduler(store, clock, self.PLAN).install()
        clock.advance(5 * 60)
        narrow = {"catch_up": CatchUp.LATEST, "catchup_window": SECOND}
        changed = Scheduler(store, clock, make_plan(schedule="0 0 * * * *", **narrow)).install()
        assert (changed.taken, changed.missed) == ([], [])
        assert [run.tick for run in changed.pending] == [minute(n) for n in range(1, 6)]
        assert covered(store) == [minute(n) for n in range(1, 6)]
        with store.write() as connection:  # the window is the old one, too
            assert pending_rows.give_up_pending(connection, clock.now()) == []

    def test_of_a_replaced_plan_only_the_ticks_inside_its_window_run(self, store, clock):
        plan = make_plan(
            schedule=EVERY_MINUTE, catch_up=CatchUp.ALL, catchup_window=timedelta(minutes=3)
        )
        Scheduler(store, clock, plan).install()
        clock.advance(10 * 60)
        changed = Scheduler(store, clock, make_plan(schedule="0 0 * * * *")).install()
        assert [run.tick for run in changed.pending] == [minute(n) for n in range(7, 11)]
        assert [run.count for run in changed.missed] == [6]

    def test_of_plans_that_are_replaced_together_a_bounded_number_of_ticks_runs(
        self, store, clock, monkeypatch
    ):
        """A year of a per-second job costs no more rows than that, and one."""
        monkeypatch.setattr("systemprompt_jobs._replace._IN_TURN", 10)
        values = {"catch_up": CatchUp.ALL, "catchup_window": timedelta(days=365)}
        old = [make_plan(name, **values) for name in ("a", "b")]
        Scheduler(store, clock, *old).install()
        clock.advance(365 * 86_400)
        new = [make_plan(name, "0 0 0 * * *") for name in ("a", "b")]
        changed = Scheduler(store, clock, *new).install()
        newest = [clock.now() - n * SECOND for n in range(5)]
        assert sorted(run.tick for run in changed.pending) == sorted(newest * 2)
        assert [run.count for run in changed.missed] == [365 * 86_400 - 5] * 2

    def test_what_was_due_before_a_job_was_disabled_is_one_missed_row(self, store, clock):
        Scheduler(store, clock, self.PLAN).install()
        clock.advance(5 * 60)
        off = Scheduler(store, clock, make_plan(enabled=False)).install()
        assert (off.pending, [run.count for run in off.missed]) == ([], [5])


def test_without_catching_up_the_downtime_is_missed(store, clock):
    plan = make_plan(schedule=EVERY_MINUTE, catch_up=CatchUp.NONE)
    Scheduler(store, clock, plan).install()
    clock.advance(3600 - 30)
    again = Scheduler(store, clock, plan).install()
    again.claimer.step()
    assert again.ticks() == [minute(59)]  # no more than a minute late
    assert [run.count for run in again.missed] == [58]


def test_ticks_due_under_the_old_plan_are_settled_by_its_policy(store, clock):
    hourly = make_plan(schedule="0 0 * * * *", catch_up=CatchUp.NONE)
    Scheduler(store, clock, hourly).install()
    clock.advance(3600 + 61)
    changed = Scheduler(store, clock, make_plan(schedule=EVERY_MINUTE)).install()
    assert changed.ticks() == []
    assert [(run.tick, run.count) for run in changed.missed] == [(minute(60), 1)]


def test_a_policy_that_only_newer_code_knows_is_settled_and_leaves_a_row(store, clock):
    Scheduler(store, clock, make_plan()).install()
    with store.write() as connection:
        connection.execute(job_table.update().values(catch_up="newest-two", fingerprint="x"))
    clock.advance(3)
    older = Scheduler(store, clock, make_plan()).install()
    assert older.ticks() == [START + SECOND]


def test_the_history_is_in_the_order_of_the_ticks_also_after_downtime(store, clock):
    Scheduler(store, clock, make_plan()).install()
    clock.advance(10)
    Scheduler(store, clock, make_plan()).install().claimer.step()
    with store.read() as connection:
        newest, stretch = queries.history(connection)
        counts = queries.counts_since(connection, START)
    assert (newest.state, stretch.state, stretch.count) == (State.CLAIMED, State.MISSED, 9)
    assert counts == {"claimed": 1, "missed": 9}
