"""Wakes a loop when any node says that there is work, where the database can pass that on."""

from __future__ import annotations

import select
import socket
import threading
from contextlib import closing
from typing import TYPE_CHECKING, Any

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._store import Store

_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 30.0
_LONGEST_STOP_S = 1.0


class Listener:
    """One connection that listens, on one daemon thread that only calls `wake()`.

    It connects again with growing pauses, and makes sure every `check_s` that it is connected.
    What it cannot hear, the loop's own poll finds.
    """

    def __init__(self, store: Store, wake: Callable[[], None], check_s: float) -> None:
        self._store = store
        self._wake = wake
        self._check_s = check_s
        self._pause = _FIRST_PAUSE_S
        self._rope: socket.socket | None = None
        self._log = structlog.get_logger("systemprompt_jobs")

    def start(self) -> None:
        """Start the thread, if there is anything to listen to."""
        if self._store.one_host:
            return
        self._rope, bell = socket.socketpair()
        name = "jobs-listen"
        self._thread = threading.Thread(target=self._run, args=(bell,), name=name, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread soon; one that is just connecting is not waited for."""
        if self._rope is not None:
            self._rope.close()
            self._thread.join(_LONGEST_STOP_S)

    def _run(self, bell: socket.socket) -> None:
        with bell:
            while not self._listen(bell) and not _waited([bell], self._pause):
                self._pause = min(2 * self._pause, _LONGEST_PAUSE_S)

    def _listen(self, bell: socket.socket) -> bool:
        """Pass on what is said; return whether that is over."""
        try:
            with closing(self._store.listen()) as news:
                news.listen()
                self._pause = _FIRST_PAUSE_S
                self._wake()  # for what was said before
                while bell not in _waited([news, bell], self._check_s):
                    if news.came():
                        self._wake()
        except Exception as error:  # noqa: BLE001  # the loops report it, and their poll goes on
            self._log.debug("not_listening", reason=str(error), next_try_s=self._pause)
            return False
        return True


def _waited(files: list[Any], seconds: float) -> list[Any]:
    """Return what can be read within so many seconds."""
    return select.select(files, [], [], seconds)[0]
