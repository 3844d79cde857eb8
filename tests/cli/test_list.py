from __future__ import annotations

import re
from datetime import datetime, timedelta

SHAPE = {
    "id": str,
    "extension": str,
    "name": str,
    "description": str,
    "distribution": str,
    "version": str,
    "schedule": str,
    "timezone": str,
    "enabled": bool,
    "run_on_startup": bool,
    "starts_up": bool,
    "next_tick": (str, type(None)),
    "paused": (dict, type(None)),
    "held_until": (str, type(None)),
    "last_state": (str, type(None)),
    "tags": list,
    "listed": bool,
    "enforce": bool,
    "overlap": str,
    "splay_s": float,
    "parameters": dict,
    "condition": str,
    "superseded": (dict, type(None)),
    "degraded": (str, type(None)),
}


def test_json_has_the_documented_shape(jobs):
    for job in jobs("list", "--json").json["jobs"]:
        assert job.keys() == SHAPE.keys()
        for key, kind in SHAPE.items():
            assert isinstance(job[key], kind), key


def test_json_says_what_is_in_force(jobs):
    fail, greet, off = jobs("list", "--json").json["jobs"]
    assert greet["id"] == "jobs:greet"
    assert greet["schedule"] == "0 */10 * * * *"
    assert greet["parameters"] == {"name": "world"}
    assert greet["listed"] is True
    assert greet["last_state"] is None
    assert datetime.fromisoformat(greet["next_tick"]).utcoffset() == timedelta(0)
    assert (off["enabled"], off["condition"], off["next_tick"]) == (False, "disabled", None)
    assert (fail["schedule"], fail["next_tick"], fail["listed"]) == ("", None, False)


def test_last_state_is_that_of_the_newest_run(jobs):
    jobs("run", "fail")
    assert jobs("list", "--json").json["jobs"][0]["last_state"] == "failed"


def test_piped_rows_are_whole_lines(jobs):
    answer = jobs("list")
    assert answer.code == 0
    assert re.search(
        r"^jobs:greet  +every 10 minutes, UTC  +(?:in|now).*never ran$", answer.out, re.MULTILINE
    )
    assert re.search(r"^jobs:off  +every day at 03:00, UTC  +disabled ", answer.out, re.MULTILINE)
    assert "\x1b" not in answer.out


def test_unlisted_jobs_are_marked_and_explained(jobs):
    out = jobs("list").out
    assert "jobs:fail *" in out
    assert "jobs:greet *" not in out
    assert "* not listed" in out


def test_a_tag_selects(jobs):
    listed = jobs("list", "--tag", "polite", "--json").json["jobs"]
    assert [job["id"] for job in listed] == ["jobs:greet", "jobs:off"]


def test_an_unknown_tag_is_wrong_use_and_a_near_one_is_named(jobs):
    answer = jobs("list", "--tag", "polit")
    assert answer.code == 2
    assert answer.err == "error: no job has the tag 'polit'; did you mean polite?\n"


def test_a_degraded_job_is_listed_and_explained_below(cli, degraded_project):
    answer = cli("--root", degraded_project, "infra", "jobs", "list")
    assert answer.code == 0
    assert re.search(r"^jobs:broken .*not a schedule +degraded", answer.out, re.MULTILINE)
    assert f"at {degraded_project}/jobs.py:" in answer.out.partition("Degraded")[2]


def test_json_gives_the_reason_of_a_degraded_job(cli, degraded_project):
    answer = cli("--root", degraded_project, "infra", "jobs", "list", "--json")
    job = next(job for job in answer.json["jobs"] if job["id"] == "jobs:broken")
    assert (job["condition"], job["schedule"]) == ("degraded", "not a schedule")
    assert "not a schedule" in job["degraded"]


def test_works_without_a_project(cli):
    answer = cli("infra", "jobs", "list")
    assert (answer.code, answer.out) == (
        0,
        "no jobs yet: install a plugin, or `systemprompt infra jobs init DIR`\n",
    )


def test_does_not_create_a_database(jobs, project):
    jobs("list")
    assert not (project / "var").exists()


def test_what_a_plugin_prints_at_import_is_not_among_the_json(cli, new_project):
    root = new_project(
        "print('loading')\nfrom systemprompt_jobs import job\n@job\ndef greet(): ..."
    )
    answer = cli("--root", root, "infra", "jobs", "list", "--json")
    assert [job["name"] for job in answer.json["jobs"]] == ["greet"]
    assert "loading" in answer.err


def test_passwords_in_parameters_are_masked(cli, new_project):
    root = new_project(
        "from systemprompt_jobs import job\n"
        "@job(parameters={'urls': ['postgresql://me:secret@host/db']})\n"
        "def greet(*, urls: list[str]): ..."
    )
    for command in (["list"], ["status", "greet"], ["status", "greet", "--json"]):
        assert "secret" not in cli("--root", root, "infra", "jobs", *command).out
    answer = cli("--root", root, "infra", "jobs", "list", "--json")
    assert answer.json["jobs"][0]["parameters"] == {"urls": ["postgresql://me:***@host/db"]}
