"""Processes die: at random, again and again, and at each place where dying could hurt."""

from __future__ import annotations

import random
import signal

import pytest

from tests.faults import checker
from tests.faults.cluster import WORKERS, wait_for
from tests.faults.node import PLACES


@pytest.mark.parametrize("place", PLACES)
def test_killed_at_each_place(cluster, place):
    dying = cluster.start(FAULTS_AT=f"{place}:3:SIGKILL")
    other = cluster.start()
    wait_for(lambda: not dying.alive, f"it comes to {place}")
    assert dying.popen.returncode == -signal.SIGKILL
    assert cluster.verdict() == []
    # A gate commits for free workers, and for what was started in the last 50 ms.
    assert len(checker.unstarted(cluster.rows(), cluster.effects())) <= 2 * WORKERS
    assert other.end() == 0


def test_three_nodes_killed_at_random_and_started_again(cluster):
    chance = random.Random(4)  # the same kills each time
    nodes = [cluster.start() for _ in range(3)]
    for _ in range(5):
        victim = nodes.pop(chance.randrange(3))
        victim.end(signal.SIGKILL)
        nodes.append(cluster.launch())
        cluster.wait_for_starts(chance.randrange(1, 4))
    cluster.ready(*nodes)
    assert cluster.verdict() == []


def test_all_nodes_killed_at_once_and_one_started_later(cluster):
    for node in [cluster.start() for _ in range(2)]:
        node.send(signal.SIGKILL)
    settled = cluster.settled()
    cluster.start()
    assert cluster.verdict() == []
    wait_for(lambda: cluster.settled() > settled, "ticks go on")


def test_nodes_told_to_stop_again_and_again_leave_nothing_behind(cluster):
    keeping = cluster.start()
    for _ in range(4):
        passing = cluster.launch()
        passing.wait_for("scheduler_started")
        cluster.wait_for_starts(1)
        assert passing.end() == 0
    assert cluster.verdict() == []
    assert keeping.end() == 0
    assert not [row for row in cluster.rows() if row.state in {"claimed", "running"}]
    assert "lost" not in {row.state for row in cluster.rows()}


def test_three_nodes_start_together_on_an_empty_database(cluster):
    nodes = [cluster.launch() for _ in range(3)]
    cluster.ready(*nodes)
    assert cluster.verdict() == []
    assert [node.end() for node in nodes] == [0, 0, 0]


def test_five_processes_of_one_host_share_the_ticks(cluster):
    """A node is more than the name of its host."""
    nodes = [cluster.launch(FAULTS_HOST="twin") for _ in range(5)]
    cluster.ready(*nodes)
    cluster.wait_for_starts(8)
    assert cluster.verdict() == []
    hosts = checker.query(cluster.url, "SELECT host FROM jobs_node")
    assert hosts == [("twin",)] * 5
