"""The judge finds each kind of harm: every test doctors one thing in the diary of a sound day."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest

from tests.faults.checker import SECOND
from tests.simulation.diary import JobEntry, RunEntry
from tests.simulation.judge import Case, calendar, judge

HOUR = 3600 * SECOND
T0 = 1_772_445_600 * SECOND
"""2026-03-02T10:00:00Z."""

CRON = "0 0 * * * *"
LEASE = 120 * SECOND
NODE, OTHER, WORKER = "host:1:a", "host:2:b", "host:3:w"


def plan(number, **values):
    """Return the moment at which the plan came in force, an hour before the first tick."""
    entry = JobEntry(
        *(number, -HOUR, T0 - HOUR, NODE, "x:each", "", "mark", CRON),
        *(None, T0, None, None, None, None, None, None),
    )
    return replace(entry, **values)


def first(run, tick, state="claimed", **values):
    """Return the claim of a run."""
    entry = RunEntry(
        number=run * 10,
        at=tick - T0,
        clock=tick,
        who=NODE,
        run=run,
        job="x:each",
        trigger="schedule",
        tick=tick,
        last=None,
        count=1,
        was=None,
        state=state,
        reason="",
        old_fence=0,
        fence=1,
        holder="",
        node=NODE,
        lease=None,
        attempt=0,
        most=1,
        overlap="skip",
        cancelled=None,
        available=None,
        until=None,
        finished=None,
        pool="default",
        limit_key=None,
        mark=None,
        schedule=CRON,
        catch_up="latest",
        window=86_400,
        paused_at=None,
        paused_until=None,
        next_tick=tick,
        last_settled=tick - HOUR,
        younger=0,
    )
    return replace(entry, **values)


def then(before, state, after_s=0.0, **values):
    """Return what became of a run next."""
    micros = round(after_s * SECOND)
    entry = replace(
        before,
        number=before.number + 1,
        at=before.at + micros,
        clock=before.clock + micros,
        was=before.state,
        state=state,
        old_fence=before.fence,
        holder=before.node,
        lease=before.at + LEASE,
        available=before.tick,
        until=T0 + 24 * HOUR,
    )
    return replace(entry, **values)


def life(run, tick, **values):
    """Return the entries of a run that succeeds."""
    claimed = first(run, tick, **values)
    running = then(claimed, "running", attempt=1)
    return [claimed, running, then(running, "succeeded", 5)]


def kinds(runs, jobs=None, wanted=(), hours=2):
    """Return which rules a day of so many hours has broken."""
    case = Case(
        runs=runs,
        jobs=jobs or [plan(1)],
        until=T0 + (hours - 1) * HOUR,
        lease=LEASE,
        lease_clock=0,
        one_clock=True,
        is_well=lambda node, _since, _until: node == NODE,
        is_worker=lambda node: node == WORKER,
        wanted=dict(wanted),
        keep=5,
        age=HOUR,
        calendar=partial(calendar, after=T0 - 12 * HOUR, until=T0 + 48 * HOUR),
    )
    return sorted({found.invariant for found in judge(case)})


ONE, TWO = life(1, T0), life(2, T0 + HOUR)


def test_a_sound_day_passes():
    assert kinds([*ONE, *TWO]) == []


def test_a_forgotten_tick_and_one_that_is_in_two_runs_are_found():
    assert kinds(ONE) == kinds([*ONE, *TWO, *life(3, T0)]) == ["I1"]


def test_a_stretch_that_counts_wrongly_is_found():
    missed = first(1, T0, "missed", last=T0 + HOUR, count=3, clock=T0 + 3 * HOUR)
    assert kinds([replace(missed, count=2)]) == []
    assert kinds([missed]) == ["I1"]


def test_a_run_without_an_end_is_found():
    assert kinds([*ONE, *TWO[:2]]) == ["I5"]


def test_a_start_before_its_time_is_found_and_one_before_that_of_its_splay():
    early = replace(TWO[1], clock=T0 + HOUR - 1, available=None)
    assert kinds([*ONE, TWO[0], early, TWO[2]]) == ["I6"]
    assert kinds([*ONE, TWO[0], replace(TWO[1], available=T0 + HOUR + 1), TWO[2]]) == ["S7"]


def test_what_comes_after_an_end_is_found():
    again = then(ONE[2], "running", fence=1)
    assert kinds([*ONE, again, then(again, "succeeded"), *TWO]) == ["S1"]


@pytest.mark.parametrize("values", [{"fence": 1}, {"fence": 0}])
def test_a_run_given_away_under_its_old_fence_is_found(values):
    back = then(ONE[0], "pending", **{"node": ""} | values)
    assert "S1" in kinds([ONE[0], back, then(back, "skipped", who="operator"), *TWO])


def test_what_is_forgotten_too_early_is_found():
    gone = then(ONE[2], "deleted", finished=T0, clock=T0 + 2 * HOUR, younger=5)
    assert kinds([*ONE, *TWO, gone]) == []
    for values in ({"younger": 4}, {"finished": T0 + HOUR}, {"was": "running"}, {"younger": -1}):
        assert kinds([*ONE, *TWO, replace(gone, **values)]) == ["S1"]


def test_a_change_of_what_others_hold_is_found():
    assert kinds([*ONE[:2], replace(ONE[2], who=OTHER), *TWO]) == ["S2"]
    assert kinds([*ONE[:2], replace(ONE[2], who="operator"), *TWO]) == ["S2"]


@pytest.mark.parametrize(("holder", "looks", "rules"), [
    (OTHER, 5 / 3, []),
    (OTHER, 4 / 3 - 0.01, ["S3"]),
    (NODE, 5 / 3, ["S4"]),
])  # fmt: skip
def test_a_rescue_after_one_look_and_one_from_the_living_are_found(holder, looks, rules):
    claimed = replace(ONE[0], node=holder, who=holder)
    running = then(claimed, "running", attempt=1)
    lost = then(running, "lost", 120 * looks, lease=running.at + LEASE, who=WORKER)
    assert kinds([claimed, running, lost, *TWO]) == rules


def test_a_start_and_a_retry_of_what_was_cancelled_are_found():
    retrying = replace(ONE[2], state="pending", fence=2, node="", cancelled=T0)
    given_up = then(retrying, "cancelled", who="operator")
    assert kinds([*ONE[:2], retrying, given_up, *TWO]) == ["S5"]
    assert kinds([ONE[0], replace(ONE[1], cancelled=T0), ONE[2], *TWO]) == ["S5"]


def test_a_start_in_a_pause_is_found_and_one_by_hand_is_none():
    paused = {"paused_at": T0 + 1, "paused_until": None}
    assert kinds([ONE[0], replace(ONE[1], **paused), ONE[2], *TWO]) == ["S6"]
    by_hand = [replace(entry, trigger="manual", tick=None, **paused) for entry in life(3, T0)]
    assert kinds([*ONE, *by_hand, *TWO]) == []


def test_ticks_of_a_pause_that_run_and_others_that_are_skipped_are_found():
    paused = {"paused_at": T0, "paused_until": T0 + 1}
    assert kinds([replace(ONE[0], **paused), *ONE[1:], *TWO]) == ["S6"]
    assert kinds([first(1, T0, "skipped", reason="paused", **paused), *TWO]) == []
    later = paused | {"paused_at": T0 + 1, "paused_until": T0 + 2}
    assert kinds([first(1, T0, "skipped", reason="paused", **later), *TWO]) == ["S6"]


def test_what_is_taken_too_early_or_given_up_too_early_is_found():
    waiting = first(1, T0, "pending", node="")
    given_up = then(waiting, "missed", until=T0 - 1)
    assert kinds([waiting, given_up, *TWO]) == []
    assert kinds([waiting, replace(given_up, until=T0), *TWO]) == ["S7"]
    taken = then(waiting, "claimed", node=NODE, available=T0 + 1)
    assert kinds([waiting, taken, then(taken, "skipped"), *TWO]) == ["S7"]


@pytest.mark.parametrize("values", [
    {"clock": T0 - 2 * SECOND},
    {"clock": T0 + 61 * SECOND, "catch_up": "none"},
    {"clock": T0 + 601 * SECOND, "window": 600},
    {"clock": T0 + HOUR},
])  # fmt: skip
def test_a_claim_against_the_policy_is_found(values):
    assert kinds([replace(ONE[0], **values), *ONE[1:], *TWO]) == ["S8"]


def test_a_tick_that_is_missed_without_need_is_found():
    assert kinds([first(1, T0, "missed", clock=T0 + HOUR), *TWO]) == []
    assert kinds([first(1, T0, "missed", clock=T0 + HOUR - 1), *TWO]) == ["S8"]


def test_late_ticks_that_do_not_wait_for_each_other_are_found():
    late = first(2, T0 + HOUR, clock=T0 + 2 * HOUR, catch_up="all")
    in_turn = [late, then(late, "skipped")]
    assert kinds([*ONE, *in_turn]) == []
    assert kinds([*ONE[:2], *in_turn, ONE[2]]) == ["S8"]


@pytest.mark.parametrize("key", [{}, {"overlap": "allow", "limit_key": "k"}])
def test_runs_that_share_a_slot_are_found_also_while_one_waits_to_be_retried(key):
    one, two = life(1, T0, **key), life(2, T0 + HOUR, **key)
    assert kinds([*one[:2], *two, one[2]]) == ["S9"]
    retrying = then(one[1], "pending", fence=2, node="")
    again = then(retrying, "failed", until=T0 - 1)
    assert kinds([*one[:2], retrying, *two, again]) == ["S9"]


def test_a_mark_that_falls_and_a_pause_that_is_forgotten_are_found():
    fell = plan(2, was="mark", old_next=T0, old_last=T0, last_settled=T0 - 1)
    assert kinds([*ONE, *TWO], [plan(1), fell]) == ["I7"]
    forgotten = plan(2, was="mark", old_next=T0, old_pause=T0 - 3 * HOUR, old_until=T0 - HOUR)
    assert kinds([*ONE, *TWO], [plan(1), forgotten]) == []
    for values in ({"old_until": None}, {"old_until": T0}, {"next_tick": T0 - 2 * HOUR}):
        assert kinds([*ONE, *TWO], [plan(1), replace(forgotten, **values)]) == ["S6"]


def test_a_pause_that_people_end_or_move_keeps_its_ticks():
    people = plan(2, was="mark", old_next=T0, who="operator", old_pause=T0 - 3 * HOUR)
    ended = replace(people, paused_at=T0 - 3 * HOUR, paused_until=T0 - HOUR)
    assert kinds([*ONE, *TWO], [plan(1), ended]) == []
    for values in ({"paused_at": None, "paused_until": None}, {"paused_at": T0 - HOUR}):
        assert kinds([*ONE, *TWO], [plan(1), replace(ended, **values)]) == ["S6"]


def test_a_tick_that_is_skipped_with_nothing_in_its_way_is_found():
    def skipped(**values):
        return [TWO[0], then(TWO[0], "skipped", reason="overlap", **values)]

    assert kinds([*ONE[:2], *skipped(), ONE[2]]) == []
    assert kinds([*ONE, *skipped()]) == ["S9"]
    assert kinds([*ONE[:2], replace(ONE[2], state="timed_out"), *skipped()]) == []
    assert kinds([*ONE[:2], *skipped(overlap="allow"), ONE[2]]) == ["S9"]
    assert kinds([*ONE[:2], *skipped(overlap="queue"), ONE[2]]) == ["S9"]
    third = replace(first(3, T0), overlap="queue", trigger="manual", tick=None)
    waits = [third, *skipped(overlap="queue"), then(third, "cancelled", who="operator")]
    assert kinds([*ONE[:2], *waits, ONE[2]]) == []


@pytest.mark.parametrize(("due", "rules"), [(T0 + HOUR, []), (T0 + HOUR + 61 * SECOND, ["S13"])])
def test_a_retry_past_the_next_tick_is_found(due, rules):
    failed = then(ONE[1], "pending", 5, fence=2, node="")
    again = then(failed, "claimed", 2 * HOUR / SECOND, available=due, node=NODE)
    running = then(again, "running", attempt=2, most=2, available=due)
    two = life(2, T0 + HOUR, overlap="allow")
    assert kinds([*ONE[:2], failed, *two, again, running, then(running, "succeeded")]) == rules


def test_a_new_plan_that_makes_up_the_past_is_found():
    assert kinds([*ONE, *TWO], [plan(1, clock=T0 + 1)]) == ["S10"]


def test_a_run_by_hand_that_is_lost_doubled_or_skipped_is_found():
    by_hand = [replace(e, trigger="manual", tick=None, mark="m0") for e in life(3, T0)]
    asked = {"m0": True}
    assert kinds([*ONE, *by_hand, *TWO], wanted=asked) == []
    assert kinds([*ONE, *TWO], wanted=asked) == ["S11"]
    assert kinds([*ONE, *TWO], wanted={"m0": False}) == []
    twice = [replace(entry, run=4) for entry in by_hand]
    assert kinds([*ONE, *by_hand, *twice, *TWO], wanted=asked) == ["S11"]
    skipped = then(by_hand[0], "skipped", reason="paused")
    assert kinds([*ONE, by_hand[0], skipped, *TWO], wanted=asked) == ["S11"]
