from __future__ import annotations

import pytest


@pytest.fixture
def ran(jobs):
    """Make a history of three runs: greet, fail, greet."""
    for name in ("greet", "fail", "greet"):
        jobs("run", name)
    return jobs


ALL = ("prune", "--older-than", "0s", "--keep", "0")


def test_what_is_older_than_asked_is_forgotten_and_said(ran):
    out = ran(*ALL).out.splitlines()
    assert [line.split() for line in out[:3]] == [
        ["JOB", "RUNS"],
        ["jobs:greet", "2"],
        ["jobs:fail", "1"],
    ]
    assert out[3].startswith("forgotten: 3 runs, ")
    assert ran("history").out == "no runs yet\n"


def test_each_job_keeps_its_newest(ran):
    assert ran("prune", "--older-than", "0s", "--keep", "1", "--json").json["jobs"] == {
        "jobs:greet": 1
    }
    assert [run["id"] for run in ran("history", "--json").json["runs"]] == [3, 2]


def test_a_dry_run_deletes_nothing(ran):
    answer = ran(*ALL, "--dry-run", "--json").json
    assert answer.keys() == {"before", "dry_run", "runs", "nodes", "audits", "jobs"}
    assert (answer["runs"], answer["dry_run"]) == (3, True)
    assert "would go: 3 runs" in ran(*ALL, "--dry-run").out
    assert len(ran("history", "--json").json["runs"]) == 3


def test_as_configured_nothing_here_is_old(ran):
    assert ran("prune", "--json").json["runs"] == 0


def test_without_a_database_there_is_nothing_to_forget(jobs):
    assert jobs("prune").out.startswith("forgotten: 0 runs, 0 nodes, 0 audit rows")


@pytest.mark.parametrize("text", ["month", "-5d"])
def test_a_wrong_duration_is_wrong_use(jobs, text):
    answer = jobs("prune", f"--older-than={text}")
    assert answer.code == 2
    assert answer.err == (
        f"error: --older-than: '{text}' is no duration: write 30s, 5m, 1h30m, 30d or 2w\n"
    )


WATCH = """
from pathlib import Path
from systemprompt_jobs import hookimpl, job

@job
def greet(): ...

@hookimpl
def history_pruned(runs, nodes, audits, before):
    Path(__file__).with_name("seen").write_text(f"{runs} {nodes} {audits}")
"""


def test_plugins_observe_it(cli, new_project):
    root = new_project(WATCH)
    cli("--root", root, "infra", "jobs", "run", "greet")
    cli("--root", root, "infra", "jobs", *ALL)
    assert (root / "seen").read_text() == "1 1 1"
