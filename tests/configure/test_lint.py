"""What is valid and yet looks wrong is named by a code, and silenced by it."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from pathlib import Path

import pytest

from systemprompt_jobs import every, job
from systemprompt_jobs._calendar import cron
from systemprompt_jobs._configure import lint
from systemprompt_jobs.model import Place, Problem, RetryPolicy, Source
from tests.support import START, make_plan

FILE = Path("/srv/services/scheduler/config.yaml")


def plan(schedule="0 0 * * * *", name="cleanup", **values):
    made = make_plan(name, schedule, **values)
    text = made.schedule.text if made.schedule else ""
    sources = {
        "schedule": (Source(text, "config.yaml", Place(FILE, 4)),),
        "enforce": (Source(made.enforce, "default"),),
    }
    return dataclasses.replace(made, sources=sources | dict(values.get("sources", {})))


def codes(*plans, workers=10):
    return [problem.code for problem in lint(plans, workers, START)]


def only(*plans, workers=10):
    (problem,) = lint(plans, workers, START)
    return problem


def test_a_sound_job_has_nothing():
    assert codes(plan(), plan(""), plan(every(minutes=5))) == []


def test_a_schedule_without_a_tick_is_named_at_its_line():
    class Over:
        text, timezone = "over: 2025", "UTC"

        def next(self, after):
            return None

        def count(self, start, end):
            return 0

        def between(self, start, end):
            return iter(())

    problem = only(plan(Over()))
    assert problem.code == "never-fires"
    assert problem.place == Place(FILE, 4)


@pytest.mark.parametrize("schedule", ["* * * * * *", every(seconds=1)])
def test_every_second_is_named(schedule):
    assert codes(plan(schedule)) == ["every-second"]


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("*/5 * * * * *", '"0 */5 * * * *"'),
        ("* 2 * * * *", '"0 * 2 * * *"'),
        ("0,30 9 1 1 * *", '"0 0,30 9 1 1 *"'),
    ],
)
def test_a_crontab_line_with_a_star_too_many_is_named_with_what_was_meant(text, meant):
    problem = only(plan(text))
    assert problem.code == "five-fields"
    assert meant in problem.remedy


@pytest.mark.parametrize("text", ["0 */5 * * * *", "30 2 * * * *", "*/5 * * * * MON", "@hourly"])
def test_what_cannot_be_a_crontab_line_is_left_alone(text):
    assert "five-fields" not in codes(plan(text))


def test_an_hour_that_the_clocks_skip_or_repeat_is_named_once():
    problem = only(plan(cron("0 30 2 * * *", timezone="Europe/Berlin")))
    assert problem.code == "daylight-saving"
    assert "skipped in spring" in problem.reason
    assert "comes twice in autumn" in problem.reason


def test_a_function_that_asks_for_enforce_is_named_while_it_only_says_what_it_would_do():
    @job
    def destroy(ctx):
        return "gone" if ctx.enforce else "would go"

    made = dataclasses.replace(plan(), job=destroy, listed=True)
    assert codes(made) == ["dry-run"]
    assert codes(dataclasses.replace(made, enforce=True)) == []
    assert codes(dataclasses.replace(made, listed=False)) == []  # it only came with its plugin


@pytest.mark.parametrize(
    ("schedule", "timeout", "found"),
    [
        ("0 */5 * * * *", 301, True),
        ("0 */5 * * * *", 300, False),
        ("0 0 9,10,18 * * *", 3601, True),
        (every(minutes=1), 120, True),
        ("", 10**6, False),
    ],
)
def test_a_timeout_longer_than_the_shortest_time_between_two_ticks_is_named(
    schedule, timeout, found
):
    place = Place(FILE, 12)
    sources = {"timeout": (Source(timeout, "profile.yaml", place),)}
    made = plan(schedule, timeout=timedelta(seconds=timeout), sources=sources)
    assert [(p.code, p.place) for p in lint([made], 10, START)] == [("long-timeout", place)] * found
    assert codes(dataclasses.replace(made, silence=("long-timeout",))) == []


def test_retries_are_named_unless_author_or_operator_says_that_repetition_does_no_harm():
    place = Place(FILE, 12)
    sources = {"max_attempts": (Source(3, "profile.yaml", place),)}
    again = RetryPolicy(max_attempts=3)
    problem = only(plan(retry=again, sources=sources))
    assert (problem.code, problem.place) == ("retries", place)
    assert "up to 3 times" in problem.reason
    assert "repeatable: true" in problem.remedy
    said = sources | {"repeatable": (Source(False, "default"), Source(True, "config.yaml"))}
    assert codes(plan(retry=again, sources=said)) == []
    assert codes(plan(retry=again, sources=sources, silence=("retries",))) == []
    assert codes(plan()) == []


def test_a_value_that_holds_without_it_is_named_at_its_line():
    overlap = (Source("skip", "job"), Source("skip", "profile.yaml", Place(FILE, 9)))
    problem = only(plan(sources={"overlap": overlap}))
    assert problem.code == "no-effect"
    assert problem.place == Place(FILE, 9)
    assert str(problem).endswith("(remove it from profile.yaml) [no-effect]")


def test_saying_that_a_job_is_enabled_is_never_idle():
    enabled = (Source(True, "job"), Source(True, "config.yaml", Place(FILE, 9)))
    assert codes(plan(sources={"enabled": enabled})) == []


def test_a_herd_is_named_with_its_second_and_some_members():
    herd = [plan("0 0 3 * * *", f"job{n}") for n in range(12)]
    problem = only(*herd)
    assert problem.code == "herd"
    assert "12 jobs are due at the same second, 2026-03-03 03:00:00 UTC" in problem.reason
    assert "ext:job0, ext:job1, ext:job2 and 9 more" in problem.reason


def test_jobs_of_different_schedules_can_meet_in_a_herd():
    texts = ("0 0 3 * * *", "0 0 */3 * * *", "@hourly")
    plans = [plan(text, f"{n}-{i}") for i, text in enumerate(texts) for n in range(4)]
    assert codes(*plans) == ["herd"]


def test_jobs_with_a_splay_are_no_herd_and_neither_are_fewer_than_there_are_workers():
    herd = [plan("0 0 3 * * *", f"job{n}") for n in range(12)]
    splayed = [dataclasses.replace(p, splay=timedelta(minutes=5)) for p in herd]
    assert codes(*splayed) == []
    assert codes(*herd, workers=12) == []


def test_a_code_is_silenced_for_one_job():
    noisy = plan("* * * * * *")
    quiet = plan("* * * * * *", "quiet", silence=("every-second",))
    assert [p.culprit for p in lint([noisy, quiet], 10, START)] == ["ext:cleanup"]


def test_a_silenced_job_counts_in_no_herd():
    herd = [plan("0 0 3 * * *", f"job{n}", silence=("herd",)) for n in range(12)]
    assert codes(*herd) == []


def test_disabled_and_degraded_jobs_are_left_alone():
    degraded = plan("* * * * * *", problem=Problem("ext:cleanup", "broken"))
    assert codes(plan("* * * * * *", enabled=False), degraded) == []
