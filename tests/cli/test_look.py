from __future__ import annotations

from datetime import timedelta

import pytest

from systemprompt_jobs.builtin.cli._stats import sparkline


@pytest.fixture
def ran(jobs):
    """Make a history of three runs: greet, fail, greet."""
    for name in ("greet", "fail", "greet"):
        jobs("run", name)
    return jobs


def ids(answer):
    return [run["id"] for run in answer.json["runs"]]


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (["--tag", "rude"], [2]),
        (["--tag", "rude", "--job", "greet"], []),
        (["--since", "1h"], [3, 2, 1]),
        (["--since", "2100-01-01"], []),
        (["--until", "2000-01-01T00:00+02:00"], []),
        (["--grep", "BROKE"], [2]),
        (["--node", "nowhere"], []),
        (["--before", "3"], [2, 1]),
    ],
)
def test_history_by_filters(ran, options, found):
    assert ids(ran("history", "--json", *options)) == found


def test_a_full_page_says_how_to_see_the_next(ran):
    assert ran("history", "-n", "2").out.splitlines()[-1] == "older ones: --before 2"
    assert "older ones" not in ran("history").out


def test_a_tag_that_no_job_has_is_wrong_use(jobs):
    answer = jobs("history", "--tag", "rud")
    assert (answer.code, answer.err) == (2, "error: no job has the tag 'rud'; did you mean rude?\n")


@pytest.mark.parametrize("text", ["yesterday", "99999999w"])
def test_a_wrong_time_is_wrong_use(jobs, text):
    answer = jobs("history", "--since", text)
    assert answer.code == 2
    assert f"--since: {text!r} is no time: write 2026-03-29T01:00, or 2h" in answer.err


def test_stats_as_json_have_the_documented_shape(ran):
    greet, = ran("stats", "greet", "--json").json["jobs"]  # fmt: skip
    assert greet.keys() == {
        *("job", "runs", "counts", "success_rate", "took_p50_s", "took_p95_s"),
        *("late_p50_s", "late_p95_s", "last"),
    }
    assert (greet["job"], greet["runs"], greet["success_rate"]) == ("jobs:greet", 2, 1.0)
    assert greet["late_p50_s"] is None, "runs by hand are never late"


def test_stats_show_each_job_that_has_a_history(ran):
    rows = [line.split() for line in ran("stats").out.splitlines()[1:]]
    assert [row[:3] for row in rows] == [["jobs:fail", "1", "0%"], ["jobs:greet", "2", "100%"]]
    assert rows[0][-1] == "✗"


def test_stats_without_a_history_say_so(jobs):
    assert jobs("stats").out == "no runs yet\n"


def test_a_sparkline_shows_times_and_what_went_wrong():
    second = timedelta(seconds=1)
    runs = (("succeeded", 8 * second), ("failed", second), ("succeeded", 0 * second),
            ("missed", None), ("succeeded", 4 * second))  # fmt: skip
    assert sparkline(runs) == "█✗▁!▅"
    assert sparkline((("succeeded", 0 * second),)) == "▁"


def test_the_audit_says_who_ran_and_pruned(ran):
    ran("prune", "--older-than", "5d", "--keep", "3")
    entries = ran("audit", "--json").json["entries"]
    assert [entry["action"] for entry in entries] == ["prune", "run", "run", "run"]
    assert entries[0].keys() == {"id", "at", "who", "action", "subject", "note"}
    assert entries[0]["note"].endswith("but 3 per job")
    assert ran("audit", "--before", "2", "-n", "5").out.count("jobs:greet") == 1


def test_an_empty_audit_says_so(jobs):
    assert jobs("audit").out == "nobody did anything by hand yet\n"


def test_nodes_that_live_and_that_left(started, jobs, project):
    assert jobs("nodes").out.startswith("no scheduler is live")
    served = started("--root", project, "infra", "jobs", "serve")
    served.line_with("scheduler_started")
    (live,) = jobs("nodes", "--json").json["nodes"]
    assert live.keys() == {
        *("id", "state", "kind", "version", "workers", "started", "heartbeat", "clock_offset_s"),
        *("jobs", "lacks", "strays", "problem"),
    }
    assert (live["state"], live["workers"], live["jobs"], live["lacks"]) == ("live", 10, 3, [])
    served.popen.terminate()
    served.end()
    assert " left " in jobs("nodes").out
    assert jobs("nodes", "--gone", "0s", "--json").json == {"nodes": []}
