"""Every hook, grouped by stage.

A plugin implements a hook by a function of the same name marked with `hookimpl`, taking any of
the hook's arguments by name, in any order. Names carry no prefix: the marker is the namespace.
New arguments may be added to a hook; none is ever renamed or repurposed.

Observation hooks ("observe" below) are called after the commit that made them true, in the
process whose statement changed the row, one by one on one observer thread. An implementation
that raises is logged once per plugin and hurts nobody; a slow one delays other observers, never
a run. Calls that do not fit into the queue are counted and dropped, and a crash may lose a call.
"""

from __future__ import annotations

import functools
import inspect
import sys
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from contextlib import AbstractContextManager
    from datetime import datetime, timedelta

    import svcs

    from ._runtime import Runtime
    from .interfaces import Attempt, Executor, Pages, Schedule
    from .model import Job, Node, Problem, Progress, Report, Run

PROJECT = "systemprompt_jobs"
MARKER = f"{PROJECT}_impl"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@functools.cache
def names() -> frozenset[str]:
    """Return the names of all hooks."""
    return frozenset(
        name
        for name, value in vars(sys.modules[__name__]).items()
        if inspect.isfunction(value) and hasattr(value, f"{PROJECT}_spec")
    )


# --- collect ---


@hookspec
def jobs() -> Iterable[Job[..., Any]]:  # type: ignore[empty-body]
    """Say which jobs this plugin brings.

    Called once, at collection, on the main thread. Return an iterable of what `@job` made.
    A module of decorated functions needs no `jobs()`: its jobs are those defined inside it.
    An exception degrades this plugin; the others work.

    Example::

        @hookimpl
        def jobs():
            return [cleanup, sync]
    """


# --- configure ---


@hookspec
def configured(settings: Mapping[str, Any], runtime: Runtime) -> None:
    """Learn what `scheduler.extensions.<name>` says of this plugin, and check it.

    Called once per `Runtime`, when the configuration has been read, on the main thread; the
    return value is ignored. `settings` is the plugin's own section, read-only, its secrets
    revealed; empty where there is none. `runtime` is for later: its plans may not stand yet.
    A `ConfigurationError` joins the other mistakes of the configuration: all are shown and
    nothing starts. Any other exception degrades the plugin; its jobs and other hooks go on.

    Example::

        @hookimpl
        def configured(settings):
            unknown = settings.keys() - {"url"}
            path = "scheduler.extensions.mine"
            if unknown:
                raise ConfigurationError([Problem(f"{path}.{k}", "unknown key") for k in unknown])
    """


@hookspec
def register_services(registry: svcs.Registry) -> None:
    """Register what jobs get from `ctx.get(Type)`.

    Called once, when a runtime first runs a job, on the calling thread. The return value is
    ignored. `registry` is an `svcs.Registry`; each run gets its own container, which is closed
    when the run ends. An exception degrades this plugin's services: the log names the plugin.

    Example::

        @hookimpl
        def register_services(registry):
            registry.register_factory(Mailer, Mailer.from_env)
    """


# --- provide ---


@hookspec(firstresult=True)
def parse_schedule(text: str, timezone: str) -> Schedule | None:
    """Parse a schedule of another syntax.

    Called at configuration, on the main thread, only for texts of the form `scheme: rest`;
    plain text is always cron. Return a `Schedule`, or None to leave it to other plugins; the
    first result wins. `text` is the whole text; `timezone` the IANA name that applies.
    An exception degrades the job; its text becomes the reason.

    Example::

        @hookimpl
        def parse_schedule(text, timezone):
            if text.startswith("solar:"):
                return Solar(text.removeprefix("solar:").strip(), timezone)
    """


@hookspec(firstresult=True)
def make_executor(
    kind: str, settings: Mapping[str, Any], origin: Mapping[str, Any]
) -> Executor | None:
    """Make the executor that runs the functions of one pool.

    Called when a runtime starts to run jobs, on the calling thread, once for each pool of
    `scheduler.executors` that some job uses. Return an `Executor`, or None to leave `kind` to
    other plugins; the first result wins. `settings` are the pool's other keys, such as `size`.
    `origin` are the plain values with which another process makes the same runtime:
    `Runtime(**origin)`. A ValueError or TypeError is reported as a mistake in the configuration
    of the pool; any exception stops the start.

    Example::

        @hookimpl
        def make_executor(kind, settings):
            if kind == "greenlets":
                return Greenlets(**settings)
    """


# --- run ---


@hookspec
def attempt_context(attempt: Attempt) -> AbstractContextManager[Any] | None:
    """Wrap each call of a function: a tracing span, a lock, a transaction.

    Called for each attempt where its function runs: in the worker thread, the task or the child
    process. Return a context manager, or None to leave this attempt alone. The first plugin
    called is the outermost; inside of all of them the parameters are checked and the services of
    the run are made and closed, so a COMMIT that fails is seen here too. `attempt` has `run`,
    `job` and `annotate(key=value)`. An exception here or on entering fails the attempt before
    its function is called; one on leaving fails it too. Whether an attempt has failed is for the
    core to decide: a context manager that swallows an exception is named in it and ignored.

    Example::

        @hookimpl
        def attempt_context(attempt):
            return tracer.start_as_current_span(attempt.run.job_id)
    """


@hookspec(firstresult=True)
def health_page(path: str, runtime: Runtime) -> tuple[str, bytes] | None:
    """Answer a GET on the health port (`scheduler.health_address`), e.g. of `/metrics`.

    Called on a thread of the health server, for paths other than `/healthz` and `/readyz`, which
    begin with `/` and have no query. `runtime` is the one whose port it is; it may be asked.
    Return the content type and the body, or None to leave the path to other plugins; the first
    result wins. An exception is logged and answered with 500.

    Example::

        @hookimpl
        def health_page(path):
            if path == "/metrics":
                return "text/plain; version=0.0.4", generate_latest()
    """


@hookspec(firstresult=True)
def open_pages(runtime: Runtime) -> Pages | None:
    """Serve pages for people beside a scheduler: `serve --dashboard` asks for it.

    Called once on the main thread, before the scheduler starts. `runtime` is the one that it
    serves; it may be asked from any thread. Return what has begun to answer, see
    `interfaces.Pages`, or None to leave it to other plugins; the first result wins. Raise
    UsageError for settings that are wrong: `serve` says so and ends.

    Example::

        @hookimpl
        def open_pages(runtime):
            pages = MyPages(runtime)
            pages.start()
            return pages
    """


@hookspec(firstresult=True)
def retry_delay(run: Run, report: Report) -> timedelta | float | str | None:
    """Decide how long a failed run waits until it is tried again.

    Called where the function ran, only while attempts are left. Return a duration (seconds, a
    timedelta or text such as `5m`), `GIVE_UP` to end the run, or None to leave it to other plugins
    and then to the job's own policy; the first result wins. It overrides `retry_on` and
    `give_up_on`, never `max_attempts` nor the limit of the next tick. `report` says what went
    wrong: its `error_types` names the error's class and its bases. An exception, or a result
    that is no duration, is logged, and the job's policy counts.

    Example::

        @hookimpl
        def retry_delay(run, report):
            if "ConnectionError" in report.error_types:
                return "2m"
    """


# --- observe, the scheduler ---


@hookspec
def scheduler_started(node: Node) -> None:
    """Observe that a scheduler has registered its node and begins to claim ticks.

    Called once per `serve` (or `Runtime.start()`), before any run of it is observed.

    Example::

        @hookimpl
        def scheduler_started(node):
            print("up:", node.id)
    """


@hookspec
def scheduler_stopping(node: Node) -> None:
    """Observe that a scheduler was asked to stop: it claims no more and lets runs end.

    Example::

        @hookimpl
        def scheduler_stopping(node):
            print("draining:", node.id)
    """


@hookspec
def scheduler_stopped(node: Node) -> None:
    """Observe that a scheduler has stopped; the last call it makes.

    Example::

        @hookimpl
        def scheduler_stopped(node):
            statsd.flush()
    """


@hookspec
def node_joined(node: Node) -> None:
    """Observe that a scheduler's node has joined the others of its database.

    Called in its own process, before `scheduler_started`; and again when others had taken it for
    dead and it came back.

    Example::

        @hookimpl
        def node_joined(node):
            NODES.inc()
    """


@hookspec
def node_left(node: Node) -> None:
    """Observe that a scheduler's node is gone.

    Called in its own process when it has stopped by itself. For one that died, or was silent for
    5/3 of a lease, it is called in another scheduler's process: the one that noticed first.

    Example::

        @hookimpl
        def node_left(node):
            NODES.dec()
    """


@hookspec
def configuration_reloaded(node: Node, problems: tuple[Problem, ...]) -> None:
    """Observe that a running scheduler has read its configuration again.

    `problems` is empty where the new one is in force; else it was refused as a whole, and the
    one before goes on.

    Example::

        @hookimpl
        def configuration_reloaded(node, problems):
            for problem in problems:
                page(f"{node.host}: {problem}")
    """


@hookspec
def clock_skewed(node: Node, offset: timedelta) -> None:
    """Observe that a node's clock has come to differ by more than 1 s from the database's.

    On PostgreSQL only, where the database's clock decides what is due. `offset` is how far the
    node's clock is ahead; it is negative for one that is behind. Called once, and again only
    after the clock was right in between.

    Example::

        @hookimpl
        def clock_skewed(node, offset):
            page(f"{node.host}: the clock is off by {offset}")
    """


# --- observe, ticks and runs ---


@hookspec
def tick_claimed(run: Run) -> None:
    """Observe that this node has claimed a tick and will start it when its time has come.

    Called up to 250 ms ahead of the tick. Called again when another node claims it, after
    `run_rescued` or when its node stopped before it could start.

    Example::

        @hookimpl
        def tick_claimed(run):
            CLAIMED.labels(run.job_id).inc()
    """


@hookspec
def tick_skipped(run: Run) -> None:
    """Observe that a due tick will not run on purpose.

    `run.reason` says why: `overlap`; `paused`; `catch-up` for a start-up run that a caught-up
    tick makes unnecessary; `clock` for one that a wrong clock has claimed; `job` where the
    function itself raised `Skip`: then `run_finished` follows. Skipped start-up and manual runs
    are observed here too (see `run.trigger`). The ticks of a pause are one call when it
    has ended: `run.count` of them, from `run.tick` to `run.last_tick`.

    Example::

        @hookimpl
        def tick_skipped(run):
            SKIPPED.labels(run.job_id, run.reason).inc()
    """


@hookspec
def tick_missed(run: Run) -> None:
    """Observe that ticks came and went while no scheduler could run them.

    One call per stretch: `run.count` ticks from `run.tick` to `run.last_tick`.

    Example::

        @hookimpl
        def tick_missed(run):
            MISSED.labels(run.job_id).inc(run.count)
    """


@hookspec
def run_started(run: Run) -> None:
    """Observe that a function is being started; `run.attempt` says which time.

    Example::

        @hookimpl
        def run_started(run):
            RUNNING.labels(run.job_id).inc()
    """


@hookspec
def run_progressed(run: Run, progress: Progress) -> None:
    """Observe how far a running function says it is, at most once a second for each run.

    Only what was said last is told. What it said at its end is `run.progress` in the hook of
    the end, after which a call that was under way may still come.

    Example::

        @hookimpl
        def run_progressed(run, progress):
            DONE.labels(run.job_id).set(progress.done)
    """


@hookspec
def run_succeeded(run: Run, report: Report) -> None:
    """Observe that a run has succeeded.

    Example::

        @hookimpl
        def run_succeeded(run, report):
            LAST_SUCCESS.labels(run.job_id).set_to_current_time()
    """


@hookspec
def run_failed(run: Run, report: Report) -> None:
    """Observe that a run has failed for good; `report.error` and `report.traceback` say why.

    Example::

        @hookimpl
        def run_failed(run, report):
            page(f"{run.job_id}: {report.error}")
    """


@hookspec
def run_timed_out(run: Run, report: Report) -> None:
    """Observe that a run took longer than its timeout.

    `report.stray` says that the function was not ended: it goes on in a thread, which nobody can
    stop, and what it still does is not recorded. `report.error` says so in words, and
    `report.traceback` where the function was.

    Example::

        @hookimpl
        def run_timed_out(run, report):
            page(f"{run.job_id} hangs since {report.duration}: {report.traceback}")
    """


@hookspec
def run_retrying(run: Run, report: Report, delay: timedelta) -> None:
    """Observe that an attempt has failed and the run is tried again after `delay`.

    `report.outcome` is `failed`, `timed_out` if it was killed at its timeout, `lost` if its node
    died, or `cancelled` if that stopped. The run keeps its slots; `run.attempt` says which
    attempt it was, `run.due` when the next is due.

    Example::

        @hookimpl
        def run_retrying(run, report, delay):
            RETRIES.labels(run.job_id).inc()
    """


@hookspec
def run_cancelled(run: Run, report: Report) -> None:
    """Observe that a run was cancelled: by somebody, or because its node stopped.

    Also one by hand whose node died before it began, and that no other took within its window.
    `report.message` says who or why. Called in the process of the command that cancelled it if
    the function had not started.

    Example::

        @hookimpl
        def run_cancelled(run, report):
            print(run.job_id, "was cut off after", report.duration)
    """


@hookspec
def run_lost(run: Run) -> None:
    """Observe that a run's node died while the function ran; nobody knows how far it came.

    Called in the process that noticed, which is another one than the one that ran it.

    Example::

        @hookimpl
        def run_lost(run):
            page(f"{run.job_id} was lost on {run.node}")
    """


@hookspec
def run_rescued(run: Run) -> None:
    """Observe that a run was taken from a node that died before it could start the function.

    It waits for a node again, `pending` under a higher fence, at no cost. Called in the process
    that noticed; `run.node` is the dead one.

    Example::

        @hookimpl
        def run_rescued(run):
            print(run.job_id, "goes on without", run.node)
    """


@hookspec
def run_dispatched(run: Run) -> None:
    """Observe that a run is being sent to the workers of its pool.

    Called by the node that sends it. `run_started` follows on the worker that begins it.

    Example::

        @hookimpl
        def run_dispatched(run):
            SENT.labels(run.pool).inc()
    """


@hookspec
def run_handed_back(run: Run) -> None:
    """Observe that a run could not be sent, or was sent to a worker that cannot run it.

    It waits for a node again, `pending` under a higher fence, at no cost. `run.message` says why,
    `run.reason` is `not sent` or `no plugin`. Called where that was noticed.

    Example::

        @hookimpl
        def run_handed_back(run):
            page(f"{run.job_id} waits: {run.message}")
    """


@hookspec
def run_finished(run: Run, report: Report | None) -> None:
    """Observe any end of a run that had started, right after the hook of that end.

    `report` is None for a lost run. Ticks that never ran have no call here.

    Example::

        @hookimpl
        def run_finished(run, report):
            RUNS.labels(run.job_id, run.state).inc()
    """


@hookspec
def run_fenced(run: Run, report: Report) -> None:
    """Observe that a report came too late and was discarded: the run was rescued meanwhile.

    Example::

        @hookimpl
        def run_fenced(run, report):
            print(run.job_id, "had been taken away after", report.duration)
    """


# --- observe, jobs ---


@hookspec
def job_paused(job_id: str, until: datetime | None, note: str, who: str) -> None:
    """Observe that somebody has paused a job, or changed the end or the note of its pause.

    Called in the process of the command, or of the `Runtime`, that did it. `until` is None for
    a pause that lasts until somebody ends it.

    Example::

        @hookimpl
        def job_paused(job_id, until, note, who):
            post(f"{who} paused {job_id}: {note}")
    """


@hookspec
def job_resumed(job_id: str, note: str, who: str) -> None:
    """Observe that a pause has ended.

    `who` is empty for one that has come to its end, and `note` is then that of the pause; such
    an end is observed by the scheduler that goes on with the job.

    Example::

        @hookimpl
        def job_resumed(job_id, who):
            post(f"{job_id} goes on, by {who or 'itself'}")
    """


# --- observe, the database ---


@hookspec
def database_unavailable(reason: str) -> None:
    """Observe that a running scheduler cannot use its database any more.

    It starts nothing that it cannot record, and tries again with growing pauses, up to 30 s.
    Called once per outage. One that is not there when a scheduler starts is only logged.

    Example::

        @hookimpl
        def database_unavailable(reason):
            page(reason)
    """


@hookspec
def database_recovered(after: timedelta) -> None:
    """Observe that the database can be used again; `after` is how long it could not be.

    Example::

        @hookimpl
        def database_recovered(after):
            print("the database was gone for", after)
    """


@hookspec
def history_pruned(runs: int, nodes: int, audits: int, before: datetime) -> None:
    """Observe that old history was forgotten: how many runs, nodes and audit rows.

    They ended before `before`. Called once after a pass that deleted something, in the process
    that deleted it.

    Example::

        @hookimpl
        def history_pruned(runs):
            PRUNED.inc(runs)
    """


# --- observe, plugins ---


@hookspec
def plugin_failed(problem: Problem) -> None:
    """Observe that a plugin or a job is degraded, or an observer has raised.

    Called for what is wrong at collection when a scheduler starts, and once per plugin when an
    observer of it raises.

    Example::

        @hookimpl
        def plugin_failed(problem):
            print(problem.culprit, problem.reason)
    """
