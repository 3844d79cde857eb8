from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from systemprompt_jobs.builtin.cli._runs import STATES, show_runs
from systemprompt_jobs.model import Run, State, Trigger

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


def ids(answer):
    return [run["id"] for run in answer.json["runs"]]


@pytest.fixture
def ran(jobs):
    """Make a history of three runs: greet, fail, greet."""
    for name in ("greet", "fail", "greet"):
        jobs("run", name)
    return jobs


def test_newest_first(ran):
    assert ids(ran("history", "--json")) == [3, 2, 1]


def test_json_has_the_documented_shape(ran):
    run = ran("history", "--json").json["runs"][1]
    assert run.keys() == {
        *(
            "id",
            "job",
            "state",
            "reason",
            "trigger",
            "tick",
            "due",
            "last_tick",
            "count",
            "attempt",
            "max_attempts",
        ),
        *("node", "parameters", "enforce", "created", "started", "finished", "duration_s"),
        *("message", "processed", "failed", "error", "distribution", "version"),
        *("parent", "progress"),
    }
    assert run["error"] == "ValueError: it [red]broke[/red] \x1b[2J\nin two lines"
    assert run["started"].endswith("+00:00")
    assert run["duration_s"] >= 0


def test_at_most_so_many(ran):
    assert ids(ran("history", "-n", "2", "--json")) == [3, 2]


@pytest.mark.parametrize("name", ["fail", "jobs:fail"])
def test_one_job(ran, name):
    assert ids(ran("history", "--job", name, "--json")) == [2]


def test_states(ran):
    assert ids(ran("history", "--state", "failed", "--json")) == [2]
    both = ran("history", "--state", "failed", "--state", "succeeded", "--json")
    assert ids(both) == [3, 2, 1]


@pytest.mark.parametrize("name", ["fail", "jobs:fail"])
def test_a_job_that_is_gone_keeps_its_history(ran, project, name):
    (project / "jobs.py").write_text("from systemprompt_jobs import job\n@job\ndef greet(): ...\n")
    assert ids(ran("history", "--job", name, "--json")) == [2]


def test_an_unknown_job_is_wrong_use(ran):
    answer = ran("history", "--job", "fial")
    assert answer.code == 2
    assert answer.err == (
        "error: no job 'fial' is installed or in the history; did you mean fail?\n"
    )


def test_an_unknown_state_is_wrong_use_and_a_near_one_is_named(ran):
    answer = ran("history", "--state", "faild")
    assert answer.code == 2
    assert "there is no state 'faild'; did you mean failed?" in answer.err


def test_none_at_most_is_wrong_use(ran):
    assert ran("history", "-n", "0").code == 2


def test_an_empty_history_says_so(jobs):
    assert jobs("history").out == "no runs yet\n"
    assert jobs("history", "--state", "lost").out == "no runs of this kind yet\n"
    assert jobs("history", "--json").json == {"runs": []}


def test_rows_are_whole_lines_where_no_terminal_reads(ran):
    header, first, second, _ = ran("history").out.splitlines()
    assert header.split("  ")[0] == "RUN"
    assert first.split()[:4] == ["3", "jobs:greet", "✓", "succeeded"]
    assert second.endswith("  ValueError: it [red]broke[/red] \\x1b[2J in two lines")


def row(capsys, **values):
    run = Run(id=7, job_id="a:b", created=NOON, **values)
    show_runs([run], NOON)
    return capsys.readouterr().out.splitlines()[1]


def test_a_missed_stretch_shows_count_and_span(capsys):
    line = row(
        capsys,
        state=State.MISSED,
        trigger=Trigger.SCHEDULE,
        tick=NOON - timedelta(days=2),
        last_tick=NOON - timedelta(hours=1),
        count=120,
    )
    assert line == "7    a:b  ! missed x120  04-29 12:00 to 11:00:00"


def test_a_skipped_run_says_why(capsys):
    line = row(capsys, state=State.SKIPPED, trigger=Trigger.MANUAL, reason="overlap")
    assert line == "7    a:b  - skipped: overlap  12:00:00 manual"


def test_every_state_has_its_symbol():
    assert STATES.keys() == {*State, "retrying"}
    shared = {"claimed", "timed_out"}  # with pending and failed
    assert len({symbol for symbol, _ in STATES.values()}) == len(STATES.keys() - shared)


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ({"state": State.PENDING, "attempt": 1}, "↻ retrying 1/3"),
        ({"state": State.CLAIMED, "attempt": 2}, "↻ retrying 2/3"),
        ({"state": State.SUCCEEDED, "attempt": 2}, "✓ succeeded 2/3"),
        ({"state": State.PENDING, "reason": "overlap"}, "· pending: overlap"),
    ],
)
def test_attempts_show_where_there_are_several(capsys, values, shown):
    line = row(capsys, trigger=Trigger.MANUAL, max_attempts=3, **values)
    assert line == f"7    a:b  {shown}  12:00:00 manual"


def test_the_version_that_each_run_was_of_is_shown_instead_of_what_it_said(capsys):
    run = Run(
        *(7, "shop:sync", Trigger.SCHEDULE, State.SUCCEEDED, NOON),
        distribution="acme-shop",
        version="1.1.0",
        message="copied",
    )
    show_runs([run], NOON, versions=True)
    title, row = capsys.readouterr().out.splitlines()
    assert title.endswith("FROM")
    assert row.endswith("acme-shop 1.1.0")
    assert "copied" not in row


def test_versions_are_an_option_and_those_of_a_projects_own_plugins_are_local(ran):
    assert ran("history", "--versions").out.splitlines()[1].endswith("  local")
