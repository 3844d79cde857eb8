from __future__ import annotations

import pytest


def test_the_answer_and_every_value_with_what_it_hides(jobs):
    answer = jobs("explain", "greet")
    assert answer.code == 0
    lines = [line.split() for line in answer.out.splitlines()]
    assert ["enabled", "true", "config.yaml:5"] in lines
    assert ["over", "true", "default"] in lines
    assert "no scheduler is live" in answer.out


def test_a_tick_that_nobody_claimed(jobs):
    jobs("run", "greet")
    answer = jobs("explain", "greet", "--at", "2026-01-01T00:10:00", "--json")
    sentences = answer.json["sentences"]
    assert "The tick 2026-01-01 00:10:00 UTC has not been claimed yet." in sentences
    assert "No scheduler is live; when one starts, catch_up decides." in sentences
    assert answer.json["run"] is None


def test_a_time_that_cannot_be_read_is_wrong_use(jobs):
    answer = jobs("explain", "greet", "--at", "noon")
    assert answer.code == 2
    assert "--at noon: write a time such as" in answer.err


def test_an_unknown_job_is_wrong_use_with_a_near_name(jobs):
    answer = jobs("explain", "gret")
    assert answer.code == 2
    assert "did you mean greet" in answer.err


@pytest.mark.parametrize("arguments", [["show"], ["show", "--json"], ["schema"]])
def test_the_configuration_can_be_shown(jobs, arguments):
    assert jobs("config", *arguments).code == 0


def test_each_setting_has_its_source(jobs, project):
    answer = jobs("config", "show", "--json").json
    assert answer["settings"]["workers"] == {
        "value": 10,
        "layer": "default",
        "file": None,
        "line": None,
    }
    assert answer["jobs"]["jobs:greet"]["enabled"]["line"] == 5
    assert "jobs:greet enabled" in jobs("config", "show").out


def test_the_time_zone_of_all_jobs_is_shown_once(cli, new_project):
    root = new_project(
        config="scheduler:\n  local_plugins: [jobs.py]\n  timezone: Europe/Berlin\n"
        "  jobs:\n    - {extension: jobs, job: fail, timezone: Asia/Tokyo}\n"
    )
    shown = cli("--root", root, "infra", "jobs", "config", "show").out
    zones = [line.split()[:-1] for line in shown.splitlines() if "timezone" in line]
    assert zones == [["timezone", "Europe/Berlin"], ["jobs:fail", "timezone", "Asia/Tokyo"]]


def test_passwords_are_masked(cli, new_project):
    root = new_project(
        config="scheduler:\n  local_plugins: [jobs.py]\n"
        "  database: postgresql://ann:hunter2@localhost/jobs\n"
    )
    for options in ([], ["--json"]):
        answer = cli("--root", root, "infra", "jobs", "config", "show", *options)
        assert "hunter2" not in answer.out
        assert "ann:***@localhost" in answer.out


@pytest.mark.parametrize("command", ["explain", "status"])
def test_values_are_shown_as_a_file_has_them(cli, new_project, command):
    entry = "{extension: jobs, job: greet, concurrency: {key: db, limit: 2}, retry_on: [OSError]}"
    root = new_project(config=f"scheduler:\n  local_plugins: [jobs.py]\n  jobs: [{entry}]\n")
    out = cli("--root", root, "infra", "jobs", command, "greet").out
    for shown in ('{"key": "db", "limit": 2}', '["OSError"]', " false ", "every 10 minutes"):
        assert shown in out
    assert "None" not in out + cli("--root", root, "infra", "jobs", command, "fail").out
