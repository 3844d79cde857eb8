"""Why a job will run or not, and what became of a tick, told from plan and record."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from systemprompt_jobs import job
from systemprompt_jobs._calendar import cron
from systemprompt_jobs._explain import Evidence, account, prospect, tick_at
from systemprompt_jobs._store.jobs import JobRow
from systemprompt_jobs.model import Overlap, Place, Problem, Run, Source, State, Trigger
from tests.support import START, make_plan

HOUR = timedelta(hours=1)
HERE = (("host:1:a", True),)


def plan(schedule="0 0 * * * *", **values):
    place = Place(Path("/srv/profile.yaml"), 12)
    sources = {"enabled": (Source(values.get("enabled", True), "profile.yaml", place),)}
    return dataclasses.replace(
        make_plan(schedule=schedule, enforce=True, **values), sources=sources
    )


def row(**values):
    default = {
        "id": "ext:cleanup",
        "fingerprint": "f",
        "schedule": "0 0 * * * *",
        "timezone": "UTC",
        "distribution": "ext",
        "version": "1",
        "next_tick": START + HOUR,
        "last_tick": START,
        "catch_up": "latest",
        "catchup_window": 0,
    }
    return JobRow(**(default | values))


def run(state, **values):
    default = {"id": 7, "job_id": "ext:cleanup", "trigger": Trigger.SCHEDULE, "tick": START}
    return Run(**(default | {"state": state} | values))


def will(made, **known):
    evidence = Evidence(**({"row": row(), "live": HERE} | known))
    return " ".join(prospect(made, evidence, "f", START))


def was(made, at=START, *, now=START + timedelta(minutes=5), **known):
    evidence = Evidence(**({"row": row(), "live": HERE, "oldest": START - HOUR} | known))
    return " ".join(account(made, evidence, at, now))


class TestProspect:
    def test_a_job_that_will_run_has_its_time_and_node(self):
        assert will(plan()) == "It will run next 2026-03-02 11:00:00 UTC, on host:1:a."

    def test_of_several_nodes_the_first_to_claim(self):
        said = will(plan(), live=[*HERE, ("host:2:b", True), ("host:3:c", False)])
        assert "whichever of host:1:a, host:2:b claims it first" in said

    def test_times_are_those_of_its_zone_and_utc(self):
        said = will(plan(cron("0 0 14 * * *", timezone="Europe/Berlin")))
        assert "2026-03-02 14:00:00 Europe/Berlin (13:00:00 UTC)" in said

    def test_a_degraded_job_has_its_reason(self):
        said = will(plan(problem=Problem("ext:cleanup", "its schedule is wrong")))
        assert "degraded: ext:cleanup: its schedule is wrong" in said

    def test_a_disabled_job_has_who_disabled_it(self):
        assert "disabled by profile.yaml (/srv/profile.yaml:12)" in will(plan(enabled=False))

    def test_a_job_without_schedule_runs_by_hand(self):
        assert "runs by hand" in will(plan(""))

    def test_a_pause_has_who_until_and_why(self):
        paused = row(
            paused_at=START - HOUR, paused_until=START + HOUR, by="ann", note="disk is full"
        )
        said = will(plan(), row=paused)
        assert (
            "It is paused by ann since 2026-03-02 09:00:00 UTC until 2026-03-02 11:00:00 UTC: "
            "disk is full."
        ) in said

    def test_a_pause_that_is_over_is_none(self):
        paused = row(paused_at=START - HOUR, paused_until=START)
        assert "It will run next" in will(plan(), row=paused)

    @pytest.mark.parametrize(
        ("state", "reason", "waits"),
        [
            (State.CLAIMED, "", "for a free worker of its pool 'small'."),
            (State.CLAIMED, "concurrency", "for others that its concurrency limit counts."),
            (State.DISPATCHED, "", "for the workers of its pool: none has begun it yet."),
        ],
    )
    def test_a_run_that_is_due_has_what_it_waits_for(self, state, reason, waits):
        due = run(state, reason=reason, node="host:1:a", pool="small", due=START)
        said = f"Run 7 was due 2026-03-02 10:00:00 UTC and waits on host:1:a {waits}"
        assert will(plan(), other=due).endswith(said)

    @pytest.mark.parametrize(
        ("overlap", "said"),
        [
            (Overlap.SKIP, "Ticks that come before it ends are skipped."),
            (Overlap.QUEUE, "One tick that comes before it ends waits, others are skipped."),
            (Overlap.ALLOW, "on host:1:a."),
        ],
    )
    def test_a_run_under_way_has_what_becomes_of_ticks_meanwhile(self, overlap, said):
        under_way = run(State.RUNNING, node="host:1:a")
        told = will(plan(overlap=overlap), other=under_way)
        assert "It is running now: run 7 on host:1:a." in told
        assert said in told.rpartition("run 7")[2]

    def test_a_job_without_schedule_is_running_too(self):
        under_way = run(State.RUNNING, node="host:1:a")
        assert will(plan(""), other=under_way).endswith("It is running now: run 7 on host:1:a.")

    def test_without_a_scheduler_it_says_how_to_start_one(self):
        assert "no scheduler is live" in will(plan(), live=())

    def test_schedulers_without_the_plugin_are_named(self):
        said = will(plan(), live=[("host:9:x", False)])
        assert "the plugins of host:9:x lack it" in said

    def test_another_plan_in_force_is_shown_with_its_version(self):
        said = will(plan("0 */5 * * * *"), row=row(fingerprint="other"))
        assert "another plan than this one: '0 0 * * * *' in UTC, ext 1" in said

    def test_a_start_up_run_that_lacks_the_operators_word_is_named(self):
        made = plan()
        job = dataclasses.replace(made.job, run_on_startup=True)
        assert "needs an entry with `enabled: true`" in will(dataclasses.replace(made, job=job))
        assert "at each start" in will(dataclasses.replace(made, job=job, starts_up=True))


class TestAccount:
    def test_a_run_has_its_times(self):
        done = run(
            State.SUCCEEDED,
            due=START,
            started=START + timedelta(seconds=4),
            finished=START + timedelta(seconds=6),
            created=START + timedelta(seconds=3),
            attempt=1,
            node="host:1:a",
            message="12 rows",
        )
        said = was(plan(), run=done)
        assert "The tick 2026-03-02 10:00:00 UTC is run 7: succeeded." in said
        assert "began 2026-03-02 10:00:04 UTC, 4.0 s late on host:1:a, as attempt 1" in said
        assert "claimed only 2026-03-02 10:00:03" in said
        assert "It said: 12 rows" in said

    def test_a_time_before_the_schedule_was_known_had_no_tick(self):
        said = was(plan(), row=row(last_tick=None, next_tick=START + HOUR))
        assert "No scheduler had this schedule yet at 2026-03-02 10:00:00 UTC" in said
        assert "its ticks count from 2026-03-02 11:00:00 UTC on" in said

    def test_an_overlap_names_the_run_that_was_in_the_way(self):
        other = run(State.RUNNING, id=3, started=START - HOUR)
        said = was(plan(), run=run(State.SKIPPED, reason="overlap"), other=other)
        assert "run 3, had begun 2026-03-02 09:00:00 UTC" in said

    def test_a_paused_stretch_has_its_length_and_note(self):
        stretch = run(State.SKIPPED, reason="paused", count=5, last_tick=START + 4 * HOUR)
        pause = SimpleNamespace(who="ann", note="move")
        said = was(plan(), run=stretch, paused=pause)
        assert "a stretch of 5 ticks" in said
        assert "Paused by ann: move." in said

    @pytest.mark.parametrize(
        ("nodes", "reason"),
        [
            ((), "No scheduler is known to have been up at that time."),
            ([("host:9:x", False)], "The schedulers that were up lacked the job: host:9:x."),
            (HERE, "Up were host:1:a"),
        ],
    )
    def test_a_missed_tick_has_who_was_up(self, nodes, reason):
        assert reason in was(plan(), run=run(State.MISSED), nodes=nodes)

    @pytest.mark.parametrize(
        ("state", "reason", "said"),
        [
            (State.LOST, "", "Its node died or was cut off"),
            (State.SKIPPED, "catch-up", "A tick that was caught up ran instead."),
            (State.SKIPPED, "job", "The job itself said that there was nothing to do."),
            (State.SKIPPED, "clock", "A clock had been wrong"),
        ],
    )
    def test_each_other_end_has_its_reason(self, state, reason, said):
        assert said in was(plan(), run=run(state, reason=reason))

    def test_a_job_that_no_scheduler_knew_has_no_record(self):
        assert "no scheduler knew the job" in was(plan(), row=None)

    def test_a_tick_ahead_is_due(self):
        assert "lies ahead" in was(plan(), START + HOUR)

    def test_a_tick_that_nobody_claimed_yet_says_why(self):
        late = START + HOUR
        assert "No scheduler is live" in was(plan(), late, now=late + HOUR, live=())
        assert "lack the job" in was(plan(), late, now=late + HOUR, live=[("x", False)])
        disabled = was(plan(enabled=False), late, now=late + HOUR)
        assert "disabled by profile.yaml (/srv/profile.yaml:12): it has no due ticks" in disabled
        paused = row(paused_at=START, by="ann", note="")
        said = was(plan(), late, now=late + HOUR, row=paused)
        assert "It is paused by ann since 2026-03-02 10:00:00 UTC." in said
        over = row(paused_at=START, paused_until=late)
        assert "paused" not in was(plan(), late, now=late + HOUR, row=over)

    def test_a_tick_older_than_the_history(self):
        assert "older than the history" in was(plan(), START - 2 * HOUR)

    def test_a_gap_in_the_record_is_admitted(self):
        said = was(plan(), START, oldest=START - HOUR)
        assert "Nothing is found" in said
        assert "or its row was pruned" in said

    def test_a_time_without_a_tick_has_its_neighbours(self):
        said = was(plan(), START + timedelta(minutes=30), now=START + 9 * HOUR)
        assert "the nearest are 2026-03-02 10:00:00 UTC and 2026-03-02 11:00:00 UTC" in said

    def test_a_time_that_the_clocks_skipped_is_explained(self):
        made = plan(cron("0 0 5 * * *", timezone="Europe/Berlin"))
        said = was(made, datetime(2026, 3, 29, 1, 30, tzinfo=UTC), now=START + 999 * HOUR)
        assert "The clocks in Europe/Berlin were changed around that time." in said


def test_a_time_stands_for_the_tick_of_its_minute():
    made = plan()
    assert tick_at(made, START) == START
    assert tick_at(made, START + timedelta(seconds=59)) == START
    assert tick_at(made, START + timedelta(seconds=61)) is None
    assert tick_at(plan(""), START) is None


@job(schedule="0 0 * * * *")
def long(): ...


@job(schedule="0 30 * * * *")
def short(): ...


def test_a_tick_that_finds_its_pool_full_is_explained(scheduler):
    scheduler.add(long, short)
    entries = [{"extension": "tests", "job": name, "enabled": True} for name in ("long", "short")]
    scheduler.configure(workers=1, jobs=entries)
    scheduler.takes("long", "45m")
    scheduler.at("2026-01-01 09:59")
    scheduler.advance("40m")
    said = scheduler.runtime.explain("short").sentences
    assert said[1].startswith("Run 2 was due 2026-01-01 10:30:00 UTC and waits on ")
    assert said[1].endswith(" for a free worker of its pool 'default'.")
