"""Trivial runs per second beside other schedulers and queues, one after the other.

    python -m tests.bench.bench_peers [RUNS]

Each gets RUNS pieces of work at once and ten workers (threads, or tasks where it has those), in a
process of its own. Ours: jobs that are due at the same instant; the time counts from the claim
ahead of it to the last recorded end, with two JSON log lines for each. Peers: a queue that was
filled before; the time counts from the first call to the last, so that filling it, which they do
one by one, is not in it. Servers are started here, on free ports and with empty folders; a peer
whose server or library is not there is left out, with the reason.
"""

from __future__ import annotations

import gc
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench.bench_store import DURABLE
from tests.postgresql import Server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

WORKERS = 10
RUNS = 2000
PATIENCE_S = 120

DURABILITY = {
    "ours, SQLite": "claim, start and end of each run, synced",
    "ours, PostgreSQL": "claim, start and end of each run, synced",
    "huey, SQLite": "the queue, synced; a task is forgotten when it is taken",
    "Procrastinate, PostgreSQL": "start and end of each task, synced",
    "Dramatiq, Redis": "none: the queue is in memory",
    "Celery, Redis": "none: the queue is in memory",
}


class Counted:
    """What each task calls; the last call tells how long all took and ends the process."""

    def __init__(self, runs: int) -> None:
        self._runs = runs
        self._calls = 0
        self._began = 0.0
        self._lock = threading.Lock()

    def __call__(self) -> None:
        with self._lock:
            self._began = self._began or time.perf_counter()
            self._calls += 1
            if self._calls == self._runs:
                finish((self._runs - 1) / (time.perf_counter() - self._began))


def nothing() -> None: ...


def finish(rate: float) -> None:
    os.write(1, f"{rate}\n".encode())  # Celery makes log lines of what is printed
    os._exit(0)


# --- each in a process of its own ---


def ours(runs: int, url: str) -> None:
    from systemprompt_jobs import JobExtension, Runtime, job
    from systemprompt_jobs._claim import AHEAD
    from systemprompt_jobs.builtin.cli._logging import configure

    root = Path(tempfile.mkdtemp(dir=Path.cwd()))
    due = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=15 + runs / 200)
    left, counting = [runs], threading.Lock()

    class Many(JobExtension):
        def jobs(self):
            at = f"{due:%-S %-M %-H * * *}"
            return [job(name=f"j{n}", schedule=at)(nothing) for n in range(runs)]

        def run_finished(self):
            with counting:
                left[0] -= 1
                if not left[0]:
                    took = datetime.now(UTC) - (due - AHEAD)
                    finish(runs / took.total_seconds())

    (root / "profile.yaml").write_text(
        f"scheduler: {{workers: {WORKERS}, database: {json.dumps(url)}}}\n", "utf-8"
    )
    with (root / "log").open("w") as log:
        configure(log, "serve", human=False)
        with Runtime(root, plugins=[Many()], environ={"SYSTEMPROMPT_PLUGINS": ""}):
            gc.freeze()  # as `serve` does: a full collection in between would be a third of it all
            assert datetime.now(UTC) < due - AHEAD, "not ready in time: try with fewer runs"
            time.sleep(PATIENCE_S)


def huey(runs: int, _: str) -> None:
    from huey import SqliteHuey

    queue, done = SqliteHuey(filename="huey.db", fsync=True), Counted(runs)
    task = queue.task()(lambda: done())  # noqa: PLW0108  # it has a name
    for _ in range(runs):
        task()
    queue.create_consumer(workers=WORKERS, periodic=False, initial_delay=0.001).run()


def procrastinate(runs: int, url: str) -> None:
    from procrastinate import App, PsycopgConnector

    app, done = App(connector=PsycopgConnector(conninfo=url)), Counted(runs)

    @app.task(name="trivial")
    async def trivial() -> None:
        done()

    with app.open():
        app.schema_manager.apply_schema()
        trivial.batch_defer(*({} for _ in range(runs)))
    app.run_worker(concurrency=WORKERS, install_signal_handlers=False)


def dramatiq(runs: int, url: str) -> None:
    import dramatiq
    from dramatiq.brokers.redis import RedisBroker

    broker, done = RedisBroker(url=url), Counted(runs)
    dramatiq.set_broker(broker)
    actor = dramatiq.actor(lambda: done(), actor_name="trivial")  # noqa: PLW0108  # a function
    for _ in range(runs):
        actor.send()
    dramatiq.Worker(broker, worker_threads=WORKERS).start()
    time.sleep(PATIENCE_S)


def celery(runs: int, url: str) -> None:
    from celery import Celery

    app, done = Celery(broker=url), Counted(runs)

    @app.task(name="trivial", ignore_result=True)
    def trivial() -> None:
        done()

    for _ in range(runs):
        trivial.delay()
    more = {"without_gossip": True, "without_mingle": True, "without_heartbeat": True}
    app.Worker(pool="threads", concurrency=WORKERS, loglevel="ERROR", quiet=True, **more).start()


# --- all of them, one after the other ---


@contextmanager
def redis() -> Iterator[str]:
    program = shutil.which("redis-server")
    if program is None:
        raise FileNotFoundError("redis-server is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder]
        with subprocess.Popen([program, *options], stdout=subprocess.DEVNULL) as server:
            try:
                until_open(port)
                yield f"redis://127.0.0.1:{port}/0"
            finally:
                server.terminate()


def until_open(port: int) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            assert time.monotonic() < deadline, "the server does not answer"
            time.sleep(0.05)
        else:
            return


def rate(name: str, runs: int, url: str) -> float:
    """Return the runs per second of one of them. Raises RuntimeError with the last it said."""
    here = Path(__file__).parents[2]
    command = [sys.executable, "-m", "tests.bench.bench_peers", name, str(runs), url]
    with tempfile.TemporaryDirectory(dir=here) as folder:
        answer = subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(here)},
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
    if answer.returncode or not answer.stdout:
        raise RuntimeError((answer.stderr.strip() or "it said nothing").splitlines()[-1])
    return float(answer.stdout.split()[-1])


def main(runs: int) -> None:
    with ExitStack() as stack:
        server = stack.enter_context(Server(*DURABLE))
        for name in ("ours", "procrastinate"):
            server.create(name)

        def plain(name: str) -> str:
            return server.url(name).replace("+psycopg", "")

        def of_redis(name: str) -> Callable[[], float]:
            return lambda: rate(name, runs, stack.enter_context(redis()))

        rates = {
            "ours, SQLite": lambda: rate("ours", runs, "sqlite:///jobs.db"),
            "ours, PostgreSQL": lambda: rate("ours", runs, server.url("ours")),
            "huey, SQLite": lambda: rate("huey", runs, ""),
            "Procrastinate, PostgreSQL": lambda: rate(
                "procrastinate", runs, plain("procrastinate")
            ),
            "Dramatiq, Redis": of_redis("dramatiq"),
            "Celery, Redis": of_redis("celery"),
        }
        print("| | runs/s | times as fast as ours on SQLite | on disk |\n|---|---|---|---|")
        own, missing = 0.0, []
        for name, measure in rates.items():
            try:
                found = measure()
            except (FileNotFoundError, RuntimeError, subprocess.TimeoutExpired) as error:
                missing.append(f"\nLeft out: {name}: {error}")
                continue
            own = own or found  # the first is ours
            print(f"| {name} | {found:,.0f} | {found / own:.2f} | {DURABILITY[name]} |", flush=True)
        print(*missing, sep="\n")


if __name__ == "__main__":
    if len(sys.argv) > 2:
        {"ours": ours, "huey": huey, "procrastinate": procrastinate, "dramatiq": dramatiq,
         "celery": celery}[sys.argv[1]](int(sys.argv[2]), sys.argv[3])  # fmt: skip
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else RUNS)
