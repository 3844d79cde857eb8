"""Break schedulers, network and database at random for some minutes; say what was survived."""

from __future__ import annotations

import random
import signal
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

from tests.faults import checker
from tests.faults.cluster import Cluster
from tests.faults.proxy import Proxy
from tests.postgresql import Server

NODES = 3


@dataclass
class Scene:
    """What there is to break."""

    cluster: Cluster
    server: Server | None = None
    proxy: Proxy | None = None

    def victim(self):
        return random.choice(self.cluster.alive())


# --- what can break; each takes at most a few seconds and is whole again afterwards ---


def kill(scene):
    scene.victim().end(signal.SIGKILL)


def stop(scene):
    scene.victim().end()


def freeze(scene):
    victim = scene.victim()
    victim.send(signal.SIGSTOP)
    _pass(3)
    victim.send(signal.SIGCONT)


def lock_the_file(scene):
    with closing(checker.connect(scene.cluster.url)) as stranger:
        stranger.execute("BEGIN IMMEDIATE")
        _pass(3)
        stranger.execute("ROLLBACK")


def stop_the_server(scene):
    scene.server.stop()
    _pass(5)
    scene.server.start()


def kill_the_server(scene):
    scene.server.kill()
    _pass(5)
    scene.server.start()


def freeze_the_server(scene):
    scene.server.freeze(True)
    _pass(3)
    scene.server.freeze(False)


def terminate_connections(scene):
    scene.server.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE application_name = 'systemprompt-jobs'"
    )


def cut_all(scene):
    scene.proxy.cut_all()


def cut_a_claim(scene):
    _cut(scene, "claim")


def cut_a_gate(scene):
    _cut(scene, "gate")


def cut_a_finish(scene):
    _cut(scene, "finish")


def cut_a_start(scene):
    scene.proxy.cut_at_commit("install", random.randint(1, 2), random.uniform(0, 0.3))
    if len(scene.cluster.alive()) == NODES:
        scene.victim().end(signal.SIGKILL)  # the next one installs


def _cut(scene, of):
    """Cut connections at the COMMIT of such a transaction, and wait until it has happened."""
    before, times = scene.proxy.cuts, random.randint(1, 4)
    scene.proxy.cut_at_commit(of, times, random.uniform(0, 0.3))
    deadline = time.monotonic() + 5
    while scene.proxy.cuts < before + times and time.monotonic() < deadline:
        time.sleep(0.05)


def stall_the_network(scene):
    scene.proxy.stall(True)
    _pass(3)
    scene.proxy.stall(False)


def _pass(seconds):
    time.sleep(random.uniform(0.2, seconds))


EVERYWHERE = (kill, stop, freeze)
SQLITE = (*EVERYWHERE, lock_the_file)
POSTGRESQL = (
    *EVERYWHERE,
    stop_the_server,
    kill_the_server,
    freeze_the_server,
    terminate_connections,
    cut_all,
    cut_a_claim,
    cut_a_gate,
    cut_a_finish,
    cut_a_start,
    stall_the_network,
)


def main(minutes: float) -> int:
    """Do it on each database; return 1 if an invariant was violated."""
    return int(_sqlite(minutes) | _postgresql(minutes))


def _sqlite(minutes: float) -> bool:
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        cluster = Cluster(Path(folder), f"sqlite:///{folder}/jobs.db")
        stack.callback(cluster.close)
        return _soak("sqlite", Scene(cluster), SQLITE, minutes)


def _postgresql(minutes: float) -> bool:
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        server = stack.enter_context(Server())
        proxy = stack.enter_context(Proxy(server.url("postgres")))
        cluster = Cluster(Path(folder), proxy.server_url, database=proxy.url)
        stack.callback(cluster.close)
        return _soak("postgresql", Scene(cluster, server, proxy), POSTGRESQL, minutes)


def _soak(name, scene, faults, minutes) -> bool:
    """Return whether anything was violated."""
    cluster = scene.cluster
    done = _chaos(scene, faults, time.monotonic() + 60 * minutes)
    cluster.start()
    asked = time.monotonic()
    found = cluster.verdict()
    settled_s = time.monotonic() - asked
    for node in cluster.alive():
        node.end()
    found += checker.held(cluster.rows())
    unstarted = len(checker.unstarted(cluster.rows(), cluster.effects()))
    ticks = sum(row.count for row in cluster.rows())
    ends = {**cluster.states(), "lost and never started": unstarted}
    print(f"{name}: {minutes:g} minutes, {ticks} ticks, {cluster.starts()} starts")  # noqa: T201
    print("  survived:", _listed(done))  # noqa: T201
    print("  runs:", _listed(ends))  # noqa: T201
    print(f"  all that was due had ended {settled_s:.1f} s after the last fault")  # noqa: T201
    print(f"  violated invariants: {len(found)}", *found, sep="\n    ")  # noqa: T201
    return bool(found)


def _chaos(scene, faults, deadline) -> Counter[str]:
    """Break one thing after the other, each as often as any, in ever new order."""
    done: Counter[str] = Counter({fault.__name__: 0 for fault in faults})
    scene.cluster.start()
    while time.monotonic() < deadline:
        for fault in random.sample(faults, len(faults)):
            while len(scene.cluster.alive()) < NODES:
                scene.cluster.launch()
            _pass(3)
            if time.monotonic() > deadline:
                break
            fault(scene)
            done[fault.__name__] += 1
    if scene.proxy is not None:
        done["connections cut at a commit"] = scene.proxy.cuts
    return done


def _listed(numbers) -> str:
    return ", ".join(f"{n} {name.replace('_', ' ')}" for name, n in numbers.items())


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1])))
