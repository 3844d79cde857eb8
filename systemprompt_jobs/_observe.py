"""Calls lifecycle hooks, one by one, on one thread, where they can hurt nobody."""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING, Any

import structlog

from ._model import Place, Problem

if TYPE_CHECKING:
    import pluggy

_CAPACITY = 100_000
_END: tuple[str, dict[str, Any]] = ("", {})


class Observer:
    """A bounded queue of hook calls and the thread that makes them.

    `put` never blocks: calls that do not fit are counted in `dropped`.
    """

    def __init__(self, manager: pluggy.PluginManager, capacity: int = _CAPACITY) -> None:
        self._manager = manager
        self._queue: queue.Queue[tuple[str, dict[str, Any]]] = queue.Queue(capacity)
        self._callers: dict[str, list[tuple[str, Any]]] = {}
        self._blamed: set[str] = set()
        self._thread = threading.Thread(target=self._run, name="jobs-observer", daemon=True)
        self._log = structlog.get_logger("systemprompt_jobs")
        self.dropped = 0

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def put(self, hook: str, **arguments: Any) -> None:
        """Have the hook called soon."""
        try:
            self._queue.put_nowait((hook, arguments))
        except queue.Full:
            self.dropped += 1

    def drain(self, seconds: float) -> None:
        """Make the calls that wait, for at most `seconds`, and end the thread."""
        if self.dropped:
            self._log.warning("observers_overflowed", dropped=self.dropped)
        try:
            self._queue.put(_END, timeout=seconds)
            self._thread.join(seconds)
        except queue.Full:
            pass
        if self._thread.is_alive():
            self._log.warning("observers_not_drained", waiting=self._queue.qsize())

    def _run(self) -> None:
        while (call := self._queue.get()) is not _END:
            self._call(*call)

    def _call(self, hook: str, arguments: dict[str, Any]) -> None:
        if hook not in self._callers:
            self._callers[hook] = self._each(hook)
        for plugin, caller in self._callers[hook]:
            try:
                caller(**arguments)
            except BaseException as error:  # noqa: BLE001  # sys.exit() of an observer included
                self._blame(plugin, hook, error)

    def _each(self, hook: str) -> list[tuple[str, Any]]:
        """Return one caller per plugin: in a joint call, one that raises would stop the rest.

        They are pluggy's own callers, so that tracing sees each call.
        """
        implementations = list(getattr(self._manager.hook, hook).get_hookimpls())
        plugins = [i.plugin for i in implementations]
        return [
            (
                i.plugin_name,
                self._manager.subset_hook_caller(hook, [p for p in plugins if p is not i.plugin]),
            )
            for i in implementations
        ]

    def _blame(self, plugin: str, hook: str, error: BaseException) -> None:
        if plugin in self._blamed:
            return
        self._blamed.add(plugin)
        reason = f"its observer {hook}() raised {type(error).__name__}: {error}"
        self._log.error("observer_failed", plugin=plugin, hook=hook, exc_info=error)
        self.put("plugin_failed", problem=Problem(plugin, reason, _place(error)))


def _place(error: BaseException) -> Place:
    from pathlib import Path

    entry = error.__traceback__
    while entry is not None and entry.tb_next is not None:
        entry = entry.tb_next
    return Place(Path(entry.tb_frame.f_code.co_filename), entry.tb_lineno) if entry else Place()
