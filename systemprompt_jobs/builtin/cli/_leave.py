"""The end of the process, whatever threads jobs have left behind."""

from __future__ import annotations

import os
import sys
import threading
import time

from systemprompt_jobs.builtin.signals import SIGNALS_THREAD

_PATIENCE_S = 3.0
"""How long Python may wait for threads: everything is recorded by now."""


def end_soon(code: int) -> None:
    """Have the process end with `code`, if it does not end by itself.

    At its end Python waits for threads that are no daemons and for those of thread pools, and a
    job may have left some that never end.
    """
    threading.Thread(target=_end, args=(code,), name="jobs-end", daemon=True).start()


def _end(code: int) -> None:
    time.sleep(_PATIENCE_S)
    own = {threading.current_thread().name, threading.main_thread().name, SIGNALS_THREAD}
    left = ", ".join(t.name for t in threading.enumerate() if t.name not in own)
    sys.stderr.write(f"cut off threads that did not end: {left}\n")
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)
