"""Kill, freeze and stop schedulers at random for some minutes, and say what was survived."""

from __future__ import annotations

import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.faults.cluster import Cluster
from tests.postgresql import Server


def main(minutes: float) -> int:
    """Do it on each database; return 1 if an invariant was violated."""
    with tempfile.TemporaryDirectory() as folder:
        violated = _soak("sqlite", f"sqlite:///{folder}/jobs.db", minutes)
    with Server() as server:
        return int(_soak("postgresql", server.url("postgres"), minutes) or violated)


def _soak(kind: str, url: str, minutes: float) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        cluster = Cluster(Path(folder), url)
        try:
            done = _chaos(cluster, time.monotonic() + 60 * minutes)
            cluster.start()
            found = cluster.verdict()
            states = Counter(row.state for row in cluster.rows())
            ticks = sum(row.count for row in cluster.rows())
            numbers = {**done, "starts": cluster.starts(), "ticks": ticks, **states}
            print(kind, *(f"{name}={n}" for name, n in numbers.items()))  # noqa: T201
            print(f"violations={len(found)}", *found, sep="\n  ")  # noqa: T201
        finally:
            cluster.close()
    return bool(found)


def _chaos(cluster: Cluster, deadline: float) -> Counter[str]:
    done: Counter[str] = Counter(kills=0, freezes=0, stops=0)
    cluster.start()
    while time.monotonic() < deadline:
        while len(cluster.alive()) < 3:
            cluster.launch()
        time.sleep(random.uniform(0.5, 3))
        victim = random.choice(cluster.alive())
        what = random.choice(["kills", "freezes", "stops"])
        done[what] += 1
        if what == "kills":
            victim.end(signal.SIGKILL)
        elif what == "stops":
            victim.end()
        else:
            victim.send(signal.SIGSTOP)
            time.sleep(random.uniform(0.2, 3))
            victim.send(signal.SIGCONT)
    return done


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1])))
