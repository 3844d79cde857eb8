"""`serve`: the scheduler, until a signal ends it."""

from __future__ import annotations

import gc
import queue
import signal
import sys
import threading
from collections import Counter
from typing import TYPE_CHECKING

import click
import structlog

from systemprompt_jobs import __version__
from systemprompt_jobs.builtin.signals import catch_signals
from systemprompt_jobs.errors import StoreError, StoreUnusableError, UsageError

from . import _dev
from ._plans import condition, next_ticks
from ._systemd import notify, start_watchdog
from ._text import listed, one_line, say
from ._times import instant, now, relative

if TYPE_CHECKING:
    from collections.abc import Iterator

    from systemprompt_jobs import Runtime
    from systemprompt_jobs.builtin.health import HealthServer
    from systemprompt_jobs.interfaces import Pages

    from ._session import Session

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 30.0

_log = structlog.get_logger("systemprompt_jobs")


@click.command("serve")
@click.option("--watch-config", is_flag=True, help="Reload when a configuration file changes.")
@click.option("--dashboard", is_flag=True, help="Serve the dashboard's pages too.")
@click.option("--dev", is_flag=True, help="Start anew when the configuration or the code of a "
              "plugin changes.")  # fmt: skip
@click.pass_context
def command(ctx: click.Context, watch_config: bool, dashboard: bool, dev: bool) -> None:
    """Run the scheduler until it is told to stop.

    TERM and Ctrl-C let running jobs end, for at most `shutdown_grace`; a second one leaves at
    once. HUP reads the configuration again. A database that cannot be reached is waited for.
    """
    session: Session = ctx.obj
    if dev and not _dev.Child.is_here():
        session.log("serve")
        ctx.exit(_dev.supervise())
    signals = catch_signals(signal.SIGHUP)
    runtime = session.runtime_at_work(*([_dev.Child()] if dev else []))
    session.log("dev" if dev else "serve")
    pages = runtime.open_pages() if dashboard else None
    if session.logs_for_people(sys.stdout):
        say(*_first_screen(runtime, pages))
    elif pages is not None:
        _log.info("dashboard_started", address=pages.address)
    for warning in runtime.warnings:
        _log.warning("configuration_warning", culprit=warning.culprit, reason=str(warning))
    health = _health_server(runtime)
    if _start(runtime, signals):
        gc.freeze()  # what is loaded stays: the collector would look at it every few thousand runs
        notify("READY=1")
        start_watchdog(lambda: runtime.health().live)
        if watch_config:
            _watch(runtime)
        while signals.get() == signal.SIGHUP:
            runtime.reload()
    notify("STOPPING=1")
    runtime.stop(_dev.GRACE if dev else None)
    if health is not None:
        health.stop()
    if pages is not None:
        pages.stop()


def _watch(runtime: Runtime) -> None:
    """Reload when files change: folders are watched, so that atomic saves and swaps are seen."""
    try:
        from watchfiles import watch
    except ImportError:
        raise UsageError(
            "--watch-config needs watchfiles: pip install systemprompt-jobs[watch]"
        ) from None
    folders = {file.parent for file in (runtime.project.config, runtime.project.profile) if file}

    def follow() -> None:
        # yield_on_timeout: the first look tells that watching has begun.
        changes = watch(*folders, recursive=False, yield_on_timeout=True, rust_timeout=200)
        next(changes)
        _log.info("watching_configuration", folders=sorted(map(str, folders)))
        for change in changes:
            if change:
                runtime.reload()

    threading.Thread(target=follow, name="jobs-watch-config", daemon=True).start()


def _health_server(runtime: Runtime) -> HealthServer | None:
    """Answer probes already while a database is waited for."""
    address = runtime.settings.health_address
    if not address:
        return None
    from systemprompt_jobs.builtin.health import HealthServer

    host, _, port = address.rpartition(":")
    server = HealthServer(runtime, host.strip("[]"), int(port))
    server.start()
    _log.info("health_server_started", host=host, port=server.port)
    return server


def _start(runtime: Runtime, signals: queue.SimpleQueue[int]) -> bool:
    """Start as soon as the database can be used; return False if told to stop before."""
    for pause in _pauses():
        try:
            runtime.start()
        except StoreUnusableError:
            raise
        except StoreError as error:
            _log.error("database_unavailable", reason=str(error), next_try_s=pause)
        else:
            return True
        try:
            number = signals.get(timeout=pause)
        except queue.Empty:
            continue
        if number != signal.SIGHUP:
            return False
        runtime.reload()
    raise AssertionError("the pauses never end")


def _pauses() -> Iterator[float]:
    pause = _FIRST_PAUSE_S
    while True:
        yield pause
        pause = min(pause * 2, _LONGEST_PAUSE_S)


def _first_screen(runtime: Runtime, pages: Pages | None) -> Iterator[str]:
    settings = runtime.settings
    found = Counter(condition(plan) for plan in runtime.plans)
    grace = f"{settings.shutdown_grace.total_seconds():g} s"
    yield f"systemprompt-jobs {__version__}, times are UTC"
    yield f"  project   {one_line(runtime.project.root)}"
    yield f"  database  {one_line(settings.sources['database'][-1].value)}"
    yield f"  jobs      {listed(f'{n} {name}' for name, n in found.items()) or 'none'}"
    yield f"  next      {_next(runtime)}"
    if pages is not None:
        yield f"  dashboard {pages.address}"
        yield from [f"            to act, log in with {pages.token}"] if pages.token else ()
    yield f"  Ctrl-C stops; running jobs have {grace} to end, a second Ctrl-C leaves at once"
    if not settings.enabled:
        yield "  switched off: scheduler.enabled is false, so nothing will run"


def _next(runtime: Runtime) -> str:
    present = now()
    coming = [(t, plan.id) for plan in runtime.plans for t in next_ticks(plan, present, 1)]
    if not coming:
        return "nothing is scheduled"
    tick, name = min(coming)
    return f"{name} {relative(tick, present)}, at {instant(tick)}"
