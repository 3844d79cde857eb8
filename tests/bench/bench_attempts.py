"""What an attempt costs around its function: context, middleware, progress, kept log lines.

    python -m tests.bench.bench_attempts

Microseconds of processor time per call, the best of several rounds, on one thread and without a
database.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import time
from typing import TYPE_CHECKING, Any

import structlog

from systemprompt_jobs import hookimpl, job
from systemprompt_jobs._context import Resources
from systemprompt_jobs._middleware import Middleware
from systemprompt_jobs._observe import Hooks, Observer
from systemprompt_jobs._output import LogTap, bound_logger
from systemprompt_jobs._run import Attempt
from systemprompt_jobs._said import Said, speaking
from systemprompt_jobs._services import ServiceRegistry
from systemprompt_jobs.model import Plan, Run, State, Trigger
from tests.support import START, make_plan

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS, CALLS = 9, 4_000


def best(call: Callable[[], Any], calls: int = CALLS) -> float:
    """Return the µs per call of the fastest round."""
    times = []
    for _ in range(ROUNDS):
        begun = time.thread_time()
        for _ in range(calls):
            call()
        times.append((time.thread_time() - begun) / calls * 1e6)
    return min(times)


class NoOp:
    @hookimpl
    def attempt_context(self, attempt: Any) -> None:
        """Leave it alone."""

    @hookimpl
    def run_started(self, run: Run) -> None:
        """Leave it alone."""


class Null:
    @hookimpl
    def attempt_context(self, attempt: Any) -> Any:
        return contextlib.nullcontext()


def manager_of(*plugins: object) -> Hooks:
    manager = Hooks()
    for plugin in plugins:
        manager.register(plugin)
    return manager


def middleware(*plugins: object) -> Middleware:
    return Middleware(manager_of(*plugins))


def observing(*plugins: object) -> Callable[[], None]:
    observer, run = Observer(manager_of(*plugins)), Run(1, "a:b", Trigger.MANUAL, State.RUNNING)

    def observe() -> None:
        observer.put("run_started", run=run)
        observer.flush()

    return observe


def entering(wraps: Middleware, attempt: Attempt) -> Callable[[], None]:
    def enter() -> None:
        with contextlib.ExitStack() as stack:
            wraps.around(attempt, stack)

    return enter


def show(name: str, cost: float) -> None:
    print(f"{name:<52} {cost:8.2f} µs")


def main() -> None:
    plan = dataclasses.replace(make_plan(), job=job(lambda ctx: None))
    run = Run(7, plan.id, Trigger.SCHEDULE, State.RUNNING, tick=START, attempt=1, node="h:1:b")
    resources = Resources({}, ServiceRegistry())
    said = Said(run)

    bare = make_plan()

    def attempt(wraps: Middleware | None = None, job: Plan = plan) -> Attempt:
        return Attempt(job, run, resources, lambda: START, said=said, middleware=wraps)

    def arguments(one: Attempt) -> Callable[[], None]:
        def make() -> None:
            with one._arguments():
                pass

        return make

    none, noop, null = middleware(), middleware(NoOp()), middleware(Null())
    plain = best(arguments(attempt()))
    show("all around a function: context, services, bound log", plain)
    show("a whole trivial attempt, with its report", best(lambda: attempt().call()))
    show("  where the function takes no context", best(lambda: attempt(job=bare).call()))
    empty = best(entering(none, attempt()))
    show("attempt_context: no plugin has it", empty)
    show("attempt_context: one more no-op hook", best(entering(noop, attempt())) - empty)
    show("attempt_context: one more nullcontext()", best(entering(null, attempt())) - empty)
    show("a lifecycle hook that nobody has", best(observing()))
    one, two = best(observing(NoOp())), best(observing(NoOp(), NoOp()))
    show("a lifecycle hook, queued and called for one plugin", one)
    show("  for one plugin more", two - one)
    show("Said.progress, what ctx.progress calls", best(lambda: said.progress(1, 2, "")))
    context = said_context(attempt())
    show("ctx.progress(done, total)", best(lambda: context.progress(1, 2)))
    show("ctx.log, making it", best(lambda: context.log, 2_000))
    log_lines(said, run)


def said_context(one: Attempt) -> Any:
    with one._arguments() as ((context,), _):
        return context


def log_lines(said: Said, run: Run) -> None:
    logger, tap = logging.getLogger("bench"), LogTap()
    logger.addHandler(logging.NullHandler())
    logger.setLevel(logging.INFO)
    logging.root.addHandler(logging.NullHandler())
    bare = best(lambda: logger.info("copied %s rows", 3))
    show("a line of logging that nobody keeps", bare)
    tap.attach()
    token = speaking.set(None)
    show("  more, outside of a run", best(lambda: logger.info("copied %s rows", 3)) - bare)
    speaking.set(said)
    show("  more, kept with its run", best(lambda: logger.info("copied %s rows", 3)) - bare)
    speaking.reset(token)
    tap.detach()
    structlog.configure(processors=[lambda *_: ""], logger_factory=lambda *_: Quiet())
    alone = structlog.get_logger().bind()
    bare = best(lambda: alone.info("copied", rows=3))
    show("an event of structlog that nobody keeps", bare)
    log = bound_logger(said, run)
    show("  more, through ctx.log", best(lambda: log.info("copied", rows=3)) - bare)


class Quiet:
    def info(self, _: str) -> None: ...


if __name__ == "__main__":
    main()
