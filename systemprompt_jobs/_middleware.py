"""What plugins wrap around each call of a function: the hook `attempt_context`."""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack
from typing import TYPE_CHECKING, Any

from .errors import PluginError, text_of

if TYPE_CHECKING:
    from types import TracebackType

    import pluggy

    from .interfaces import Attempt

_HOOK = "attempt_context"


class Middleware:
    """Every plugin's `attempt_context`, looked up once: plugins that have none cost nothing."""

    def __init__(self, manager: pluggy.PluginManager) -> None:
        found = getattr(manager.hook, _HOOK).get_hookimpls()
        plugins = {i.plugin: i.plugin_name for i in reversed(found)}  # in the order of calls
        # One caller each, so that it is known who returned what; tracing sees them all.
        self._callers = [
            (name, manager.subset_hook_caller(_HOOK, [p for p in plugins if p is not plugin]))
            for plugin, name in plugins.items()
        ]

    def around(self, attempt: Attempt, stack: ExitStack) -> None:
        """Enter what plugins return for this attempt, the first one called outermost."""
        for plugin, caller in self._callers:
            try:
                returned = caller(attempt=attempt)
            except BaseException as error:  # sys.exit() too
                raise _refusal(plugin, f"raised {text_of(error)}") from error
            for manager in returned:
                stack.enter_context(_Guarded(plugin, manager))


def _refusal(plugin: str, what: str) -> PluginError:
    return PluginError(f"the plugin {plugin!r} did not let the attempt begin: its {_HOOK}() {what}")


class _Guarded(AbstractContextManager[None]):
    """A plugin's context manager: it may see and add errors, and never takes one away."""

    def __init__(self, plugin: str, manager: Any) -> None:
        self._plugin, self._manager = plugin, manager

    def __enter__(self) -> None:
        if not isinstance(self._manager, AbstractContextManager):
            what = f"returned {self._manager!r}: return a context manager or None"
            raise _refusal(self._plugin, what)
        try:
            self._manager.__enter__()
        except BaseException as error:
            what = f"returned what raised on entering: {text_of(error)}"
            raise _refusal(self._plugin, what) from error

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        where = f"the {_HOOK}() of the plugin {self._plugin!r}"
        try:
            swallowed = self._manager.__exit__(kind, error, traceback)
        except BaseException as own:
            if own is not error:
                own.add_note(f"raised on leaving {where}")
            raise
        if swallowed and error is not None:
            error.add_note(f"{where} swallowed this; the attempt has failed all the same")
