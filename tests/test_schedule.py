"""What becomes of due ticks, and in which order jobs come up."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from systemprompt_jobs._calendar import cron
from systemprompt_jobs._schedule import CATCHUP_WINDOW, Agenda, Decision, Policy, Stretch, decide
from systemprompt_jobs.model import CatchUp
from tests.support import START, steps

EVERY_MINUTE = cron("0 * * * * *")
HOURLY = cron("0 0 * * * *")
MINUTE = timedelta(minutes=1)


def minutes(n: float) -> datetime:
    return START + n * MINUTE


def test_a_tick_claimed_early_is_settled_alone():
    assert decide(EVERY_MINUTE, minutes(5), minutes(4.9)) == Decision(
        run=minutes(5), missed=None, last=minutes(5), next=minutes(6)
    )


def test_a_late_tick_runs_when_no_newer_one_is_due():
    assert decide(EVERY_MINUTE, minutes(5), minutes(5.9)) == Decision(
        run=minutes(5), missed=None, last=minutes(5), next=minutes(6)
    )


def test_a_tick_is_due_at_its_very_instant():
    assert decide(EVERY_MINUTE, minutes(4), minutes(5)) == Decision(
        run=minutes(5),
        missed=Stretch(minutes(4), minutes(4), 1),
        last=minutes(5),
        next=minutes(6),
    )


def test_after_downtime_the_newest_tick_runs_and_the_others_are_one_missed_stretch():
    assert decide(EVERY_MINUTE, minutes(5), minutes(65.5)) == Decision(
        run=minutes(65),
        missed=Stretch(minutes(5), minutes(64), 60),
        last=minutes(65),
        next=minutes(66),
    )


def test_a_tick_older_than_the_catch_up_window_is_missed():
    yearly = cron("0 0 0 1 1 *")
    due = datetime(2026, 1, 1, tzinfo=START.tzinfo)
    assert decide(yearly, due, due + CATCHUP_WINDOW).run == due
    late = decide(yearly, due, due + CATCHUP_WINDOW + timedelta(seconds=1))
    assert late.run is None
    assert late.missed == Stretch(due, due, 1)
    assert late.next == datetime(2027, 1, 1, tzinfo=START.tzinfo)


NONE = Policy(CatchUp.NONE)
ALL = Policy(CatchUp.ALL)


def test_without_catching_up_a_tick_runs_up_to_a_minute_late():
    assert decide(HOURLY, minutes(60), minutes(61), NONE).run == minutes(60)
    late = decide(HOURLY, minutes(60), minutes(61) + timedelta(seconds=1), NONE)
    assert (late.run, late.missed) == (None, Stretch(minutes(60), minutes(60), 1))
    assert late.next == minutes(120)


def test_catching_up_on_all_runs_the_oldest_and_leaves_the_others_due():
    assert decide(EVERY_MINUTE, minutes(5), minutes(65.5), ALL) == Decision(
        run=minutes(5), missed=None, last=minutes(5), next=minutes(6)
    )


def test_catching_up_on_all_misses_what_is_older_than_the_window():
    policy = Policy(CatchUp.ALL, timedelta(minutes=10))
    assert decide(EVERY_MINUTE, minutes(5), minutes(65), policy) == Decision(
        run=minutes(55),
        missed=Stretch(minutes(5), minutes(54), 50),
        last=minutes(55),
        next=minutes(56),
    )


def test_a_year_of_all_of_a_per_second_job_is_not_walked():
    schedule, now = cron("* * * * * *"), START + timedelta(days=365)
    decision = decide(schedule, START, now, ALL)
    assert steps(lambda: decide(schedule, START, now, ALL)) < 100_000
    assert decision.run == now - timedelta(hours=24)
    assert decision.missed == Stretch(
        START, now - timedelta(hours=24, seconds=1), (365 - 1) * 86_400
    )


@pytest.mark.parametrize("catch_up", CatchUp)
@pytest.mark.parametrize("window_s", [1, 90, 3600])
@pytest.mark.parametrize("due_after_s", [0.0, 59.5, 60, 600.25, 90_000])
def test_under_each_policy_every_due_tick_is_covered_exactly_once(catch_up, window_s, due_after_s):
    due, now = minutes(1), minutes(1) + timedelta(seconds=due_after_s)
    expected, covered = 1 + EVERY_MINUTE.count(due, now), 0
    tick = due
    while tick is not None and tick <= now:
        decision = decide(EVERY_MINUTE, tick, now, Policy(catch_up, timedelta(seconds=window_s)))
        if decision.missed:
            assert decision.missed.first == tick
            covered += decision.missed.count
        if decision.run:
            assert now - decision.run <= timedelta(seconds=window_s)
            covered += 1
        tick = decision.next
    assert covered == expected


def test_a_year_of_a_per_second_job_is_settled_in_one_stretch_without_walking():
    schedule, now = cron("* * * * * *"), START + timedelta(days=365)
    decision = decide(schedule, START, now)
    assert steps(lambda: decide(schedule, START, now)) < 100_000  # of 31 million ticks
    assert decision.missed == Stretch(START, START + timedelta(days=365, seconds=-1), 365 * 86_400)


@pytest.mark.parametrize("due_after_s", [0.0, 0.5, 59.9, 60, 3600.25, 90_000])
def test_every_due_tick_is_covered_exactly_once(due_after_s):
    due, now = minutes(1), minutes(1) + timedelta(seconds=due_after_s)
    decision = decide(EVERY_MINUTE, due, now)
    covered = int(decision.run is not None) + (decision.missed.count if decision.missed else 0)
    assert covered == 1 + EVERY_MINUTE.count(due, now)
    assert decision.next is not None
    assert decision.next > now


def test_the_agenda_gives_due_jobs_earliest_first_and_keeps_them_until_moved_on():
    agenda = Agenda()
    agenda.set("late", minutes(2))
    agenda.set("early", minutes(1))
    agenda.set("later", minutes(9))
    assert agenda.first() == minutes(1)
    assert agenda.due(minutes(2)) == ["early", "late"]
    assert agenda.due(minutes(2)) == ["early", "late"]
    agenda.set("early", minutes(3))
    assert agenda.due(minutes(2)) == ["late"]


def test_a_job_moved_to_an_earlier_tick_comes_up_then_and_once():
    agenda = Agenda()
    for tick in (5, 1, 5, 1):
        agenda.set("job", minutes(tick))
    assert agenda.due(minutes(9)) == ["job"]
    assert agenda.first() == minutes(1)


def test_a_job_without_a_next_tick_is_off_the_agenda():
    agenda = Agenda()
    agenda.set("job", minutes(1))
    agenda.set("job", None)
    assert agenda.first() is None
    assert agenda.due(minutes(9)) == []
