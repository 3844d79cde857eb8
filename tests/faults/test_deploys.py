"""Versions differ: a schedule is changed by a rolling deploy, and changed back."""

from __future__ import annotations

import signal
from collections import Counter

import pytest

from tests.faults import checker
from tests.faults.checker import SECOND
from tests.faults.cluster import wait_for, wall

RARE, OFTEN = "*/4 * * * * *", "*/2 * * * * *"
"""Each tick of the one is one of the other, as with hours and five minutes."""

MODULE = """
from systemprompt_jobs import job

@job(schedule={schedule!r})
def tick(): ...

@job(schedule="*/2 * * * * *")
def {own}(): ...
"""


def release(folder, version, schedule, own):
    """Install a version of the distribution `deployed` in a folder; return how to start with it."""
    info = folder / version / f"deployed-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: deployed\nVersion: {version}\n")
    (info / "entry_points.txt").write_text("[systemprompt_jobs]\ndeployed = deployed\n")
    (folder / version / "deployed.py").write_text(MODULE.format(schedule=schedule, own=own))
    return {"PYTHONPATH": str(folder / version), "SYSTEMPROMPT_PLUGINS": "deployed"}


def in_force(cluster):
    """Return the schedule and the version in force."""
    sql = "SELECT schedule, version FROM jobs_job WHERE id = 'deployed:tick'"
    return checker.query(cluster.url, sql)[0]


def covered(cluster):
    """Return how often each tick of the job is in a row."""
    ticks: Counter[int] = Counter()
    for row in checker.read_rows(cluster.url):
        if row.job == "deployed:tick":
            last = row.last_tick or row.tick
            found = [list(checker.ticks(cron, row.tick - 1, last)) for cron in (RARE, OFTEN)]
            ticks.update(next(stretch for stretch in found if len(stretch) == row.count))
    return ticks


def wait_until_settled(cluster, instant):
    marks = lambda: checker.read_marks(cluster.url).get("deployed:tick", 0)  # noqa: E731
    wait_for(lambda: marks() >= instant, "a later tick is settled")


def test_a_schedule_changed_by_a_rolling_deploy_and_back(new_cluster, database, tmp_path):
    """Each due tick is covered once, by the schedule in force when it was due."""
    cluster = new_cluster(database, local_plugins=[])
    cluster.jobs = {"deployed:tick": RARE, "deployed:gone": OFTEN}
    one = release(tmp_path, "1.9", RARE, "gone")
    two = release(tmp_path, "1.10", OFTEN, "come")
    old = [cluster.launch(**one), cluster.launch(**one)]
    cluster.ready(*old)
    since = wall()
    wait_until_settled(cluster, since + 4 * SECOND)

    changing = wall()
    new = cluster.start(**two)
    wait_for(lambda: in_force(cluster) == (OFTEN, "1.10"), "the new plan is in force")
    changed = wall()
    assert old.pop().end() == 0
    old.append(cluster.start(**one))  # an older one that starts stands by
    wait_until_settled(cluster, wall() + 4 * SECOND)
    assert in_force(cluster) == (OFTEN, "1.10")

    returning = wall()
    assert new.end() == 0
    wait_for(lambda: in_force(cluster) == (RARE, "1.9"), "who stood by takes the job")
    returned = wall()
    old.append(cluster.start(**one))
    wait_until_settled(cluster, wall() + 4 * SECOND)
    until = wall()
    wait_until_settled(cluster, until)

    ticks = covered(cluster)
    assert set(ticks.values()) == {1}
    assert {tick for tick in ticks if tick <= changing} >= {*checker.ticks(RARE, since, changing)}
    assert {*checker.ticks(OFTEN, changed + 1 * SECOND, returning)} <= ticks.keys()
    assert {*checker.ticks(RARE, since, until)} <= ticks.keys()
    rare = {*checker.ticks(RARE, returned + 1 * SECOND, until)}
    assert {tick for tick in ticks if returned + 1 * SECOND < tick <= until} == rare
    extra = {tick for tick in ticks if tick % (4 * SECOND)}
    # A tick may have been claimed a little ahead of its time when its scheduler went.
    assert all(changing < tick <= returned + 1 * SECOND for tick in extra)
    starts = checker.query(cluster.url, "SELECT count(*) FROM jobs_attempt GROUP BY run_id")
    assert {number for (number,) in starts} == {1}
    assert [node.end() for node in old] == [0, 0, 0]


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_nodes_with_different_time_zone_data(cluster, tmp_path, how):
    """One has the jobs, the other stands by until it has gone; no tick is lost or doubled."""
    (tmp_path / "tzdata.zi").write_text("# version 2099z\n")
    sql = "SELECT min(fingerprint), count(DISTINCT owner) FROM jobs_job"
    standing = cluster.start()
    before = checker.query(cluster.url, sql)
    other = cluster.start(PYTHONTZPATH=str(tmp_path))
    wait_for(lambda: checker.query(cluster.url, sql) != before, "the other plans are in force")
    cluster.wait_for_starts(3)
    other.end(how)
    wait_for(lambda: checker.query(cluster.url, sql)[0][0] == before[0][0], "they are taken back")
    cluster.wait_for_starts(3)
    assert cluster.verdict() == []
    assert standing.end() == 0
