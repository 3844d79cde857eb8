"""Processes freeze, as in a suspended machine: others go on, and what wakes up does no harm."""

from __future__ import annotations

import signal

import pytest

from tests.faults import checker
from tests.faults.cluster import wait_for


def states(cluster, *runs):
    return {row.state for row in cluster.rows() if row.id in runs}


def test_a_late_finish_is_fenced(cluster):
    frozen = cluster.start(FAULTS_AT="before_finish:4:SIGSTOP")
    frozen.wait_until_frozen()
    running = {row.id for row in cluster.rows() if row.state == "running"}
    cluster.start()
    wait_for(lambda: states(cluster, *running) == {"lost"}, "its runs are lost")
    frozen.send(signal.SIGCONT)
    frozen.wait_for("run_fenced")
    assert states(cluster, *running) == {"lost"}
    assert cluster.verdict() == []


def test_claimed_runs_of_a_frozen_node_start_elsewhere_and_nowhere_else(cluster):
    frozen = cluster.start(FAULTS_AT="after_claim:2:SIGSTOP")
    frozen.wait_until_frozen()
    claimed = {row.id for row in cluster.rows() if row.state == "claimed"}
    assert claimed
    cluster.start()
    ends = {"succeeded", "failed", "skipped"}
    wait_for(lambda: states(cluster, *claimed) <= ends, "another node runs them")
    frozen.send(signal.SIGCONT)
    cluster.wait_for_starts(3)
    assert cluster.verdict() == []
    assert {e.fence for e in cluster.effects() if e.run in claimed} <= {2}


@pytest.mark.parametrize("place", ["in_claim", "in_gate", "in_finish"])
def test_frozen_inside_a_transaction(cluster, place):
    """Others wait for the lock no longer than their time limit, and go on when it is free."""
    others = [cluster.start() for _ in range(2)]
    frozen = cluster.start(FAULTS_AT=f"{place}:2:SIGSTOP")
    frozen.wait_until_frozen()
    if cluster.url.startswith("sqlite"):  # one lock for all
        wait_for(
            lambda: all("database_unavailable" in node.events() for node in others),
            "the others say that they cannot write",
        )
    frozen.send(signal.SIGCONT)
    assert cluster.verdict() == []
    assert all(node.alive for node in (frozen, *others))


def test_others_take_the_jobs_of_a_frozen_claim_while_it_is_frozen(new_cluster, postgresql):
    """The server ends a transaction that is idle for a third of a lease: no rescue could."""
    cluster = new_cluster(postgresql, lease="15s")
    cluster.ready(cluster.launch(), cluster.launch())
    frozen = cluster.start(FAULTS_AT="in_claim:2:SIGSTOP")
    frozen.wait_until_frozen()
    before = checker.read_marks(postgresql)
    free = checker.query(postgresql, "SELECT id FROM jobs_job FOR UPDATE SKIP LOCKED")
    hidden = set(cluster.jobs) - {job for (job,) in free}
    assert hidden
    wait_for(
        lambda: all(checker.read_marks(postgresql)[job] > before.get(job, 0) for job in hidden),
        "the others take the jobs that it hides",
    )
    frozen.send(signal.SIGCONT)
    assert cluster.verdict() == []


def test_frozen_and_awake_in_turn(cluster):
    nodes = [cluster.start() for _ in range(3)]
    for node in nodes:
        node.send(signal.SIGSTOP)
        before = cluster.settled()
        wait_for(
            lambda before=before: (
                cluster.settled() > before or "locked" in "".join(n.tail() for n in nodes)
            ),
            "the others go on, or wait for the lock that it holds",
        )
        node.send(signal.SIGCONT)
    assert cluster.verdict() == []
