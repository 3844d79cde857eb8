"""The server goes away and comes back: schedulers wait, say so once, and go on by themselves."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from tests.faults import checker
from tests.faults.cluster import LEASE_S, Cluster, wait_for, wall
from tests.postgresql import Server


@pytest.fixture
def server(postgresql, postgresql_server):
    """Return the server, to be broken; afterwards it is up again. `postgresql` is on it."""
    yield postgresql_server
    if postgresql_server.running:
        postgresql_server.freeze(False)
    else:
        postgresql_server.start()


@dataclass
class Scene:
    """Two schedulers at work on a server."""

    server: Server
    cluster: Cluster

    def everybody(self, event):
        """Wait until both schedulers have said this."""
        wait_for(
            lambda: all(event in node.events() for node in self.cluster.nodes[:2]),
            f"both say {event}",
        )


@pytest.fixture
def scene(server, postgresql, new_cluster):
    cluster = new_cluster(postgresql)
    cluster.ready(cluster.launch(), cluster.launch())
    cluster.wait_for_starts(3)
    return Scene(server, cluster)


def sound(cluster):
    """Return what is wrong; a scheduler that was started again or stumbled is too."""
    for node in cluster.nodes:
        assert node.alive
        assert node.events().count("scheduler_started") == 1
        assert "step_failed" not in node.events()
    return cluster.verdict()


@pytest.mark.parametrize("how", [Server.stop, Server.kill], ids=["stopped", "killed"])
def test_the_server_is_gone_for_several_leases(scene, how):
    """Each scheduler says once that it waits, and recovers; nothing starts unrecorded."""
    how(scene.server)
    scene.everybody("database_unavailable")
    late = scene.cluster.launch()
    wait_for(lambda: late.events().count("database_unavailable") == 4, "it tries for 3.5 s")
    for node in scene.cluster.nodes[:2]:
        assert node.events().count("database_unavailable") == 1
    scene.server.start()
    scene.everybody("database_recovered")
    late.wait_for("scheduler_started")
    assert sound(scene.cluster) == []


def test_every_connection_is_terminated_again_and_again(scene):
    """No run is lost by it: what is in doubt is read back, and leases are renewed in time."""
    for _ in range(8):
        scene.server.execute(TERMINATE)
        scene.cluster.wait_for_starts(1)
    assert sound(scene.cluster) == []


TERMINATE = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'systemprompt-jobs'
"""


def test_the_server_freezes_for_longer_than_a_lease(scene):
    """Answers that come too late start nothing that others may have by then."""
    scene.server.freeze(True)
    frozen_at = wall()
    wait_for(lambda: wall() > frozen_at + 2 * LEASE_S * checker.SECOND, "two leases pass")
    scene.server.freeze(False)
    scene.cluster.wait_for_starts(3)
    assert sound(scene.cluster) == []


def test_a_scheduler_starts_while_there_is_no_server(server, postgresql, new_cluster):
    cluster = new_cluster(postgresql)
    server.stop()
    waiting = cluster.launch()
    waiting.wait_for("database_unavailable")
    server.start()
    cluster.ready(waiting)
    assert sound(cluster) == []
    assert waiting.end() == 0
