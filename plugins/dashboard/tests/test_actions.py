"""What operators do by the forms, and what it leaves behind."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest

from plugins.dashboard.tests.conftest import csrf


def act(operator, job, what, **form):
    return operator.post(f"/jobs/{job}/{what}", data={"csrf": csrf(operator), **form})


def number_of(answer):
    return int(answer.headers["location"].rpartition("/")[2])


def test_run_now_hands_the_job_to_a_scheduler_and_leads_to_its_run(operator, runtime):
    number = number_of(act(operator, "jobs:greet", "run"))
    text = operator.get(f"/runs/{number}").text
    assert f"jobs:greet runs as run {number}" in text
    assert "pending" in text
    assert runtime.find_run(number).trigger == "manual"
    newest = runtime.audit(limit=1)[0]
    assert (newest.action, newest.subject, newest.who) == ("run", "jobs:greet", "dashboard:ann")


def test_a_run_that_waits_is_cancelled_at_once_with_a_note(operator, runtime):
    number = number_of(act(operator, "jobs:greet", "run"))
    form = {"csrf": csrf(operator), "note": "not now"}
    assert operator.post(f"/runs/{number}/cancel", data=form).status_code == 303
    run = runtime.find_run(number)
    assert (run.state, run.message) == ("cancelled", "cancelled by dashboard:ann: not now")
    assert f"run {number} is cancelled" in operator.get(f"/runs/{number}").text
    newest = runtime.audit(limit=1)[0]
    assert (newest.action, newest.who) == ("cancel", "dashboard:ann")
    assert operator.post(f"/runs/{number}/cancel", data=form).status_code == 400


def test_a_run_is_repeated_with_its_parameters(operator, runtime):
    old = runtime.history(job="jobs:greet", limit=1)[0]
    answer = operator.post(f"/runs/{old.id}/retry", data={"csrf": csrf(operator)})
    new = runtime.find_run(number_of(answer))
    assert (new.parent, new.parameters, new.state) == (old.id, old.parameters, "pending")
    assert f'repeats <a href="/runs/{old.id}"' in operator.get(f"/runs/{new.id}").text
    assert runtime.audit(limit=1)[0].action == "retry"
    again = operator.post(f"/runs/{new.id}/retry", data={"csrf": csrf(operator)})
    assert again.status_code == 400
    assert "it has not ended yet" in again.text


def test_a_message_is_said_once(operator):
    act(operator, "jobs:slow", "pause")
    assert "jobs:slow is paused" in operator.get("/").text
    assert "jobs:slow is paused" not in operator.get("/").text


def test_a_pause_has_a_note_and_an_end_and_can_be_ended(operator, runtime):
    act(operator, "jobs:slow", "pause", until="2h", note="the disk is full")
    pause = runtime.pauses()["jobs:slow"]
    assert (pause.note, pause.who) == ("the disk is full", "dashboard:ann")
    assert timedelta(minutes=119) < pause.until - datetime.now(UTC) <= timedelta(hours=2)
    text = operator.get("/jobs/jobs:slow").text
    assert re.search(r"by dashboard:ann since .+ until .+: the disk is full", text)
    act(operator, "jobs:slow", "resume")
    assert "jobs:slow" not in runtime.pauses()
    entries = runtime.audit(limit=2)
    assert [(entry.action, entry.who) for entry in entries] == [
        ("resume", "dashboard:ann"),
        ("pause", "dashboard:ann"),
    ]


@pytest.mark.parametrize(
    ("until", "said"),
    [("soon", "write a time such as"), ("2020-01-01T00:00", "would be over already")],
)
def test_a_wrong_end_is_named_and_pauses_nothing(operator, runtime, until, said):
    answer = act(operator, "jobs:slow", "pause", until=until)
    assert answer.status_code == 400
    assert said in answer.text
    assert "jobs:slow" not in runtime.pauses()


def test_a_degraded_job_is_not_run(operator):
    answer = act(operator, "jobs:broken", "run")
    assert answer.status_code == 400
    assert "is degraded" in answer.text


def test_a_job_that_is_not_there_is_not_found(operator):
    assert act(operator, "jobs:nope", "run").status_code == 404
    assert act(operator, "jobs:nope", "pause").status_code == 404


def several(operator, query="", *jobs, **form):
    return operator.post(f"/several?{query}", data={"csrf": csrf(operator), "job": jobs, **form})


def test_several_jobs_are_paused_and_resumed_together(operator, runtime):
    answer = several(operator, "", "jobs:slow", "jobs:fail", act="pause", until="2h", note="move")
    assert answer.status_code == 303
    assert "paused: jobs:slow, jobs:fail" in operator.get(answer.headers["location"]).text
    pauses = runtime.pauses()
    assert {pauses[name].note for name in ("jobs:slow", "jobs:fail")} == {"move"}
    several(operator, "", "jobs:slow", "jobs:fail", act="resume")
    assert pauses.keys() - runtime.pauses().keys() == {"jobs:slow", "jobs:fail"}
    assert {entry.who for entry in runtime.audit(limit=4)} == {"dashboard:ann"}


def test_all_jobs_of_a_tag_are_paused_whatever_is_checked(operator, runtime):
    before = runtime.pauses().keys()
    several(operator, "tag=polite", "jobs:slow", act="pause", which="found")
    assert runtime.pauses().keys() - before == {"jobs:greet"}


def test_several_are_chosen_by_the_forms_of_the_page_by_operators_only(operator, client):
    text = operator.get("/?tag=a%26b").text
    assert 'name="job" value="jobs:greet" form="several"' in text
    assert 'action="/several?q=&amp;tag=a%26b&amp;only=all&amp;page=1"' in text
    assert "/several" not in client.get("/").text
    assert client.post("/several", data={"job": "jobs:slow"}).status_code == 403
    answer = several(operator, act="pause")
    assert (answer.status_code, "no job is chosen" in answer.text) == (400, True)
