"""What plugins test themselves with. Needs pytest.

The fixtures `run_job`, `scheduler` and `nodes` are there without an import.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from ._executors import ExecutorContract
    from ._failpoints import PLACES
    from ._machine import Machine
    from ._plugins import PluginContract
    from ._scheduler import Scheduler
    from ._timeline import Timeline

__all__ = ["PLACES", "ExecutorContract", "Machine", "PluginContract", "Scheduler", "Timeline"]

_LATE = {
    "ExecutorContract": "_executors",
    "PLACES": "_failpoints",
    "Machine": "_machine",
    "PluginContract": "_plugins",
    "Scheduler": "_scheduler",
    "Timeline": "_timeline",
}

pytest.register_assert_rewrite(f"{__name__}._executors", f"{__name__}._plugins")


def __getattr__(name: str) -> Any:
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_LATE[name]}", __name__), name)
