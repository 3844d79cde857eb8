"""What signals do to a process that works until it is told to stop."""

from __future__ import annotations

import os
import queue
import signal
import threading

INTERRUPTED = 130
"""The exit code of a process that an operator has cut off."""

SIGNALS_THREAD = "jobs-signals"
"""The name of the thread that reads them; it never ends by itself."""

STOPPING = (signal.SIGTERM, signal.SIGINT)


def catch_signals(*others: signal.Signals) -> queue.SimpleQueue[int]:
    """Return the queue that the first TERM or INT comes out of; the second ends the process.

    Each of `others` comes out of it too, as often as it is sent. Call it in the main thread.

    A thread reads them, for Python calls handlers in the main thread only: one that waits for a
    lock is not woken by a signal that came just before, or to another thread.
    """
    signals: queue.SimpleQueue[int] = queue.SimpleQueue()
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    caught = STOPPING + others
    for number in caught:
        signal.signal(number, lambda *_: None)  # else it would not be written

    def forget() -> None:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # how a job ends its child; Ctrl-C is for us
        unblock()

    def unblock() -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, caught)

    os.register_at_fork(  # else what is meant for a job's child would be written to our pipe
        before=lambda: signal.pthread_sigmask(signal.SIG_BLOCK, caught),
        after_in_parent=unblock,
        after_in_child=forget,
    )

    def follow() -> None:
        stopping = False
        while True:
            for number in os.read(reader, 100):
                if stopping and number in STOPPING:
                    os._exit(INTERRUPTED)
                stopping |= number in STOPPING
                if number in caught:
                    signals.put(number)

    threading.Thread(target=follow, name=SIGNALS_THREAD, daemon=True).start()
    return signals
