"""`pause`, `resume` and `reset-clock`, as an operator uses them."""

from __future__ import annotations

import os
import sqlite3
from datetime import UTC, datetime, timedelta

import pytest

PAUSE = {"job", "since", "until", "note", "who"}


def query(project, sql, *values):
    connection = sqlite3.connect(project / "var/jobs.db")
    with connection:
        rows = connection.execute(sql, values).fetchall()
    connection.close()
    return rows


def listed(jobs, id_="jobs:greet"):
    return next(job for job in jobs("list", "--json").json["jobs"] if job["id"] == id_)


def row(answer, id_="jobs:greet"):
    return next(line for line in answer.out.splitlines() if line.startswith(id_))


def test_a_pause_is_confirmed_in_one_line_and_shown_wherever_the_job_is(jobs, monkeypatch):
    monkeypatch.setenv("LOGNAME", "ada")
    answer = jobs("pause", "greet", "--note", "the printer burns")
    assert (answer.code, answer.out) == (0, "jobs:greet is paused until it is resumed\n")
    assert "  paused  " in row(jobs("list"))
    status = jobs("status").out
    assert f"resumed      ada@{os.uname().nodename}  the printer burns" in status
    assert "Next\n" not in status
    one = jobs("status", "greet").out
    assert f"until it is resumed (UTC), by ada@{os.uname().nodename}: the printer burns" in one
    assert "Next ticks" not in one


def test_a_pause_as_json_has_the_documented_shape_everywhere(jobs):
    (pause,) = jobs("pause", "greet", "--until", "2h", "--json").json["pauses"]
    assert pause.keys() == PAUSE
    assert (pause["job"], pause["note"]) == ("jobs:greet", "")
    assert listed(jobs)["paused"] == pause
    assert jobs("status", "--json").json["paused"] == [pause]
    assert jobs("status", "greet", "--json").json["job"]["paused"] == pause


def test_with_an_end_the_next_tick_is_the_first_one_after_it(jobs):
    end = datetime.now(UTC) + timedelta(hours=2)
    jobs("pause", "greet", "--until", "2h")
    job = listed(jobs)
    assert end <= datetime.fromisoformat(job["next_tick"]) < end + timedelta(minutes=11)
    assert "  paused, in " in row(jobs("list"))
    assert jobs("status", "greet", "--json").json["job"]["next_ticks"][0] == job["next_tick"]


@pytest.mark.parametrize("text", ["2030-03-29T01:00", "2030-03-29T00:00+01:00"])
def test_an_end_without_an_offset_is_in_the_zone_of_the_scheduler(cli, new_project, text):
    root = new_project(
        config="scheduler: {local_plugins: [jobs.py], timezone: Europe/Helsinki}",
    )
    answer = cli(*("--root", root, "infra", "jobs", "pause", "greet", "--json"), *("--until", text))
    assert answer.json["pauses"][0]["until"] == "2030-03-28T23:00:00+00:00"


def test_pausing_again_says_so_and_changes_the_end(jobs):
    jobs("pause", "greet", "--note", "one")
    answer = jobs("pause", "greet", "--until", "90s", "--note", "two")
    assert answer.out.startswith("jobs:greet was paused already, since 20")
    assert "; now until 20" in answer.out
    assert answer.out.endswith(" UTC (in 1 min)\n")
    assert listed(jobs)["paused"]["note"] == "two"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("soon", "error: --until soon: write a time such as 2026-03-29T01:00 or a duration"),
        ("2020-01-01", "error: a pause until 2020-01-01 00:00:00+00:00 would be over already"),
        ("0s", "error: a pause until 0:00:00 would be over already"),
    ],
)
def test_an_end_that_is_none_is_wrong_use_and_nothing_is_paused(jobs, text, said):
    answer = jobs("pause", "greet", "--until", text)
    assert (answer.code, answer.err[: len(said)]) == (2, said)
    assert listed(jobs)["paused"] is None


@pytest.mark.parametrize("command", ["pause", "resume", "reset-clock"])
def test_no_job_or_an_unknown_one_is_wrong_use(jobs, command):
    assert jobs(command).err.startswith("error: which jobs? name some, or say --all")
    assert jobs(command).code == 2
    answer = jobs(command, "grete")
    assert answer.code == 2
    assert "did you mean greet" in answer.err


def test_resume_says_which_jobs_go_on_and_which_were_not_paused(jobs):
    jobs("pause", "greet")
    answer = jobs("resume", "greet", "fail")
    assert (answer.code, answer.out) == (0, "jobs:greet is resumed\n")
    assert answer.err == "jobs:fail is not paused\n"
    assert listed(jobs)["paused"] is None
    assert jobs("resume", "--all").out == "no job is paused\n"


def test_all_and_tags_choose_jobs_and_the_audit_names_each(jobs, project):
    assert jobs("pause", "--tag", "polite").out.count("is paused") == 2
    assert jobs("pause", "--all", "greet").out.count("paused") == 3
    assert jobs("resume", "--tag", "polite", "--json").json == {
        "resumed": ["jobs:greet", "jobs:off"]
    }
    assert jobs("resume", "--all", "--note", "done", "--json").json == {"resumed": ["jobs:fail"]}
    assert query(project, "SELECT action, subject, note FROM jobs_audit WHERE id > 5") == [
        ("resume", "jobs:greet", ""),
        ("resume", "jobs:off", ""),
        ("resume", "jobs:fail", "done"),
    ]


def test_a_paused_job_runs_by_hand_and_the_command_says_so(jobs):
    jobs("pause", "greet")
    answer = jobs("run", "greet")
    assert answer.code == 0
    assert "✓ succeeded  jobs:greet" in answer.out
    assert answer.err.startswith("jobs:greet is paused; run by hand all the same\n")


def test_a_sweep_leaves_paused_jobs_out(jobs):
    jobs("pause", "fail")
    answer = jobs("run", "--all", "--json")
    assert (answer.code, [run["job"] for run in answer.json["runs"]]) == (0, ["jobs:greet"])
    assert "left out, paused: jobs:fail\n" in answer.err


def test_a_job_that_is_not_installed_any_more_is_paused_shown_and_resumed(jobs, project):
    jobs("run", "greet")
    (project / "jobs.py").write_text("from systemprompt_jobs import job\n@job\ndef other(): ...\n")
    (project / "services/scheduler/config.yaml").write_text("scheduler: {local_plugins: [jobs.py]}")
    assert jobs("pause", "greet").out == "jobs:greet is paused until it is resumed\n"
    assert [pause["job"] for pause in jobs("status", "--json").json["paused"]] == ["jobs:greet"]
    assert jobs("resume", "--all").out == "jobs:greet is resumed\n"


def test_hooks_of_the_projects_plugins_see_it_in_the_command(cli, new_project, tmp_path):
    root = new_project(
        "from pathlib import Path\n"
        "from systemprompt_jobs import hookimpl, job\n"
        f"seen = Path({str(tmp_path / 'seen')!r})\n"
        "@job(schedule='@daily')\n"
        "def greet(): ...\n"
        "@hookimpl\n"
        "def job_paused(job_id, note): seen.write_text(f'{job_id} {note}')\n"
        "@hookimpl\n"
        "def job_resumed(job_id, note): seen.write_text(f'{job_id} on {note}')\n",
        "scheduler: {local_plugins: [jobs.py]}",
    )
    cli("--root", root, "infra", "jobs", "pause", "greet", "--note", "why")
    assert (tmp_path / "seen").read_text() == "jobs:greet why"
    cli("--root", root, "infra", "jobs", "resume", "greet", "--note", "well")
    assert (tmp_path / "seen").read_text() == "jobs:greet on well"


def test_a_running_scheduler_respects_a_pause_and_notices_its_end(started, jobs, project):
    (project / "jobs.py").write_text(
        "from systemprompt_jobs import job\n"
        "@job(schedule='* * * * * *', run_on_startup=True)\n"
        "def greet(): ...\n"
    )
    jobs("pause", "greet")
    served = started("--root", project, "--log-format", "json", "infra", "jobs", "serve")
    assert '"reason": "paused"' in served.line_with("tick_skipped")  # its start-up run
    jobs("pause", "greet", "--until", "1s")
    served.line_with("job_resumed")
    served.line_with("run_started")
    jobs("pause", "greet")
    jobs("resume", "greet")
    served.line_with("run_started")
    states = [run["state"] for run in jobs("history", "--json", "-n", "99").json["runs"]]
    assert not {*states} & {"failed", "timed_out", "cancelled", "lost"}


@pytest.fixture
def ahead(jobs, project):
    """Have a clock settle the job's ticks up to the year 2037."""
    jobs("pause", "greet")
    jobs("resume", "greet")
    year_2037 = 2_114_380_800_000_000
    query(project, "UPDATE jobs_job SET last_tick = ?, next_tick = ?", year_2037, year_2037)


@pytest.mark.usefixtures("ahead")
def test_a_job_that_a_wrong_clock_holds_is_shown_with_the_remedy(jobs):
    assert "  held: clock  " in row(jobs("list"))
    remedy = "systemprompt infra jobs reset-clock jobs:greet"
    for answer in (jobs("list"), jobs("status"), jobs("status", "greet")):
        assert "its ticks are settled up to 2037-01-01 00:00:00 UTC" in answer.out
        assert remedy in answer.out
    assert listed(jobs)["held_until"] == "2037-01-01T00:00:00+00:00"
    assert jobs("status", "--json").json["held"] == [
        {"job": "jobs:greet", "until": "2037-01-01T00:00:00+00:00"}
    ]


@pytest.mark.usefixtures("ahead")
def test_a_reset_lets_it_go_on(jobs):
    answer = jobs("reset-clock", "--all")
    assert answer.out == "jobs:greet goes on; it would have waited until 2037-01-01 00:00:00 UTC\n"
    assert listed(jobs)["held_until"] is None
    assert jobs("reset-clock", "--all").out == "no job waits for a clock\n"
    again = jobs("reset-clock", "greet")
    assert (again.code, again.out, again.err) == (0, "", "jobs:greet does not wait for a clock\n")


@pytest.mark.usefixtures("ahead")
def test_a_reset_as_json(jobs):
    assert jobs("reset-clock", "greet", "--json").json == {
        "reset": [{"job": "jobs:greet", "held_until": "2037-01-01T00:00:00+00:00"}]
    }
