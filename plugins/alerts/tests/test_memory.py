"""What is worth saying, and what has been said already."""

from __future__ import annotations

from datetime import timedelta

import pytest
from systemprompt_jobs_alerts._alert import Alert
from systemprompt_jobs_alerts._memory import Memory

from tests.support import START

HOUR = 3600


@pytest.fixture
def memory():
    return Memory(timedelta(days=1), timedelta(minutes=2))


def alert(kind="failed", job="e:a", minutes=0):
    return Alert(kind, f"{job} {kind}", START + timedelta(minutes=minutes), job, "why")


def test_one_alert_per_job_and_kind_until_it_recovers(memory):
    assert memory.happened(alert(), 0) == [alert()]
    assert memory.happened(alert(minutes=1), 60) == []
    assert memory.happened(alert("lost"), 60) == [alert("lost")]
    assert memory.happened(alert(job="e:b"), 60) == [alert(job="e:b")]
    memory.succeeded("e:a", START, 90)
    assert memory.happened(alert(minutes=2), 120) == [alert(minutes=2)]
    assert memory.happened(alert(job="e:b"), 120) == []


def test_the_first_success_is_the_recovery_and_says_what_was(memory):
    for minute in range(3):
        memory.happened(alert(minutes=minute), 60 * minute)
    memory.happened(alert("lost", minutes=3), 180)
    (recovered,) = memory.succeeded("e:a", START, 240)
    assert (recovered.kind, recovered.job) == ("recovered", "e:a")
    assert recovered.text == (
        "e:a succeeds again\n3 times failed, lost since 2026-03-02 10:00:00 UTC"
    )
    assert memory.succeeded("e:a", START, 300) == []


def test_a_success_out_of_the_blue_is_not_worth_a_word(memory):
    assert memory.succeeded("e:a", START, 0) == []


def test_missed_ticks_are_over_with_a_success_and_not_recovered_from(memory):
    assert memory.happened(alert("missed"), 0)
    assert memory.happened(alert("missed"), 0) == []
    assert memory.succeeded("e:a", START, 1) == []
    assert memory.happened(alert("missed"), 2)


def test_what_goes_on_is_told_again_after_a_while_with_how_often_it_was(memory):
    memory.happened(alert(), 0)
    memory.happened(alert(minutes=5), 300)
    assert memory.repeats(24 * HOUR - 1) == []
    (again,) = memory.repeats(24 * HOUR)
    assert again.subject == "still: e:a failed"
    assert again.details == "2 times failed since 2026-03-02 10:00:00 UTC\nwhy"
    assert memory.repeats(48 * HOUR - 1) == []
    assert len(memory.repeats(48 * HOUR)) == 1


def test_with_a_repeat_of_zero_nothing_is_told_again():
    memory = Memory(timedelta(0), timedelta(0))
    memory.happened(alert(), 0)
    assert memory.repeats(1e9) == []


def test_what_an_earlier_process_has_told_is_not_told_again_and_its_recovery_is(memory):
    memory.remember(alert(), 0)
    assert memory.happened(alert(minutes=1), 60) == []
    assert len(memory.succeeded("e:a", START, 90)) == 1


def test_a_job_is_overdue_from_its_last_success_until_it_is_told(memory):
    memory.watch({"e:a": timedelta(hours=26), "e:b": timedelta(hours=1)}, 100 * HOUR)
    memory.last_success("e:a", 90 * HOUR)
    assert memory.overdue(100.9 * HOUR) == {}
    assert memory.overdue(101 * HOUR) == {"e:b": HOUR}
    memory.happened(alert("no_success", "e:b"), 101 * HOUR)
    assert memory.overdue(116 * HOUR) == {"e:a": 26 * HOUR}


def test_a_success_that_was_seen_is_not_made_older_by_the_history(memory):
    memory.watch({"e:a": timedelta(hours=1)}, 0)
    memory.succeeded("e:a", START, 2 * HOUR)
    memory.last_success("e:a", 1 * HOUR)
    assert memory.overdue(2.9 * HOUR) == {}
    assert memory.overdue(3 * HOUR) == {"e:a": HOUR}


def outage(memory, mono):
    memory.database_gone(Alert("database", "gone", START, details="why"), mono)


def test_an_outage_is_told_once_when_it_lasts_and_so_is_its_end(memory):
    outage(memory, 0)
    assert memory.database_lasting(119) == []
    assert [a.subject for a in memory.database_lasting(120)] == ["gone"]
    assert memory.database_lasting(180) == []
    (back,) = memory.database_back(START, timedelta(seconds=200))
    assert (back.kind, back.subject) == ("recovered", "the database is back after 200 s")
    assert memory.database_back(START, timedelta(seconds=200)) == []


def test_a_short_outage_is_not_told(memory):
    outage(memory, 0)
    assert memory.database_back(START, timedelta(seconds=60)) == []
    assert memory.database_lasting(500) == []
    outage(memory, 500)
    assert memory.database_lasting(619) == []


def test_only_jobs_are_asked_of_the_history(memory):
    memory.happened(alert(minutes=3), 0)
    memory.happened(alert("lost", minutes=1), 0)
    outage(memory, 0)
    memory.database_lasting(200)
    assert memory.troubled() == {"e:a": START + timedelta(minutes=3)}
