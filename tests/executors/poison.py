"""A plugin of jobs that would harm any process but one of their own."""

from __future__ import annotations

import asyncio
import itertools
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path  # noqa: TC003  # parameters' annotations

from systemprompt_jobs import job


@job
def pid():
    return str(os.getpid())


@job
async def coroutine():
    await asyncio.sleep(0)
    return "awaited"


@job
def leaves_at_once():
    os._exit(3)


@job
def out_of_memory():
    os.kill(os.getpid(), signal.SIGKILL)


@job
def waits_until_told(ctx, *, folder: Path):
    (folder / f"{os.getpid()}.waiting").touch()
    while not ctx.cancelled:
        time.sleep(0.005)
    return "ended by itself"


@job
def forks(*, folder: Path):
    if os.fork() == 0:
        return "child"
    (folder / "parent").touch()
    return "parent"


@job
def has_a_child_that_stays(*, folder: Path):
    child = os.fork()
    if child == 0:
        while not (folder / "release").exists():
            time.sleep(0.005)
        os._exit(0)
    (folder / "child").write_text(str(child), "utf-8")
    os._exit(4)


@job
def multiprocesses():
    context = multiprocessing.get_context("fork")
    child = context.Process(target=print, args=("from a child",))
    child.start()
    child.join()
    return str(child.exitcode)


@job
def holds_the_lock_for_ever(*, folder: Path):
    (folder / f"{os.getpid()}.locked").touch()
    any(itertools.repeat(False))  # an endless loop in C


@job
def starts_a_program(*, folder: Path):
    program = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000000)"])
    (folder / f"{program.pid}.program").touch()
    (folder / f"{os.getpid()}.locked").touch()
    while True:
        time.sleep(1)


@job
def talks(ctx):
    print("printed")
    sys.stderr.write("to standard error\n")
    os.write(1, b"\xff\xfe not text, \x1b[31m\n")
    ctx.log.info("said", n=1, text="a b")
    logging.getLogger("lib").warning("warned", extra={"table": "x"})
    os.write(1, b"no end of line")
    return "done"


@job
def says_and_dies(ctx):
    print("printed")
    ctx.said.annotate({"trace": "4bf9"})
    ctx.log.error("about to die")
    os._exit(3)


@job
def forks_one_that_says(ctx):
    child = os.fork()
    ctx.progress(0 if child else 7, 10)
    ctx.said.annotate({"parent" if child else "child": 1})
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)


@job
def leaves_a_thread_that_says(ctx, *, folder: Path):
    def say():
        while not (folder / "release").exists():
            ctx.progress(1, 10)
            ctx.said.annotate({"late": 1})
            time.sleep(0.001)
        (folder / "released").touch()

    threading.Thread(target=say, daemon=True).start()


@job
def chatters():
    for _ in range(2_000):
        print("x" * 1_000)
    return "done"


@job
def raises_hugely():
    raise ValueError("x" * 50_000_000)


@job
def closes_its_output():
    os.close(1)
    os.close(2)
    return "closed"


@job
def echoes(*, value: dict[str, object]):
    return repr(value)
