"""What a start would change, setting by setting."""

from __future__ import annotations

from systemprompt_jobs._changes import changes
from systemprompt_jobs._store.jobs import JobRow
from systemprompt_jobs.model import Change, Problem
from tests.support import START, make_plan

ROW = JobRow("ext:cleanup", "* * * * * *", "UTC", "f", START, None, "latest", 86_400)


def test_the_same_plan_changes_nothing():
    assert changes([make_plan()], {ROW.id: ROW}) == []


def test_each_setting_that_differs_is_one_change():
    row = ROW._replace(schedule="0 * * * * *", timezone="Europe/Berlin", version="1.0")
    assert changes([make_plan()], {row.id: row}) == [
        Change(row.id, "schedule", "0 * * * * *", "* * * * * *"),
        Change(row.id, "timezone", "Europe/Berlin", "UTC"),
        Change(row.id, "version", "1.0", "none"),
    ]


def test_switching_off_and_on_is_a_change():
    off = make_plan(enabled=False)
    assert changes([off], {ROW.id: ROW}) == [Change(ROW.id, "enabled", "true", "false")]
    row = ROW._replace(next_tick=None)
    assert changes([make_plan()], {row.id: row}) == [Change(ROW.id, "enabled", "false", "true")]


def test_new_and_gone_jobs_are_named():
    gone = ROW._replace(id="ext:gone")
    degraded = make_plan("broken", problem=Problem("ext:broken", "no"))
    assert changes([make_plan(), degraded], {gone.id: gone}) == [
        Change("ext:cleanup", "job", "", "new, * * * * * *"),
        Change("ext:gone", "job", "* * * * * *", "gone: nothing here provides it"),
    ]
