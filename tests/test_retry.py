"""Whether and when a failed run is tried again: pure decisions."""

from __future__ import annotations

import collections
import pickle
from dataclasses import replace
from datetime import timedelta

import pytest

from systemprompt_jobs import GIVE_UP, Retry
from systemprompt_jobs._retry import RETRY, Failure, decide, freeze, settle
from systemprompt_jobs.model import Concurrency, Report, RetryPolicy, Run, State, Trigger
from tests.support import START, make_plan

S = timedelta(seconds=1)
POLICY = RetryPolicy(max_attempts=20)
TYPES = ("ConnectionError", "OSError", "Exception", "BaseException")


def failure(attempt=1, types=TYPES, **values):
    return Failure(run=7, attempt=attempt, types=types, at=START, **values)


def test_the_delay_doubles_up_to_its_cap_within_ten_percent():
    delays = [decide(POLICY, failure(attempt)) / S for attempt in range(1, 20)]
    for attempt, delay in enumerate(delays):
        wanted = min(10 * 2**attempt, 3600)
        assert 0.9 * wanted <= delay <= min(1.1 * wanted, 3600)
    assert len({round(delay / min(10 * 2**n, 3600), 3) for n, delay in enumerate(delays)}) > 5


def test_the_delay_is_the_same_on_every_node_and_differs_between_runs():
    assert decide(POLICY, failure()) == decide(POLICY, failure())
    assert decide(POLICY, failure()) != decide(POLICY, replace(failure(), run=8))


def test_a_factor_that_leaves_the_numbers_ends_at_the_cap():
    policy = replace(POLICY, max_attempts=1000, factor=1000.0)
    assert decide(policy, failure(999)) <= timedelta(hours=1)


@pytest.mark.parametrize("attempt", [20, 21])
def test_no_attempt_is_made_beyond_the_last(attempt):
    assert decide(POLICY, failure(attempt), S) == "no attempt is left, max_attempts is 20"


@pytest.mark.parametrize(
    ("changes", "types", "retried"),
    [
        ({"retry_on": ("OSError",)}, TYPES, True),
        ({"retry_on": ("ValueError",)}, TYPES, False),
        ({"retry_on": ("ValueError",)}, (), False),
        ({}, (), True),
        ({"give_up_on": ("OSError",)}, TYPES, False),
        ({"retry_on": ("OSError",), "give_up_on": ("ConnectionError",)}, TYPES, False),
        ({"retry_on": ("a.Error",)}, ("a.Error", "Exception"), True),
        ({"retry_on": ("a.Error",)}, ("b.Error", "Exception"), False),
        ({"retry_on": ("a.Error",), "give_up_on": ("Exception",)}, (RETRY, "Exception"), True),
    ],
)
def test_exception_types_decide_by_name_over_all_bases(changes, types, retried):
    verdict = decide(replace(POLICY, **changes), failure(types=types))
    assert isinstance(verdict, timedelta) == retried


def test_a_type_may_be_named_by_the_module_that_re_exports_it():
    own = f"{collections.abc.Sized.__module__}.Sized"
    policy = replace(POLICY, retry_on=("collections.abc.Sized",))
    assert isinstance(decide(policy, failure(types=(own,))), timedelta)


@pytest.mark.parametrize(("tick_s", "retried"), [(8, False), (12, True), (None, True)])
def test_nothing_is_tried_past_the_next_tick_unless_allowed(tick_s, retried):
    failed = failure(next_tick=tick_s and START + tick_s * S)
    assert isinstance(decide(POLICY, failed), timedelta) == retried
    assert isinstance(decide(replace(POLICY, past_next_tick=True), failed), timedelta)


def test_why_nothing_is_tried_names_the_tick():
    assert decide(POLICY, failure(next_tick=START + S)) == (
        "its next tick, 2026-03-02 10:00:01 UTC, comes first"
    )


@pytest.mark.parametrize(
    ("asked", "advice", "expected"),
    [
        (90 * S, None, 90 * S),
        (90 * S, 5 * S, 5 * S),
        (None, 7200 * S, 7200 * S),
        (None, GIVE_UP, "a plugin's retry_delay gave it up"),
    ],
)
def test_a_job_or_a_plugin_that_names_a_delay_gets_it_exactly(asked, advice, expected):
    assert decide(POLICY, failure(types=(RETRY,), asked=asked), advice) == expected


def test_a_plugin_may_retry_what_the_job_gives_up():
    assert decide(replace(POLICY, give_up_on=("OSError",)), failure(), S) == S


# --- with the run and its report ---


def a_run(**values):
    plan = make_plan(retry=replace(POLICY, max_attempts=3), schedule="")
    values = {"attempt": 1, "max_attempts": 3, "policy": freeze(plan)} | values
    return Run(7, "ext:cleanup", Trigger.SCHEDULE, State.RUNNING, **values)


def a_report(outcome=State.FAILED, **values):
    return Report(outcome, START, START, error="E: no", error_types=TYPES, **values)


def judged(run, report, advice=None, **more):
    return settle(run, report, lambda _: None, lambda _run, _report: advice, **more)


def test_what_a_run_keeps_is_plain_and_decides_alike():
    policy = RetryPolicy(3, 5 * S, 1.5, 60 * S, past_next_tick=True, retry_on=("OSError",))
    plan = make_plan(retry=policy, concurrency=Concurrency("api", 2))
    frozen = freeze(plan)
    assert frozen["concurrency"] == {"key": "api", "limit": 2}
    assert judged(a_run(policy=frozen), a_report()).retry_after == decide(policy, failure())


def test_what_a_newer_version_kept_beside_it_does_not_matter():
    run = a_run(policy={"retry": {"delay": 5.0, "unheard_of": 1}, "other": {}})
    assert judged(run, a_report()).retry_after == decide(replace(POLICY, delay=5 * S), failure())


def test_a_run_that_is_started_once_and_not_limited_keeps_nothing():
    assert freeze(make_plan()) is None


def test_a_success_is_not_asked_about():
    report = Report(State.SUCCEEDED, START, START)
    assert settle(a_run(), report, None, None) is report


def test_the_last_failure_of_several_says_nothing_of_attempts():
    report = judged(a_run(attempt=3), a_report(message="m"))
    assert (report.retry_after, report.message, report.error) == (None, "m", "E: no")


def test_a_run_that_gives_up_early_says_why():
    report = judged(a_run(), a_report(), GIVE_UP)
    assert report.retry_after is None
    assert report.message == "not tried again: a plugin's retry_delay gave it up"


def test_whoever_asks_for_a_retry_without_attempts_left_fails_and_is_told():
    asked = replace(a_report(retry_after=S), error_types=(RETRY,))
    report = judged(a_run(max_attempts=1, policy=None), asked)
    assert report.retry_after is None
    assert report.error == "E: no (not tried again: no attempt is left, max_attempts is 1)"


@pytest.mark.parametrize(
    ("trigger", "attempt", "awaited", "moves"),
    [
        (Trigger.SCHEDULE, 1, False, True),
        (Trigger.SCHEDULE, 3, False, False),
        (Trigger.MANUAL, 1, False, True),
        (Trigger.MANUAL, 1, True, False),
        (Trigger.STARTUP, 1, False, False),
    ],
)
def test_of_a_node_that_stops_move_on_what_has_attempts_left_and_is_not_its_own(
    trigger, attempt, awaited, moves
):
    cut_off = Report(State.CANCELLED, START, START, retry_after=timedelta())
    run = replace(a_run(attempt=attempt), trigger=trigger)
    settled = judged(run, cut_off, awaited=awaited)
    assert (settled.retry_after is not None) == moves


def test_what_was_cancelled_on_purpose_is_not_tried_again():
    report = Report(State.CANCELLED, START, START)
    assert judged(a_run(), report) is report


@pytest.mark.parametrize("after", ["90s", 90, 90.0, timedelta(seconds=90)])
def test_a_retry_takes_durations_as_everything_does(after):
    assert Retry("busy", after=after).after == 90 * S


def test_a_retry_refuses_what_is_no_duration():
    with pytest.raises(ValueError, match="'soon' is no duration"):
        Retry(after="soon")


def test_give_up_is_one_in_every_process():
    assert pickle.loads(pickle.dumps(GIVE_UP)) is GIVE_UP
