"""Calls lifecycle hooks, one by one, on one thread, where they can hurt nobody."""

from __future__ import annotations

import queue
import threading
import time
import traceback
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pluggy
import structlog

from . import hookspecs
from .errors import text_of
from .model import Observers, Place, Problem

if TYPE_CHECKING:
    from collections.abc import Callable

_CAPACITY = 100_000

DRAIN_S = 5.0
"""How long observers may take to see the last events."""

YIELD_S = 0.1
"""So long observers let runs start first that wait for it: both need the interpreter's lock."""

_LOOK_S = 0.005

SLOW_S = 1.0
"""An observer that takes longer is reported: all that wait are late by it."""

_END: tuple[str, dict[str, Any]] = ("", {})


class Hooks(pluggy.PluginManager):
    """Has our hooks, and knows whether somebody traces their calls."""

    def __init__(self) -> None:
        super().__init__(hookspecs.PROJECT)
        self.add_hookspecs(hookspecs)
        self.traced = False

    def add_hookcall_monitoring(self, before: Any, after: Any) -> Callable[[], None]:
        """Have pluggy tell of each call, from now on."""
        self.traced = True
        return super().add_hookcall_monitoring(before, after)


class Observer:
    """A bounded queue of hook calls and the thread that makes them.

    `put` never blocks: calls that do not fit are counted in `dropped`. A hook that nobody
    implements at its first call costs next to nothing. While `busy`, a thread that had nothing to
    do begins up to `YIELD_S` later.
    """

    def __init__(
        self,
        manager: Hooks,
        capacity: int = _CAPACITY,
        busy: Callable[[], bool] = lambda: False,
    ) -> None:
        self._manager = manager
        self._busy = busy
        self._queue: queue.SimpleQueue[tuple[str, dict[str, Any]]] = queue.SimpleQueue()
        self._capacity = capacity
        self._callers: dict[str, list[tuple[list[pluggy.HookImpl], pluggy.HookCaller]]] = {}
        self._heard: dict[str, bool] = {}
        self._blamed: set[str] = set()
        self._slow: set[tuple[str, str]] = set()
        self._calling: tuple[str, str, float] | None = None
        self._thread = threading.Thread(target=self._run, name="jobs-observer", daemon=True)
        self._log = structlog.get_logger("systemprompt_jobs")
        self._overflow = threading.Lock()
        self._rested = True
        self.dropped = 0

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def put(self, hook: str, **arguments: Any) -> None:
        """Have the hook called soon."""
        heard = self._heard.get(hook)
        if heard is None:
            heard = self._heard[hook] = bool(getattr(self._manager.hook, hook).get_hookimpls())
        if not heard:
            return
        if self._queue.qsize() < self._capacity:
            self._queue.put((hook, arguments))
        else:
            with self._overflow:  # several threads put, and += is not atomic
                self.dropped += 1

    def drain(self, seconds: float) -> None:
        """Make the calls that wait, for at most `seconds`, and end the thread."""
        deadline = time.monotonic() + seconds
        self._queue.put(_END)
        if self._thread.is_alive():
            self._thread.join(max(0, deadline - time.monotonic()))
        if self.dropped:
            self._log.warning("observers_overflowed", dropped=self.dropped)
        if self._thread.is_alive():
            at = self.load()
            self._log.warning("observers_not_drained", waiting=at.waiting, calling=at.calling)

    def load(self) -> Observers:
        """Return how far the thread is. Any thread may ask."""
        calling, waiting = self._calling, self._queue.qsize()
        if calling is None:
            return Observers(waiting, self.dropped)
        plugin, hook, began = calling
        busy = timedelta(seconds=time.monotonic() - began)
        return Observers(waiting, self.dropped, f"{plugin}: {hook}()", busy)

    def flush(self) -> None:
        """Make the calls that wait, on this thread, in place of one that was not started."""
        while not self._queue.empty():
            if (call := self._queue.get()) is not _END:
                self._call(*call)

    def _run(self) -> None:
        while (call := self._queue.get()) is not _END:
            if self._rested:
                self._give_way()
            self._call(*call)
            self._rested = self._queue.empty()

    def _give_way(self) -> None:
        until = time.monotonic() + YIELD_S
        while self._busy() and time.monotonic() < until:
            time.sleep(_LOOK_S)

    def _call(self, hook: str, arguments: dict[str, Any]) -> None:
        if hook not in self._callers:
            self._callers[hook] = self._each(hook)
        for implementations, caller in self._callers[hook]:
            plugin, began = implementations[0].plugin_name, time.monotonic()
            self._calling = (plugin, hook, began)
            try:
                if self._manager.traced:
                    caller(**arguments)
                else:  # as pluggy does, which takes three times as long
                    for one in implementations:
                        one.function(*[arguments[name] for name in one.argnames])
            except BaseException as error:  # noqa: BLE001  # sys.exit() of an observer included
                self._blame(implementations[0], hook, error)
            self._calling = None
            if (took := time.monotonic() - began) > SLOW_S:
                self._report_slow(plugin, hook, took)

    def _report_slow(self, plugin: str, hook: str, took: float) -> None:
        """Name it once: one that is slow always would fill the log."""
        if (plugin, hook) in self._slow:
            return
        self._slow.add((plugin, hook))
        with suppress(Exception):
            self._log.warning(
                "observer_slow",
                plugin=plugin,
                distribution=_distribution(plugin),
                hook=hook,
                took_s=round(took, 3),
                waiting=self._queue.qsize(),
            )

    def _each(self, hook: str) -> list[tuple[list[pluggy.HookImpl], pluggy.HookCaller]]:
        """Return each plugin's functions, in pluggy's order, and what calls them all.

        One by one, since in a joint call one that raises would stop the rest.
        """
        by_plugin: dict[str, list[pluggy.HookImpl]] = {}
        for one in reversed(getattr(self._manager.hook, hook).get_hookimpls()):
            by_plugin.setdefault(one.plugin_name, []).append(one)
        plugins = [own[0].plugin for own in by_plugin.values()]
        callers = []
        for own in by_plugin.values():
            others = [plugin for plugin in plugins if plugin is not own[0].plugin]
            callers.append((own, self._manager.subset_hook_caller(hook, others)))
        return callers

    def _blame(self, implementation: pluggy.HookImpl, hook: str, error: BaseException) -> None:
        plugin = implementation.plugin_name
        if plugin in self._blamed:
            return
        self._blamed.add(plugin)
        reason = f"its observer {hook}() raised {text_of(error)}"
        problem = Problem(plugin, reason, _place(implementation, error), code="observer")
        with suppress(Exception):  # a closed terminal must not silence the other observers
            self._log.error(
                "observer_failed",
                plugin=plugin,
                distribution=_distribution(plugin),
                hook=hook,
                exc_info=error,
            )
        self._call("plugin_failed", {"problem": problem})


def _distribution(plugin: str) -> str:
    """Return what to upgrade or uninstall; empty for a plugin that is not installed."""
    from importlib.metadata import entry_points

    found = entry_points(group=hookspecs.PROJECT, name=plugin)
    return next((point.dist.name for point in found if point.dist), "")


def _place(implementation: pluggy.HookImpl, error: BaseException) -> Place:
    """Return the innermost line of the observer's own file in a traceback."""
    file = implementation.function.__code__.co_filename
    calls = traceback.walk_tb(error.__traceback__)
    lines = [line for frame, line in calls if frame.f_code.co_filename == file]
    return Place(Path(file), lines[-1] if lines else None)
