"""A scheduler process, `serve`, that breaks at a named place; the product knows nothing of it.

`FAULTS_AT=place:n:SIGNAL` sends the process that signal when it comes to the place for the n-th
time. `FAULTS_CLOCK` names a file that says how far its wall clock is off. `FAULTS_FSIZE` limits
the size of every file it writes, which then behaves like a full disk. `FAULTS_HOST` is what it
takes for the name of its host. With `FAULTS_PLAIN` root has no more rights than others. With
`FAULTS_MAIL` every message to a worker is sent twice, but each tenth not at all.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import resource
import signal
import socket
import sys
import threading
import time
from contextlib import contextmanager
from datetime import timedelta
from functools import wraps
from pathlib import Path

from systemprompt_jobs import _clock, _load, _node, _record
from systemprompt_jobs._claim import Claimer
from systemprompt_jobs._store import Store, runs
from systemprompt_jobs.builtin.cli import main

PLACES = (
    "in_claim",  # ticks inserted, not committed
    "after_claim",  # committed, nobody told
    "in_gate",
    "after_gate",  # committed, function not started
    "mid_run",
    "before_finish",  # the function has returned
    "in_finish",
)

_place, _hits, _signal = (os.environ.get("FAULTS_AT") or "nowhere:1:SIGKILL").split(":")
_left = int(_hits)
_writing = threading.RLock()


def point(name: str) -> None:
    """Break here if this is the place and the time.

    Only at the places called `in_…` is a transaction open: a process that froze in one by chance
    would hold SQLite's lock, which is another test.
    """
    global _left  # noqa: PLW0603
    if name != _place:
        return
    with _writing:
        _left -= 1
        if _left == 0:
            os.kill(os.getpid(), signal.Signals[_signal])
            time.sleep(0.2)  # the signal may come to another thread first


def wall_offset_s() -> tuple[float, float]:
    """Return how far the wall clock is off now, and until a second ago.

    A step back between the gate and the first line of a function is nobody's early start.
    """
    file = os.environ["FAULTS_CLOCK"]
    now, before, since = map(float, Path(file).read_text("ascii").split())
    return now, before if time.monotonic() < since + 1 else now


class SkewedClock(_clock.SystemClock):
    """The machine's clocks, the wall clock off by what the file says."""

    def now(self):
        """Return the wall clock of this node."""
        return super().now() + timedelta(seconds=wall_offset_s()[0])


def before(owner: object, name: str, place: str) -> None:
    """Break before this function, whenever there is something for it to do."""
    function = getattr(owner, name)

    @wraps(function)
    def broken(*args, **kwargs):
        point(place)
        return function(*args, **kwargs)

    setattr(owner, name, broken)


def after(owner: object, name: str, place: str) -> None:
    """Break after this function, whenever it has done something."""
    function = getattr(owner, name)

    @wraps(function)
    def broken(*args, **kwargs):
        result = function(*args, **kwargs)
        if any(result) if isinstance(result, tuple) else result:
            point(place)
        return result

    setattr(owner, name, broken)


def notice_writing() -> None:
    """Let `point` know whether a transaction is open."""
    write = Store.write

    @contextmanager
    def noticed(self):
        with _writing, write(self) as connection:
            yield connection

    Store.write = noticed


def drop_capabilities() -> None:
    """Have file permissions count for root too."""
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # version 3, this thread and those it starts
    none = (ctypes.c_uint32 * 6)()
    if ctypes.CDLL(None, use_errno=True).capset(header, none):
        raise OSError(ctypes.get_errno(), "capset")


def spoil_mail() -> None:
    """Send every message twice, but each tenth not at all."""
    from systemprompt_jobs_celery._sender import Sender

    publish, numbers = Sender._publish, itertools.count(1)

    def badly(self, run_id, fence):
        for _ in range(2 if next(numbers) % 10 else 0):
            publish(self, run_id, fence)

    Sender._publish = badly


def serve() -> int:
    """Put the faults in and run the command line."""
    notice_writing()
    after(runs, "add", "in_claim")
    after(Claimer, "_claim", "after_claim")
    after(runs, "gate", "in_gate")
    before(_node.LiveNode, "_start", "after_gate")
    before(_record.Recorder, "report", "before_finish")
    after(runs, "finish", "in_finish")
    _load.SystemClock = SkewedClock
    if host := os.environ.get("FAULTS_HOST"):
        socket.gethostname = lambda: host
    if "FAULTS_PLAIN" in os.environ:
        drop_capabilities()
    if "FAULTS_MAIL" in os.environ:
        spoil_mail()
    if limit := os.environ.get("FAULTS_FSIZE"):
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
    return main()


if __name__ == "__main__":
    sys.exit(serve())
