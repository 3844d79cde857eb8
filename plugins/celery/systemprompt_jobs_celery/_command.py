"""`worker`: runs what schedulers send through their executors of kind `celery`."""

from __future__ import annotations

import os
import queue
from typing import TYPE_CHECKING

import click
import structlog

from systemprompt_jobs.builtin.signals import catch_signals
from systemprompt_jobs.errors import StoreError, StoreUnusableError, UsageError

from ._line import lines_of
from ._worker import Worker

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Protocol

    from systemprompt_jobs import Runtime
    from systemprompt_jobs.builtin.health import HealthServer

    from ._line import Line

    class _Session(Protocol):
        def runtime_at_work(self) -> Runtime: ...
        def log(self, manner: str) -> None: ...


_PAUSES_S = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)

_log = structlog.get_logger("systemprompt_jobs")


@click.command("worker")
@click.argument("executors", nargs=-1, metavar="[EXECUTOR]...")
@click.option("--size", type=click.IntRange(1), metavar="N",
              help="How many functions of each executor run here at once.")  # fmt: skip
@click.option("--health-address", metavar="HOST:PORT",
              help="Answer probes and /metrics here; the setting is for schedulers.")  # fmt: skip
@click.pass_obj
def command(
    session: _Session, executors: tuple[str, ...], size: int | None, health_address: str | None
) -> None:
    """Run functions for schedulers that send them through Celery.

    Takes runs of these executors, else of all of kind `celery`. TERM and Ctrl-C let running
    jobs end, for at most `shutdown_grace`; a second one leaves at once.
    """
    stops = catch_signals()
    runtime = session.runtime_at_work()
    lines = _chosen(runtime, executors, size)
    session.log("serve")
    health = _health_server(runtime, health_address)
    worker = Worker(runtime, lines)
    if _start(worker, stops):
        stops.get()
        worker.stop()
    if health is not None:
        health.stop()


def _chosen(runtime: Runtime, names: tuple[str, ...], size: int | None) -> Mapping[str, Line]:
    from dataclasses import replace

    try:
        lines = lines_of(runtime, os.environ)
    except ValueError as error:
        raise UsageError(str(error)) from None
    if not lines:
        raise UsageError("scheduler.executors has none of kind celery: nothing is sent here")
    for name in names:
        if name not in lines:
            raise UsageError(
                f"there is no executor {name!r} of kind celery; there is {listed(lines)}"
            )
    chosen = {name: lines[name] for name in names or lines}
    if size is None:
        return chosen
    return {name: replace(line, size=size) for name, line in chosen.items()}


def listed(names: Mapping[str, object]) -> str:
    """Return names, separated by commas."""
    return ", ".join(names)


def _health_server(runtime: Runtime, address: str | None) -> HealthServer | None:
    if not address:
        return None
    from systemprompt_jobs.builtin.health import HealthServer

    host, _, port = address.rpartition(":")
    if not port.isdecimal():
        raise UsageError(f"--health-address {address}: write HOST:PORT")
    server = HealthServer(runtime, host.strip("[]"), int(port))
    server.start()
    _log.info("health_server_started", host=host, port=server.port)
    return server


def _start(worker: Worker, stops: queue.SimpleQueue[int]) -> bool:
    """Start as soon as the database can be used; return False if told to stop before."""
    tries = 0
    while True:
        try:
            worker.start()
        except StoreUnusableError:
            raise
        except StoreError as error:
            pause = _PAUSES_S[min(tries, len(_PAUSES_S) - 1)]
            tries += 1
            _log.error("database_unavailable", reason=str(error), next_try_s=pause)
        else:
            return True
        try:
            stops.get(timeout=pause)
        except queue.Empty:
            continue
        return False
