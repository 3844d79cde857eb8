"""Real scheduler processes on one database: start, kill, freeze, and have the checker judge."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from tests.faults import checker

if TYPE_CHECKING:
    from collections.abc import Callable

HERE = Path(__file__).parent
LEASE_S = 1.0
WORKERS = 4
PATIENCE_S = 90.0
"""How long anything may take on a busy machine before it counts as never."""

JOBS = {
    "plugin:each": "* * * * * *",
    "plugin:slow": "*/2 * * * * *",
    "plugin:long": "*/3 * * * * *",
    "plugin:fails": "*/5 * * * * *",
}


def wall() -> int:
    """Return the true time, in microseconds."""
    return time.time_ns() // 1_000


def wait_for(what: Callable[[], object], why: str, seconds: float = PATIENCE_S) -> None:
    """Return as soon as `what()` is true; raise AssertionError if it does not come true."""
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {why}"
        time.sleep(0.05)


class Node:
    """One scheduler process, or one of another command."""

    def __init__(
        self, root: Path, number: int, environ: dict[str, str], command: tuple[str, ...]
    ) -> None:
        self.output = root / f"node{number}.log"
        self.clock = root / f"clock{number}"
        self.set_clock(0.0, 0.0)
        with self.output.open("wb") as output:
            self.popen = subprocess.Popen(
                [sys.executable, HERE / "node.py", "--root", root, "infra", "jobs", *command],
                stdout=output,
                stderr=output,
                env={**environ, "FAULTS_CLOCK": str(self.clock)},
            )

    def set_clock(self, offset_s: float, before_s: float | None = None) -> None:
        """Step its wall clock to so much before or after the true time."""
        if before_s is None:
            before_s = float(self.clock.read_text("ascii").split()[0])
        new = self.clock.with_suffix(".new")
        new.write_text(f"{offset_s} {before_s} {time.monotonic()}", "ascii")
        new.replace(self.clock)

    @property
    def pid(self) -> int:
        return self.popen.pid

    @property
    def alive(self) -> bool:
        return self.popen.poll() is None

    def events(self) -> list[str]:
        """Return the names of the events it has logged."""
        return [entry["event"] for entry in self.entries()]

    def entries(self) -> list[dict[str, object]]:
        """Return what it has logged, as far as it is whole lines of JSON."""
        lines = self.output.read_text("utf-8", "replace").split("\n")[:-1]
        return [json.loads(line) for line in lines if line.startswith("{")]

    def send(self, number: signal.Signals) -> None:
        if self.alive:
            self.popen.send_signal(number)

    def wait_for(self, event: str) -> None:
        """Wait until it has logged this event."""
        wait_for(
            lambda: event in self.events() or not self.alive,
            f"{event} of node {self.pid}: {self.tail()}",
        )
        assert event in self.events(), self.tail()

    def wait_until_frozen(self) -> None:
        """Wait until it has stopped itself."""
        status = Path(f"/proc/{self.pid}/stat")
        wait_for(
            lambda: status.read_text("ascii").rpartition(")")[2].split()[0] == "T",
            f"node {self.pid} freezes: {self.tail()}",
        )

    def tail(self) -> str:
        return self.output.read_text("utf-8", "replace")[-2_000:]

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End it, by TERM unless told otherwise, and return its exit code."""
        self.send(number)
        try:
            return self.popen.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
            raise AssertionError(f"node {self.pid} does not end: {self.tail()}") from None


class Cluster:
    """Nodes of one project on one database, a sampler of `last_tick`, and the checker."""

    def __init__(self, root: Path, url: str, **settings: object) -> None:
        self.root = root
        self.url = url
        self.jobs = dict(JOBS)
        self.log = root / "effects.log"
        self.nodes: list[Node] = []
        self.marks: list[dict[str, int]] = []
        self.pruned: list[checker.Row] = []
        self.since = 0
        self._ended = threading.Event()
        self._sampler = threading.Thread(target=self._sample, daemon=True)
        self.configure(**settings)

    def configure(self, **settings: object) -> None:
        """Write the project."""
        values = {
            "database": self.url,
            "lease": f"{LEASE_S:g}s",
            "workers": WORKERS,
            "shutdown_grace": "1s",
            "local_plugins": ["plugin.py"],
            **settings,
        }
        folder = self.root / "services" / "scheduler"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.yaml").write_text(json.dumps({"scheduler": values}), "utf-8")
        shutil.copyfile(HERE / "plugin.py", self.root / "plugin.py")
        (self.root / "plugin.py").chmod(0o644)

    # --- nodes ---

    def launch(self, *command: str, **environ: str) -> Node:
        """Start a process, `serve` unless told otherwise, without waiting for it."""
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("SYSTEMPROMPT_")}
        environ = {
            **inherited,
            "SYSTEMPROMPT_PLUGINS": "",
            "FAULTS_LOG": str(self.log),
            # What is due is decided by each node's clock, or by that of the database server.
            "FAULTS_WALL": "own" if self.url.startswith("sqlite") else "true",
            **environ,
        }
        self.nodes.append(Node(self.root, len(self.nodes), environ, command or ("serve",)))
        return self.nodes[-1]

    def start(self, **environ: str) -> Node:
        """Start a process and wait until it is at work."""
        node = self.launch(**environ)
        self.ready(node)
        return node

    def ready(self, *nodes: Node) -> None:
        """Wait until these are at work; from the first time on, every tick counts."""
        for node in nodes:
            node.wait_for("scheduler_started")
        if not self.since:
            wait_for(self._installed, "the jobs have their first ticks")
            self.since = wall()
            self._sampler.start()

    def _installed(self) -> bool:
        sql = "SELECT count(*) FROM jobs_job WHERE next_tick IS NOT NULL"
        return checker.query(self.url, sql)[0][0] >= len(self.jobs)

    def alive(self) -> list[Node]:
        return [node for node in self.nodes if node.alive]

    # --- what is going on ---

    def rows(self) -> list[checker.Row]:
        """Return all rows of our jobs, those included that the test has pruned."""
        rows = (*self.pruned, *checker.read_rows(self.url))
        return [row for row in rows if row.job in self.jobs or row.tick is None]

    def states(self) -> Counter[str]:
        """Return how many rows are in each state."""
        return Counter(row.state for row in self.rows())

    def settled(self) -> int:
        """Return a number that grows with each tick that is settled."""
        return sum(checker.read_marks(self.url).values())

    def effects(self) -> list[checker.Effect]:
        return checker.read_effects(self.log)

    def starts(self) -> int:
        return sum(effect.event == "START" for effect in self.effects())

    def wait_for_starts(self, number: int) -> None:
        """Wait until so many more functions have started."""
        wanted = self.starts() + number
        wait_for(lambda: self.starts() >= wanted, f"{number} more starts")

    def _sample(self) -> None:
        while not self._ended.wait(0.1):
            try:
                self.marks.append(checker.read_marks(self.url))
            except Exception:  # noqa: BLE001  # the database is what the tests break
                continue

    # --- the verdict ---

    def violations(self, until: int) -> list[checker.Violation]:
        effects = self.effects()  # before the rows: what has started is on record
        return checker.check(
            self.jobs,
            self.rows(),
            effects,
            since=self.since,
            until=until,
            marks=list(self.marks),
        )

    def verdict(self, until: int | None = None) -> list[checker.Violation]:
        """Return what is broken once all that was due until now has had time to end.

        Some node must be up. The bound is 5/3 of a lease and the longest function, and patience
        for a busy machine.
        """
        until = wall() if until is None else until
        deadline = time.monotonic() + PATIENCE_S
        while (found := self.violations(until)) and time.monotonic() < deadline:
            if {violation.invariant for violation in found} - {"I1", "I4", "I5"}:
                break  # time heals only what is not settled yet
            time.sleep(0.1)
        return found

    def close(self) -> None:
        """End what still runs."""
        self._ended.set()
        for node in self.nodes:
            node.popen.kill()
        for node in self.nodes:
            node.popen.wait()
        if self._sampler.ident is not None:
            self._sampler.join()
