"""Says each hook call in one line: who was asked what, what they answered, how long it took."""

from __future__ import annotations

import reprlib
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .errors import text_of
from .model import Report, Run

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import pluggy

_short = reprlib.Repr()
_short.maxstring = _short.maxother = 60
_short.maxlist = _short.maxtuple = 3
_short.maxlevel = 1


def trace_hooks(manager: pluggy.PluginManager, say: Callable[[str], None]) -> None:
    """Have `say` told of each hook call that some plugin answers, when it has ended.

    The line is `hook 0.3 ms  PLUGIN  NAME(FIELDS) -> ANSWER`; where one call asks several plugins
    it names them in their order. Calls come from several threads.
    """
    began = threading.local()

    def before(_hook: str, _asked: Sequence[pluggy.HookImpl], _fields: Mapping[str, Any]) -> None:
        began.stack = [*getattr(began, "stack", ()), time.perf_counter()]

    def after(
        outcome: pluggy.Result[Any],
        hook: str,
        asked: Sequence[pluggy.HookImpl],
        fields: Mapping[str, Any],
    ) -> None:
        took_ms = (time.perf_counter() - began.stack.pop()) * 1000
        if asked:
            plugins = ", ".join(i.plugin_name for i in reversed(asked))
            given = ", ".join(f"{name}={_shown(value)}" for name, value in fields.items())
            say(f"hook {took_ms:7.1f} ms  {plugins}  {hook}({given}){_answer(outcome)}")

    manager.add_hookcall_monitoring(before, after)


def _answer(outcome: pluggy.Result[Any]) -> str:
    if outcome.exception is not None:
        return f" raised {text_of(outcome.exception)}"
    result = outcome.get_result()
    if isinstance(result, list) and len(result) == 1:
        (result,) = result
    return "" if result is None or result == [] else f" -> {_shown(result)}"


def _shown(value: object) -> str:
    """Return a value in a few words; never what a setting holds."""
    of_attempt = getattr(value, "run", None)
    value = of_attempt if isinstance(of_attempt, Run) else value
    if isinstance(value, Run):
        return f"run {value.id} of {value.job_id}, {value.status}"
    if isinstance(value, Report):
        return f"{value.outcome} {_short.repr(value.error or value.message)}"
    if isinstance(value, Mapping):
        return f"{{{', '.join(map(str, value))}}}"  # its keys: settings come with secrets revealed
    return " ".join(_short.repr(value).split())
