"""The jobs that `ExecutorContract` runs: a plugin that other processes find by its name."""

from __future__ import annotations

import asyncio
import builtins
import os
import sys
import threading
import time
import warnings
from pathlib import Path  # noqa: TC003  # a parameter's annotation
from typing import TYPE_CHECKING

from systemprompt_jobs import JobContext, hookimpl, job

if TYPE_CHECKING:
    from systemprompt_jobs.interfaces import Attempt

_PAUSE_S = 0.005


@job
def say(*, text: str, times: int = 1) -> str:
    """Return a text."""
    return text * times


@job(name="say-async")
async def say_async(*, text: str, times: int = 1) -> str:
    """Return a text."""
    return text * times


@job
def tell(ctx: JobContext) -> None:
    """Say all that an attempt can."""
    _tell(ctx)


@job(name="tell-async")
async def tell_async(ctx: JobContext) -> None:
    """Say all that an attempt can."""
    _tell(ctx)


def _tell(ctx: JobContext) -> None:
    for n in range(1_001):
        ctx.progress(n, 1_000, f"step {n}")
    ctx.log.warning("told", rows=3)


@hookimpl
def attempt_context(attempt: Attempt) -> None:
    """Note something with each attempt, where its function runs."""
    attempt.annotate(noted=attempt.run.id)


@job
def fail(*, error: str = "ValueError") -> None:
    """Raise a built-in error of this name."""
    raise getattr(builtins, error)("as told")


@job(name="fail-async")
async def fail_async(*, error: str = "ValueError") -> None:
    """Raise a built-in error of this name."""
    raise getattr(builtins, error)("as told")


@job(name="give-anything")
def give_anything() -> object:
    """Return what is no result and does not serialize."""
    return threading.Lock()


@job(name="give-anything-async")
async def give_anything_async() -> object:
    """Return what is no result and does not serialize."""
    return threading.Lock()


@job
def fork() -> str:
    """Fork; return in both processes, in the child first."""
    return _fork()


@job(name="fork-async")
async def fork_async() -> str:
    """Fork; return in both processes, in the child first."""
    return _fork()


def _fork() -> str:
    with warnings.catch_warnings(action="ignore"):  # of threads: the child needs none of them
        child = os.fork()
    if child:
        os.waitpid(child, 0)
    return "parent" if child else "child"


@job(name="leave-a-thread")
def leave_a_thread() -> None:
    """Start a thread that never ends."""
    threading.Thread(target=threading.Event().wait, daemon=True).start()


@job(name="leave-a-thread-async")
async def leave_a_thread_async() -> None:
    """Start a thread that never ends."""
    threading.Thread(target=threading.Event().wait, daemon=True).start()


@job
def leave() -> None:
    """Try to end the process."""
    sys.exit(3)


@job(name="leave-async")
async def leave_async() -> None:
    """Try to end the process."""
    sys.exit(3)


@job
def hold(ctx: JobContext, *, folder: Path) -> str:
    """Run until there is a file `release`; say how many did so at once when this one began."""
    own, at_once = _began(ctx, folder)
    while not (folder / "release").exists():
        time.sleep(_PAUSE_S)
    own.unlink()
    return at_once


@job(name="hold-async")
async def hold_async(ctx: JobContext, *, folder: Path) -> str:
    """Run until there is a file `release`; say how many did so at once when this one began."""
    own, at_once = _began(ctx, folder)
    try:
        while not (folder / "release").exists():  # noqa: ASYNC110  # another process makes it
            await asyncio.sleep(_PAUSE_S)
    finally:
        own.unlink()
    return at_once


def _began(ctx: JobContext, folder: Path) -> tuple[Path, str]:
    own = folder / f"{ctx.run.id}.running"
    own.touch()
    return own, str(len([*folder.glob("*.running")]))
