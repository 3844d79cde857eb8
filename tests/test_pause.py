"""A paused job runs nothing, whoever claims; what the pause has covered is one row, counted."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import select

from systemprompt_jobs._calendar import every, parse
from systemprompt_jobs._claim import Claimer
from systemprompt_jobs._control import Control, held, pauses
from systemprompt_jobs._node import new_node
from systemprompt_jobs._record import Recorder
from systemprompt_jobs._rows import manual_key, run_values
from systemprompt_jobs._store import pending as pending_rows
from systemprompt_jobs._store import plans as plan_rows
from systemprompt_jobs._store import polls, queries
from systemprompt_jobs._store import runs as run_rows
from systemprompt_jobs._store.schema import audit as audit_table
from systemprompt_jobs._store.schema import job as job_table
from systemprompt_jobs._store.schema import run as run_table
from systemprompt_jobs._watch import Watch
from systemprompt_jobs._whose import fingerprint, set_hash
from systemprompt_jobs.errors import ScheduleError, UsageError
from systemprompt_jobs.model import CatchUp, State, Trigger
from tests.support import START, Calls, ManualClock, make_job, make_plan, report, steps

SECOND = timedelta(seconds=1)
JOB = "ext:cleanup"
JOB_SET = set_hash({JOB: fingerprint(make_plan())})
BERLIN = ZoneInfo("Europe/Berlin")


class Site:
    """A database, its clock, and what an operator does; nodes are started on it."""

    def __init__(self, store):
        self.store = store
        self.clock = ManualClock()
        self.calls = Calls()
        self.control = Control(store, self.clock, self.calls)

    def node(self, *plans):
        return Node(self, plans or (make_plan(),))

    def pause(self, until=None, note="", who="ada", plans=(), job=JOB):
        return self.control.pause([job], plans, until, note, who)

    def resume(self):
        return self.control.resume([JOB], "", "ada")

    def rows(self, *states):
        """Return (state, reason, seconds from START to the first and last tick, count)."""
        with self.store.read() as connection:
            found = queries.history(connection, limit=1000)
        return [
            (str(r.state), r.reason, _seconds(r.tick), _seconds(r.last_tick or r.tick), r.count)
            for r in reversed(found)
            if not states or r.state in states
        ]

    def job(self, column):
        with self.store.read() as connection:
            return connection.execute(select(job_table.c[column])).scalar()


class Node:
    """A claimer and a recorder without threads."""

    def __init__(self, site, plans):
        self.site = site
        self.started = []
        self.problems = []
        self.resumed = []
        self.recorder = Recorder(
            site.store,
            site.calls,
            site.clock,
            sizes={"default": 10},
            lease_until=lambda: 0,
            may_start=lambda: True,
            start=self.started.append,
            ended=lambda run: self.claimer.ended(run),  # noqa: PLW0108  # made below
            wake=lambda: None,
        )
        self.node = new_node()
        self.claimer = Claimer(
            site.store,
            plans,
            self.node,
            site.clock,
            lambda: 0,
            self._took,
            self.problems.append,
            self.resumed.extend,
            room=lambda: {"default": 1000},
            lease_s=30.0,
        )
        with site.store.write() as connection:
            fingerprints = self.claimer.fingerprints
            plan_rows.add_set(connection, set_hash(fingerprints), fingerprints)
        self.claimer.install(parse)
        self.watch = Watch(site.store, self.claimer.look)

    def _took(self, runs):
        self.recorder.offer(run for run in runs if run.state is State.CLAIMED)

    def work(self, seconds=0.0, steps=6):
        """Let time pass, look around and claim as loops do, and end at once what has started."""
        self.site.clock.advance(seconds)
        with self.site.store.read() as connection:
            self.watch.step(polls.look(connection, JOB_SET, self.site.clock.now()).audit)
        for _ in range(steps):
            self.claimer.step()
            self.recorder.step()
            for run in self.started:
                self.recorder.report(run, report(run, self.site.clock))
            self.started.clear()
            self.recorder.step()


def _seconds(tick):
    return None if tick is None else (tick - START).total_seconds()


@pytest.fixture
def site(store):
    return Site(store)


def test_what_a_pause_has_covered_is_one_row_with_its_first_and_last_tick_and_count(site):
    node = site.node()
    node.work(1)
    site.pause()
    for _ in range(5):
        node.work(1)
    assert site.rows() == [("succeeded", "", 1, 1, 1)]
    site.clock.advance(0.5)
    site.resume()
    node.work()
    assert site.rows()[1:] == [("skipped", "paused", 2, 6, 5)]
    node.work(0.5)
    assert site.rows()[2:] == [("succeeded", "", 7, 7, 1)]
    assert site.job("last_tick") == START + 7 * SECOND


def test_a_pause_ends_by_itself_and_a_tick_at_its_end_runs(site):
    node = site.node(make_plan(schedule="*/10 * * * * *"))
    site.pause(timedelta(seconds=30), "deploy")
    for _ in range(12):
        node.work(2.5)
    assert site.rows() == [("skipped", "paused", 10, 20, 2), ("succeeded", "", 30, 30, 1)]
    assert [(row.id, row.note) for row in node.resumed] == [(JOB, "deploy")]
    assert site.job("paused_at") is None


def test_a_late_tick_claimed_just_ahead_of_the_end_of_a_pause_starts_at_its_end(site):
    node = site.node(make_plan(schedule="*/10 * * * * *"))
    site.clock.advance(11)  # nobody was there at 10
    site.pause(timedelta(seconds=3))
    site.clock.advance(2.8)
    node.claimer.step()
    node.recorder.step()
    assert (site.rows(), node.started) == ([("claimed", "", 10, 10, 1)], [])
    site.clock.advance(0.2)
    node.recorder.step()
    assert [_seconds(run.tick) for run in node.started] == [10]


def test_a_pause_without_a_tick_leaves_no_row_and_is_forgotten(site):
    node = site.node(make_plan(schedule="0 0 0 1 1 *"))
    site.pause(timedelta(minutes=5))
    node.work(1)
    assert pauses(site.store, site.clock).keys() == {JOB}
    node.work(300)
    assert pauses(site.store, site.clock) == {}
    assert (site.rows(), site.job("paused_at"), len(node.resumed)) == ([], None, 1)


def test_a_claimed_run_that_is_paused_before_its_gate_does_not_start(site):
    node = site.node()
    site.clock.advance(0.9)  # claimed ahead
    node.claimer.step()
    site.pause(note="the disk is full")
    site.clock.advance(0.2)
    node.recorder.step()
    assert node.started == []
    assert site.rows() == [("skipped", "paused", 1, 1, 1)]
    assert node.recorder.held() == []
    assert site.calls.names() == ["job_paused", "tick_skipped"]


def test_a_running_run_goes_on_through_a_pause(site):
    node = site.node()
    site.clock.advance(1)
    node.claimer.step()
    node.recorder.step()
    (run,) = node.started
    site.pause()
    node.recorder.report(run, report(run, site.clock))
    node.recorder.step()
    assert site.rows() == [("succeeded", "", 1, 1, 1)]


def test_a_gate_in_doubt_does_not_take_a_pause_for_its_own_skip(site):
    node = site.node()
    site.clock.advance(1)
    node.claimer.step()
    with site.store.read() as connection:
        (run,) = queries.history(connection)
    site.pause()
    with site.store.write() as connection:
        answer = run_rows.gate(connection, [run], site.clock.now(), 0, frozenset({run.id}))
    assert answer == ([], [])


def test_a_run_that_waits_for_a_node_is_skipped_and_a_retry_waits(site):
    site.node()
    fresh, retry = (_pending(site, f"t:{n}", Trigger.SCHEDULE, attempt=n) for n in (0, 1))
    by_hand = _pending(site, manual_key(), Trigger.MANUAL)
    site.pause()
    assert _states(site, fresh, retry, by_hand) == ["skipped", "pending", "pending"]
    assert [run.id for run in _take(site)] == [by_hand]
    with site.store.read() as connection:
        assert not polls.look(connection, JOB_SET, site.clock.now()).pending
    site.resume()
    with site.store.read() as connection:
        assert polls.look(connection, JOB_SET, site.clock.now()).pending
    assert [run.id for run in _take(site)] == [retry]


def test_a_retry_that_a_node_has_taken_and_not_started_goes_back_to_wait(site):
    site.node()
    retry = _pending(site, "t:1", Trigger.SCHEDULE, attempt=1)
    (taken,) = _take(site)
    site.pause()
    assert _states(site, retry) == ["pending"]
    with site.store.write() as connection:
        assert run_rows.gate(connection, [taken], site.clock.now(), 0) == ([], [])


def _pending(site, key, trigger, attempt=0):
    values = run_values(make_plan(), key, trigger, site.clock.now())
    with site.store.write() as connection:
        (run,) = run_rows.add(connection, [values | {"state": State.PENDING}])
        connection.execute(
            run_table.update().where(run_table.c.id == run.id).values(attempt=attempt)
        )
    return run.id


def _take(site):
    with site.store.write() as connection:
        pools = {"ext:cleanup": "default"}
        now, room = site.clock.now(), {"default": 10}
        return pending_rows.take_pending(connection, JOB_SET, pools, "n", now, 0, room)


def _states(site, *ids):
    with site.store.read() as connection:
        states = {row.id: row.state for row in connection.execute(select(run_table))}
    return [states[id_] for id_ in ids]


def test_two_nodes_respect_a_pause_and_settle_it_once(site):
    one, two = site.node(), site.node()
    site.pause(timedelta(seconds=5.5))
    for _ in range(4):
        for node in (one, two):
            node.work(1)
    assert site.rows() == [("skipped", "paused", 1, 5, 5), *_ran(6, 7, 8)]
    assert len(one.resumed + two.resumed) == 1


def _ran(*seconds):
    return [("succeeded", "", second, second, 1) for second in seconds]


def test_starting_another_schedule_never_ends_a_pause_and_settles_it_under_the_old_one(site):
    site.node(make_plan(schedule="0 * * * * *")).work()
    site.clock.advance(30)
    site.pause()
    site.clock.advance(150)  # to 10:03:00
    node = site.node(make_plan(schedule="30 * * * * *"))
    assert site.rows() == [("skipped", "paused", 60, 180, 3)]
    node.work(60)
    assert len(site.rows()) == 1
    site.resume()
    node.work()
    assert site.rows()[1:] == [("skipped", "paused", 210, 210, 1)]
    node.work(30)
    assert site.rows()[2:] == _ran(270)


def test_a_new_schedule_settles_what_was_due_before_during_and_after_a_pause(site):
    site.node(make_plan(schedule="0 * * * * *")).work(60)
    site.clock.advance(130)  # down: 10:02 and 10:03 were due
    site.pause(timedelta(seconds=120))  # 10:03:10 to 10:05:10
    site.clock.advance(230)  # to 10:07:00
    site.node(make_plan(schedule="30 * * * * *")).work()
    assert sorted(site.rows()[1:], key=lambda row: row[2]) == [
        ("missed", "", 120, 180, 2),
        ("skipped", "paused", 240, 300, 2),
        ("missed", "", 360, 360, 1),
        *_ran(420),
    ]


def test_nothing_of_a_downtime_runs_in_a_pause_because_the_schedule_has_changed(site):
    site.node(make_plan(schedule="0 * * * * *")).work(60)
    site.clock.advance(70)
    site.pause()
    site.clock.advance(60)
    site.node(make_plan(schedule="30 * * * * *")).work()
    assert site.rows()[1:] == [("missed", "", 120, 120, 1), ("skipped", "paused", 180, 180, 1)]


def test_a_disabled_job_stays_paused(site):
    site.node().work(1)
    site.pause()
    site.clock.advance(3)
    site.node(make_plan(enabled=False)).work(5)
    assert pauses(site.store, site.clock).keys() == {JOB}
    node = site.node()
    node.work(5)
    assert pauses(site.store, site.clock).keys() == {JOB}
    site.resume()
    node.work()
    assert site.rows()[1:] == [
        ("skipped", "paused", 2, 4, 3),
        ("skipped", "paused", 10, 13, 4),
        *_ran(14),
    ]


@pytest.mark.parametrize(
    ("catch_up", "before"),
    [
        (CatchUp.LATEST, [("missed", "", 60, 60, 1), *_ran(120)]),
        (CatchUp.NONE, [("missed", "", 60, 120, 2)]),
        (CatchUp.ALL, _ran(60, 120)),
    ],
)
def test_a_downtime_before_the_pause_is_caught_up_when_the_pause_has_ended(site, catch_up, before):
    plan = make_plan(schedule="0 * * * * *", catch_up=catch_up)
    site.node(plan)
    site.clock.advance(130)  # down: two ticks were due
    site.pause()
    node = site.node(plan)
    node.work(100)
    assert site.rows() == []
    site.resume()
    node.work()
    assert site.rows() == [*before, ("skipped", "paused", 180, 180, 1)]


@pytest.mark.parametrize(
    ("catch_up", "expected"),
    [
        (CatchUp.LATEST, [("missed", "", 60, 60, 1), "pause", ("missed", "", 240, 240, 1)]),
        (CatchUp.NONE, [("missed", "", 60, 60, 1), "pause", ("missed", "", 240, 240, 1)]),
        (CatchUp.ALL, [*_ran(60), "pause", *_ran(240)]),
    ],
)
def test_a_pause_that_ends_in_a_downtime(site, catch_up, expected):
    """Of all that was due without a scheduler the newest tick runs; none in the pause does."""
    plan = make_plan(schedule="0 * * * * *", catch_up=catch_up)
    site.node(plan)
    site.clock.advance(90)
    site.pause(timedelta(seconds=120))
    site.clock.advance(215)  # to 10:05:05; the pause ended at 10:03:30
    site.node(plan).work()
    pause = ("skipped", "paused", 120, 180, 2)
    wanted = [pause if row == "pause" else row for row in expected]
    assert site.rows() == [*wanted, *_ran(300)]


@pytest.mark.parametrize(
    ("midnight", "hours"),
    [(datetime(2026, 3, 29, tzinfo=BERLIN), 23), (datetime(2026, 10, 25, tzinfo=BERLIN), 25)],
)
def test_a_pause_over_a_change_of_the_clocks_counts_the_hours_there_were(site, midnight, hours):
    schedule = parse("0 30 * * * *", "Europe/Berlin")
    site.clock.step((midnight.astimezone(UTC) - START).total_seconds())
    node = site.node(make_plan(schedule=schedule, timezone="Europe/Berlin"))
    site.pause(timedelta(hours=hours))
    node.work(hours * 3600)
    assert [row[4] for row in site.rows("skipped")] == [hours]


def test_a_year_of_a_job_that_is_due_each_second_is_one_row_at_once(site):
    node = site.node()
    site.pause()
    node.work(365 * 86_400)
    site.resume()
    assert steps(node.work) < 100_000  # walking 31 million ticks takes far more
    assert [row[4] for row in site.rows("skipped")] == [365 * 86_400 - 1]


def test_a_paused_job_is_not_looked_at_again_and_again(site, monkeypatch):
    node = site.node()
    site.pause()
    node.work(2)
    looks = []
    monkeypatch.setattr(node.claimer, "_claim", lambda due: looks.append(due) or [])
    for _ in range(60):
        site.clock.advance(1)
        assert node.claimer.step() >= 1
    assert looks == []


def test_a_node_that_has_nothing_else_to_do_notices_that_a_job_is_resumed(site):
    node = site.node()
    site.pause()
    node.work(2)
    site.resume()
    node.work(1)
    assert site.rows() == [("skipped", "paused", 1, 1, 1), ("missed", "", 2, 2, 1), *_ran(3)]


def test_pausing_a_paused_job_changes_its_end_and_note_and_not_its_beginning(site):
    site.node()
    site.pause(note="one")
    site.clock.advance(10)
    site.pause(timedelta(hours=1), "two", "bob")
    (pause,) = pauses(site.store, site.clock).values()
    assert (pause.job_id, pause.since, pause.until) == (
        JOB,
        START,
        START + timedelta(hours=1, seconds=10),
    )
    assert (pause.note, pause.who) == ("two", "bob")


def test_a_pause_after_an_unsettled_one_takes_its_beginning_so_that_no_tick_is_lost(site):
    plan = make_plan(schedule="0 * * * * *")
    site.node(plan)
    site.pause(timedelta(seconds=90))
    site.clock.advance(130)  # nobody was there to settle it
    site.pause(timedelta(seconds=60))
    site.clock.advance(100)
    site.node(plan).work()
    assert site.rows() == [("skipped", "paused", 60, 180, 3)]


def test_a_clock_set_back_behind_the_beginning_of_a_pause_settles_nothing_ahead(site):
    node = site.node()
    node.work(10)
    site.pause()
    site.clock.step(-5)
    site.resume()
    node.work(3)
    assert site.job("last_tick") == START + 10 * SECOND
    node.work(4)
    assert site.rows("skipped") == []


def test_a_pause_after_a_settled_one_begins_now(site):
    node = site.node()
    site.pause(timedelta(seconds=5))
    node.work(6)
    site.pause()
    (pause,) = pauses(site.store, site.clock).values()
    assert pause.since == START + 6 * SECOND


def test_a_job_that_no_scheduler_has_seen_yet_starts_paused(site):
    plan = make_plan()
    site.pause(plans=[plan])
    node = site.node(plan)
    node.work(5)
    assert site.rows() == []
    assert site.job("fingerprint") == fingerprint(plan)


def test_a_job_that_is_renamed_stays_paused_until_it_is_resumed_by_its_new_name(site):
    site.node().work(1)
    site.pause(note="the disk")
    renamed = replace(make_plan("sweep"), job=make_job("sweep", aliases=["cleanup"]))
    site.node(renamed).work(5)
    assert [row[0] for row in site.rows()] == ["succeeded"]
    assert pauses(site.store, site.clock)["ext:sweep"].note == "the disk"
    site.control.resume(["ext:sweep"], "", "ada")
    node = site.node(renamed)
    node.work(1)
    assert site.rows("skipped") == [("skipped", "paused", 2, 5, 4)]
    assert pauses(site.store, site.clock).keys() == {JOB}


def test_an_end_that_has_passed_is_refused_and_nothing_is_changed(site):
    site.node()
    with pytest.raises(UsageError, match="over already"):
        site.pause(START - SECOND)
    with pytest.raises(UsageError, match="has no zone"):
        site.pause(datetime(2030, 1, 1))  # noqa: DTZ001  # what is refused
    assert pauses(site.store, site.clock) == {}
    assert _audits(site) == []


def test_the_audit_says_who_did_what_and_why(site):
    site.node()
    site.pause(note="the disk")
    site.pause(START + timedelta(hours=1), "longer", "bob")
    site.resume()
    assert site.resume() == []  # it was not paused any more
    assert _audits(site) == [
        ("ada", "pause", JOB, "the disk"),
        ("bob", "pause", JOB, "until 2026-03-02T11:00:00+00:00: longer"),
        ("ada", "resume", JOB, ""),
    ]


def _audits(site):
    columns = [audit_table.c[name] for name in ("who", "action", "subject", "note")]
    with site.store.read() as connection:
        return [tuple(row) for row in connection.execute(select(*columns))]


def test_hooks_tell_of_a_pause_and_its_end(site):
    site.node()
    site.pause(timedelta(hours=1), "why")
    site.resume()
    assert site.calls.made == [
        (
            "job_paused",
            {"job_id": JOB, "until": START + timedelta(hours=1), "note": "why", "who": "ada"},
        ),
        ("job_resumed", {"job_id": JOB, "note": "", "who": "ada"}),
    ]


def test_an_end_by_command_is_observed_once(site):
    node = site.node()
    site.pause()
    site.resume()
    node.work(3)
    assert node.resumed == []


# --- the clock guard ---


def test_a_job_that_saw_a_wrong_clock_is_held_and_says_so_once(site):
    node = site.node()
    node.work(1)
    site.clock.step(10 * 86_400)
    node.work(1)
    site.clock.step(-10 * 86_400)
    for _ in range(5):
        node.work(1)
    assert held(site.store, site.clock) == {JOB: START + timedelta(days=10, seconds=2)}
    (problem,) = node.problems
    assert problem.culprit == JOB
    assert problem.remedy == f"when the clock is right: systemprompt infra jobs reset-clock {JOB}"
    again = site.node()
    again.work(1)
    assert len(again.problems) == 1


def test_a_clock_that_was_half_an_hour_ahead_holds_nothing(site):
    node = site.node()
    site.clock.step(1800)
    node.work(1)
    site.clock.step(-1800)
    node.work(1)
    assert (held(site.store, site.clock), node.problems) == ({}, [])


def test_a_reset_takes_back_what_lies_ahead_and_ticks_come_again(site):
    node = site.node()
    node.work(1)
    site.clock.step(3600 * 2)
    node.work(0.5)
    site.clock.step(-3600 * 2)
    node.work(2.5)  # to second 4
    assert site.control.reset_clock([JOB], parse, "ada") == {
        JOB: START + timedelta(hours=2, seconds=1)
    }
    assert site.rows("missed") == [("missed", "", 2, 4, 3)]
    assert site.job("last_tick") == START + 4 * SECOND
    for _ in range(3):
        node.work(1)
    assert site.rows("succeeded") == [*_ran(1, 7201), *_ran(5, 6, 7)]
    assert _audits(site) == [
        (
            "ada",
            "reset-clock",
            JOB,
            f"it was settled up to {START + timedelta(hours=2, seconds=1):%Y-%m-%dT%H:%M:%S+00:00}",
        )
    ]


def test_the_tick_that_a_wrong_clock_has_run_runs_again_when_its_time_comes(site):
    node = site.node(make_plan(schedule="0 0 */3 * * *"))
    site.clock.step(7200)
    node.work(0)
    site.clock.step(-7200 + 60)
    site.control.reset_clock([JOB], parse, "ada")
    node.work(7140)
    assert site.rows() == [*_ran(7200), *_ran(7200)]


def test_a_run_that_a_wrong_clock_has_claimed_and_not_started_is_skipped(site):
    node = site.node()
    site.clock.step(7200)
    node.claimer.step()
    site.clock.step(-7200)
    site.control.reset_clock([JOB], parse, "ada")
    assert [row[:3] for row in site.rows("skipped")] == [("skipped", "clock", 7200)]
    assert site.calls.names() == ["tick_skipped"]
    node.work(1)
    assert site.rows("succeeded") == _ran(1)


def test_a_reset_of_a_job_that_is_not_ahead_changes_nothing(site):
    site.node().work(5)
    assert site.control.reset_clock([JOB], parse, "ada") == {}
    assert site.job("last_tick") == START + 5 * SECOND
    assert _audits(site) == []


def test_a_reset_needs_to_know_the_schedule(site):
    node = site.node(make_plan(schedule=every(seconds=1)))
    site.clock.step(7200)
    node.work(1)
    site.clock.step(-7200)
    mark = site.job("last_tick")

    def unknown(text, timezone):
        raise ScheduleError(f"{text!r}: no plugin knows it")

    with pytest.raises(
        UsageError, match="ext:cleanup can be reset only where its schedule is known"
    ):
        site.control.reset_clock([JOB], unknown, "ada")
    assert site.job("last_tick") == mark
