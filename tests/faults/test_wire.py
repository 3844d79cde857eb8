"""The network between scheduler and PostgreSQL stalls, or breaks at the worst moment.

A connection that is cut when the COMMIT is on its way leaves its sender in doubt. What was
committed is read back: so nothing is `lost`, and nothing is claimed a second time, as would be if
other nodes had to settle it when the lease is over.
"""

from __future__ import annotations

import pytest

from tests.faults import checker
from tests.faults.cluster import LEASE_S, wait_for, wall
from tests.faults.proxy import Proxy

AT_START = [{"extension": "plugin", "job": "at_start", "enabled": True}]
LONG_LEASE = "60s"
"""What is not read back would not be settled within a test's patience."""


@pytest.fixture
def proxy(postgresql):
    with Proxy(postgresql) as proxy:
        yield proxy


@pytest.fixture
def wired(proxy, new_cluster):
    """Return a cluster whose nodes go through the proxy; the checker does not."""
    return new_cluster(proxy.server_url, database=proxy.url, lease=LONG_LEASE, jobs=AT_START)


def sound(cluster, given_back=frozenset()):
    """Return what is broken; what is lost or was claimed twice is, too, unless `given_back`."""
    found = cluster.verdict()
    assert "lost" not in cluster.states()
    assert {row.fence for row in cluster.rows() if row.id not in given_back} == {1}
    for node in cluster.nodes:
        assert "step_failed" not in node.events()
    return found


def at_start(cluster):
    """Return the states of the runs of the job that runs at the start, or by hand."""
    return [row.state for row in cluster.rows() if row.job == "plugin:at_start"]


LATE_S = 0.3
"""The client asks for what the server is only then told to commit."""


@pytest.mark.parametrize("of", ["claim", "gate", "finish"])
def test_cut_at_the_commit_of_a_step(wired, proxy, of):
    wired.start()
    wired.wait_for_starts(2)
    for done in (1, 2):
        proxy.cut_at_commit(of, delay_s=LATE_S * (done - 1))
        wait_for(lambda done=done: proxy.cuts == done, f"the commit of a {of} is cut")
        wired.wait_for_starts(2)
    assert sound(wired) == []


@pytest.mark.parametrize("of", ["install", "start-up"])
def test_cut_at_a_commit_of_the_start(wired, proxy, of):
    """The scheduler starts nevertheless, and a start-up run once."""
    proxy.cut_at_commit(of, delay_s=LATE_S)
    node = wired.start()
    wait_for(lambda: proxy.cuts == 1, f"the commit of the {of} is cut")
    wired.wait_for_starts(2)
    assert sound(wired) == []
    assert node.events().count("scheduler_started") == 1
    wait_for(lambda: at_start(wired) == ["succeeded"], "the only start-up run has ended")


def test_cut_when_a_changed_plan_settles_what_was_due(wired, proxy):
    """The old plan's ticks run or are `missed`, and hooks are told of both."""
    wired.start().end()
    given_back = {row.id for row in wired.rows() if row.fence > 1}
    settled = max(checker.read_marks(wired.url).values(), default=wall())
    wait_for(lambda: wall() > settled + 4 * checker.SECOND, "some ticks are due")
    wired.configure(database=proxy.url, lease=LONG_LEASE, jobs=AT_START, timezone="Etc/UTC")
    proxy.cut_at_commit("install")
    node = wired.start()
    node.wait_for("tick_missed")
    assert sound(wired, given_back) == []
    assert proxy.cuts == 1


def test_cut_at_the_commit_of_a_run_by_hand(wired, proxy):
    """It runs, once, and the command says so."""
    node = wired.start()
    wait_for(lambda: at_start(wired) == ["succeeded"], "the start-up run has ended")
    node.end()
    proxy.cut_at_commit("manual", delay_s=LATE_S)
    command = wired.launch("run", "plugin:at_start")
    assert command.popen.wait() == 0, command.tail()
    assert proxy.cuts == 1
    assert at_start(wired) == ["succeeded"] * 2
    assert checker.query(wired.url, "SELECT count(*) FROM jobs_audit") == [(1,)]


def test_cut_again_and_again_at_any_commit(wired, proxy):
    wired.ready(wired.launch(), wired.launch())
    proxy.cut_at_commit("anything", times=8)
    wait_for(lambda: proxy.cuts == 8, "eight commits are cut")
    assert sound(wired) == []


def test_the_network_stalls_for_longer_than_a_lease(proxy, new_cluster):
    """An answer that comes after the lease starts nothing that another node may have by then."""
    cluster = new_cluster(proxy.server_url, database=proxy.url)
    stalled = cluster.start()
    beside = cluster.launch()
    cluster.wait_for_starts(2)
    proxy.stall(True)
    begun = wall()
    wait_for(lambda: wall() > begun + 3 * LEASE_S * checker.SECOND, "three leases pass")
    started = cluster.starts()
    proxy.stall(False)
    wait_for(lambda: cluster.starts() > started + 3, "they go on")
    assert cluster.verdict() == []
    assert stalled.alive
    assert beside.alive


def test_connections_are_cut_and_refused(proxy, new_cluster):
    cluster = new_cluster(proxy.server_url, database=proxy.url)
    node = cluster.start()
    cluster.wait_for_starts(2)
    proxy.refuse(True)
    proxy.cut_all()
    node.wait_for("database_unavailable")
    proxy.refuse(False)
    node.wait_for("database_recovered")
    cluster.wait_for_starts(2)
    assert cluster.verdict() == []
    assert node.events().count("scheduler_started") == 1
