"""The database is in trouble: locked, full, read-only, pruned, or shared with strangers."""

from __future__ import annotations

import os
import signal
from contextlib import closing

import pytest

from tests.faults import checker
from tests.faults.cluster import wait_for


@pytest.fixture
def sqlite(new_cluster):
    """Return a cluster on SQLite: what is broken here is its file."""
    return new_cluster()


def test_four_processes_on_one_file(sqlite):
    nodes = [sqlite.launch() for _ in range(4)]
    sqlite.ready(*nodes)
    sqlite.wait_for_starts(8)
    assert sqlite.verdict() == []
    assert [node.end() for node in nodes] == [0] * 4


def test_the_write_lock_is_held_by_a_stranger(sqlite):
    """Nothing starts that cannot be recorded; afterwards each tick has its row."""
    node = sqlite.start()
    sqlite.wait_for_starts(2)
    with closing(checker.connect(sqlite.url)) as stranger:
        stranger.execute("BEGIN IMMEDIATE")
        before = {row.id for row in sqlite.rows()}
        wait_for(lambda: "database_unavailable" in node.events(), "it says so")
        assert {row.id for row in sqlite.rows()} == before
        assert {effect.run for effect in sqlite.effects()} <= before
        stranger.execute("ROLLBACK")
    node.wait_for("database_recovered")
    assert sqlite.verdict() == []
    assert node.alive


def test_a_full_file_system(sqlite):
    """A node that can write no more says so, stays, and starts nothing; another one goes on."""
    full = sqlite.start(FAULTS_FSIZE=str(300 * 1024))
    full.wait_for("database_unavailable")
    assert full.alive
    assert "step_failed" not in full.events()
    sqlite.start()
    assert sqlite.verdict() == []
    full.end(signal.SIGKILL)
    assert sqlite.verdict() == []


def test_a_read_only_file(sqlite):
    node = sqlite.start()
    node.end()
    file = sqlite.url.removeprefix("sqlite:///")
    os.chmod(file, 0o400)  # noqa: PTH101
    waiting = sqlite.launch(FAULTS_PLAIN="yes")
    waiting.wait_for("database_unavailable")
    assert "is read-only" in waiting.tail()
    os.chmod(file, 0o600)  # noqa: PTH101
    sqlite.ready(waiting)
    assert sqlite.verdict() == []


def test_everything_is_pruned_while_a_node_lags(cluster):
    """What was forgotten is not run again: a job's newest settled tick is no part of the history."""
    lagging = cluster.start(FAULTS_AT="after_claim:2:SIGSTOP")  # it holds no lock then
    other = cluster.start()
    lagging.wait_until_frozen()
    cluster.wait_for_starts(3)
    with closing(checker.connect(cluster.url)) as connection:
        rows = [row for row in cluster.rows() if row.state in checker.ENDS]
        ended = ", ".join(str(row.id) for row in rows)
        connection.execute(f"DELETE FROM jobs_run WHERE id IN ({ended})")
    kept = {row.id for row in cluster.rows()}
    cluster.pruned += [row for row in rows if row.id not in kept]
    assert cluster.pruned
    lagging.send(signal.SIGCONT)
    cluster.wait_for_starts(5)
    assert cluster.verdict() == []
    assert [lagging.end(), other.end()] == [0, 0]


MORE = """
from systemprompt_jobs import job

@job(schedule="*/2 * * * * *")
def own(): ...
"""


def test_nodes_with_different_plugins_share_a_database(cluster, new_cluster):
    """A node neither runs nor harms the jobs that only another one has."""
    stranger = new_cluster(cluster.url, local_plugins=["more.py"])
    (stranger.root / "more.py").write_text(MORE, "utf-8")
    (stranger.root / "more.py").chmod(0o644)
    stranger.jobs = {"more:own": "*/2 * * * * *"}
    ours = [cluster.start(), cluster.start()]
    theirs = stranger.start()
    count = "SELECT job_id, count(DISTINCT node) FROM jobs_run GROUP BY 1"
    everybody = {*cluster.jobs, "more:own"}
    ended = "SELECT DISTINCT job_id FROM jobs_run WHERE finished IS NOT NULL"
    wait_for(
        lambda: {job for (job,) in checker.query(cluster.url, ended)} == everybody,
        "a run of each job has ended",
    )
    ours[0].end(signal.SIGKILL)
    assert cluster.verdict() == []
    owners = dict(checker.query(cluster.url, count))
    assert owners["more:own"] == 1
    theirs.end()
    mine = [row for row in stranger.rows() if row.job == "more:own"]
    # A tick that was claimed ahead of its time is given back when its node stops.
    assert {row.state for row in mine} - {"pending"} == {"succeeded"}
    assert owners.keys() == everybody
