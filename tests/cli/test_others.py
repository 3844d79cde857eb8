"""Where this machine's plans are not those in force, commands say whose are."""

from __future__ import annotations

import signal

import pytest

from tests.cli.conftest import CONFIG, JOBS

UP = """
@job(run_on_startup=True)
def up(): ...
"""
UP_CONFIG = "    - {extension: jobs, job: up, enabled: true}\n"


@pytest.fixture
def project(new_project):
    """Make a project that also has a start-up job: when it runs, the plans are in force."""
    return new_project(JOBS + UP, CONFIG + UP_CONFIG)


@pytest.fixture
def served(started, project):
    process = started("--root", project, "infra", "jobs", "serve")
    process.line_with("run_started")
    return process


def change_schedule(project):
    text = CONFIG.replace("job: greet", "job: greet, schedule: '0 0 5 1 1 *'")
    (project / "services/scheduler/config.yaml").write_text(text + UP_CONFIG)


@pytest.fixture
def superseded(served, project):
    """Serve a project, then change a schedule without telling the scheduler."""
    change_schedule(project)


def test_a_job_with_another_plan_in_force_is_superseded(superseded, jobs):
    (node,) = jobs("status", "--json").json["nodes"]
    answer = jobs("list", "--json").json["jobs"]
    found = {job["name"]: (job["condition"], job["superseded"]) for job in answer}
    by = {"distribution": "", "version": "", "node": node["id"], "schedule": "0 */10 * * * *"}
    assert found.pop("greet") == ("superseded", by)
    assert {condition for condition, _ in found.values()} == {"enabled", "disabled"}
    assert {other for _, other in found.values()} == {None}
    assert ":00" in next(job["next_tick"] for job in answer if job["name"] == "greet")
    assert jobs("status", "--json").json["jobs"]["superseded"] == 1


def test_what_supersedes_a_job_is_named_by_list_and_status(superseded, jobs):
    for arguments in (["list"], ["status"], ["status", "greet"]):
        out = jobs(*arguments).out
        line = "  jobs:greet: superseded by another plan on node "
        assert line in out.partition("Superseded: this machine's plan is not in force\n")[2]
    assert out.startswith("jobs:greet (superseded)\n")
    assert "Next ticks" not in out
    assert "1 superseded" in jobs("status").out


def test_nothing_is_superseded_by_a_scheduler_that_has_stopped(served, jobs, project):
    served.signal(signal.SIGTERM)
    served.end()
    change_schedule(project)
    assert "uperseded" not in jobs("list").out


@pytest.fixture
def orphaned(jobs, project):
    """Run a job, then remove it."""
    jobs("run", "fail", "greet")
    text = (project / "jobs.py").read_text()
    (project / "jobs.py").write_text(text.replace("def fail(", "def renamed("))
    return "jobs:fail"


def test_a_job_that_nobody_provides_any_more_is_orphaned(orphaned, jobs):
    shape = {"id": orphaned, "condition": "orphaned", "last_state": "failed"}
    assert jobs("list", "--json").json["orphaned"] == [shape]
    assert jobs("status", "--json").json["orphaned"] == [shape]
    assert jobs("status", "--json").json["jobs"]["orphaned"] == 1
    for command in ("list", "status"):
        section = jobs(command).out.partition("Orphaned: ")[2]
        assert section.splitlines()[1:] == ["  jobs:fail"]


@pytest.mark.parametrize("name", ["fail", "jobs:fail"])
def test_an_orphaned_job_shows_its_history(orphaned, jobs, name):
    out = jobs("status", name).out
    assert out.startswith("jobs:fail (orphaned)\n")
    assert "✗ failed" in out.partition("Last runs\n")[2]
    answer = jobs("status", name, "--json").json["job"]
    assert (answer["condition"], answer["last_runs"][0]["state"]) == ("orphaned", "failed")


def test_an_orphaned_job_that_returns_is_back_with_its_history(orphaned, jobs, project):
    text = (project / "jobs.py").read_text()
    (project / "jobs.py").write_text(text.replace("def renamed(", "def fail("))
    answer = jobs("list", "--json").json
    assert answer["orphaned"] == []
    assert {job["name"]: job["last_state"] for job in answer["jobs"]}["fail"] == "failed"


def test_a_renamed_job_with_an_alias_leaves_no_orphan(orphaned, jobs, project):
    text = (project / "jobs.py").read_text()
    text = text.replace('@job(tags=["rude"])', '@job(tags=["rude"], aliases=["fail"])')
    (project / "jobs.py").write_text(text)
    assert jobs("list", "--json").json["orphaned"] == []


def test_what_a_live_scheduler_has_is_no_orphan(served, jobs, project):
    text = (project / "jobs.py").read_text()
    (project / "jobs.py").write_text(text.replace("def off(", "def renamed("))
    assert jobs("list", "--json").json["orphaned"] == []
    served.signal(signal.SIGTERM)
    served.end()
    assert [job["id"] for job in jobs("list", "--json").json["orphaned"]] == ["jobs:off"]
