"""Tells systemd, where it asks to be told, that the scheduler is ready, alive or stopping."""

from __future__ import annotations

import os
import socket
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def notify(state: str) -> None:
    """Send e.g. `READY=1`; without systemd, do nothing."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        sender.connect(address.replace("@", "\0", 1))
        sender.sendall(state.encode())


def start_watchdog(alive: Callable[[], bool]) -> None:
    """Tell systemd twice per watchdog interval that the process is alive, as long as it is."""
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    if not microseconds.isdecimal() or os.environ.get("WATCHDOG_PID", "") not in (
        "",
        str(os.getpid()),
    ):
        return
    pause = int(microseconds) / 2_000_000

    def watch() -> None:
        never = threading.Event()
        while True:
            if alive():
                notify("WATCHDOG=1")
            never.wait(pause)

    threading.Thread(target=watch, name="jobs-watchdog", daemon=True).start()
