"""Wall clocks are wrong: between nodes, and from one moment to the next."""

from __future__ import annotations

from systemprompt_jobs._calendar import parse
from systemprompt_jobs._clock import SystemClock
from systemprompt_jobs._control import Control
from systemprompt_jobs._store import Store
from tests.faults import checker
from tests.faults.checker import SECOND
from tests.faults.cluster import wait_for, wall
from tests.support import Calls

HOUR_S = 3600.0


def test_clocks_ten_seconds_apart(cluster):
    """Ticks follow whoever is ahead; nothing runs twice, nothing early by its node's clock."""
    slow, right, fast = cluster.start(), cluster.start(), cluster.start()
    slow.set_clock(-10)
    fast.set_clock(10)
    cluster.wait_for_starts(10)
    assert cluster.verdict() == []
    assert all(node.alive for node in (slow, right, fast))


def test_an_hour_forth_and_back(new_cluster):
    """Forth: the newest tick of each job runs, the others are missed. Back: nothing runs twice."""
    cluster = new_cluster()
    nodes = [cluster.start(), cluster.start()]
    cluster.wait_for_starts(3)
    for node in nodes:
        node.set_clock(HOUR_S)
    ahead = wall() + HOUR_S * SECOND - 10 * SECOND
    wait_for(lambda: min(checker.read_marks(cluster.url).values()) > ahead, "an hour is settled")
    assert {row.job for row in cluster.rows() if row.state == "missed"} == set(cluster.jobs)
    for node in nodes:
        node.set_clock(0)
    assert cluster.verdict() == []
    assert all(node.alive for node in nodes)


def test_an_hour_back_and_forth(new_cluster):
    """Nothing runs until the clock is where it had been."""
    cluster = new_cluster()
    nodes = [cluster.start(), cluster.start()]
    cluster.wait_for_starts(3)
    for node in nodes:
        node.set_clock(-HOUR_S)
    beats = "SELECT max(heartbeat), count(*) FROM jobs_node"
    an_hour_ago = wall() - HOUR_S * SECOND / 2
    wait_for(lambda: checker.query(cluster.url, beats)[0][0] < an_hour_ago, "the clocks are back")
    settled, beat = cluster.settled(), checker.query(cluster.url, beats)
    wait_for(lambda: checker.query(cluster.url, beats) > beat, "they live")
    assert cluster.settled() == settled
    for node in nodes:
        node.set_clock(0)
    cluster.wait_for_starts(3)
    assert cluster.verdict() == []


def test_a_visit_to_2037(new_cluster):
    """Eleven years of ticks are one row each, at once; a reset lets jobs go on."""
    cluster = new_cluster()
    cluster.jobs = dict.fromkeys(cluster.jobs, "0 0 0 1 1 *")  # too many seconds to walk
    node = cluster.start()
    cluster.wait_for_starts(3)
    visit_s = 11 * 365.25 * 86_400
    node.set_clock(visit_s)
    visited = cluster.since + (visit_s - 60) * SECOND
    wait_for(lambda: min(checker.read_marks(cluster.url).values()) > visited, "all are settled")
    node.set_clock(0)
    missed = [row for row in cluster.rows() if row.count > 86_400]
    assert {row.job for row in missed} >= {"plugin:each"}
    rows, effects = cluster.rows(), cluster.effects()
    found = checker.check({}, rows, effects, since=0, until=0, marks=cluster.marks)
    assert found == []
    node.wait_for("plugin_failed")  # it says what it waits for
    reset_clock(cluster)
    cluster.wait_for_starts(3)
    assert node.alive


def reset_clock(cluster):
    """Do what the command does, by the true time."""
    store = Store(cluster.url)
    control = Control(store, store.clock(SystemClock()), Calls())
    assert control.reset_clock(cluster.jobs, parse, "a test").keys() == cluster.jobs.keys()
    store.close()
