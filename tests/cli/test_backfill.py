from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest

JOBS = """
from systemprompt_jobs import job


@job(schedule="0 {minute} * * * *", catch_up="none")
def report(ctx):
    return f"of {ctx.tick:%H:%M}"


@job
def by_hand(): ...
"""
CONFIG = "scheduler: {local_plugins: [jobs.py]}\n"


@pytest.fixture
def served(new_project, started, cli):
    """Return a function that calls `infra jobs …` where a scheduler missed ticks of `report`."""
    far = datetime.now(UTC) + timedelta(minutes=30)  # so that no tick comes while the test runs
    root = new_project(JOBS.replace("{minute}", str(far.minute)), CONFIG)

    def call(*arguments):
        return cli("--root", root, "infra", "jobs", *arguments)

    scheduler = started("--root", root, "infra", "jobs", "serve")
    scheduler.line_with("scheduler_started")
    scheduler.signal(15)
    scheduler.end()
    with closing(sqlite3.connect(root / "var/jobs.db", isolation_level=None)) as connection:
        hours = 12 * 3_600_000_000
        connection.execute("UPDATE jobs_job SET next_tick = next_tick - ?", (hours,))
    scheduler = started("--root", root, "infra", "jobs", "serve")
    scheduler.line_with("tick_missed")
    call.scheduler, call.root = scheduler, root
    return call


def test_missed_ticks_are_shown_asked_about_handed_over_and_run(served, terminal):
    preview = served("backfill", "report", "--from", "20h", "--limit", "2", "--dry-run")
    assert preview.code == 0
    assert ": 2 ticks to run" in preview.out
    assert "there are more: say --limit" in preview.out

    asked = terminal("--root", served.root, "infra", "jobs", "backfill", "report", "--from", "20h")
    asked.read_until("Run them? [y/N]")
    asked.write("n\n")
    refused = asked.end()
    assert refused.code == 0
    assert max(map(len, refused.out.splitlines())) <= 80
    assert served("history", "--state", "pending", "--json").json["runs"] == []

    answer = served("backfill", "report", "--from", "20h", "--limit", "2", "--yes", "--json")
    assert (answer.code, len(answer.json["ticks"]), answer.json["more"]) == (0, 2, True)
    for run in answer.json["runs"]:
        assert (run["state"], run["trigger"]) == ("pending", "schedule")
        assert run["tick"][11:16] in served.scheduler.line_with("run_succeeded")
    audit = served("audit", "--json").json["entries"][0]
    assert (audit["action"], audit["subject"]) == ("backfill", "jobs:report")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("report", "--from", "2d"), "nobody can be asked here: say --yes"),
        (("by_hand", "--from", "2d", "--yes"), "has no schedule, so no tick was missed"),
        (("report", "--from", "1d", "--to", "2d", "--yes"), "name two times in order"),
        (("report", "--from", "2d", "--yes"), "nothing is recorded of jobs:report yet"),
    ],
)
def test_what_cannot_be_made_up_is_wrong_use(new_project, cli, arguments, said):
    root = new_project(JOBS.replace("{minute}", "0"), CONFIG)
    answer = cli("--root", root, "infra", "jobs", "backfill", *arguments)
    assert (answer.code, answer.out) == (2, "")
    assert said in answer.err
