"""A worker: messages in, runs taken; the functions run by executors of ours."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._intake import Intake

if TYPE_CHECKING:
    from collections.abc import Mapping

    from systemprompt_jobs import Runtime

    from ._line import Line


class Worker:
    """Runs what comes through some lines, from `start` to `stop`."""

    def __init__(self, runtime: Runtime, lines: Mapping[str, Line]) -> None:
        self._runtime = runtime
        self._lines = lines
        self._intakes = [Intake(runtime, pool, line) for pool, line in lines.items()]

    def start(self) -> None:
        """Join the nodes of the database, then listen. Raises ConfigurationError, StoreError."""
        self._runtime.work({pool: line.executor for pool, line in self._lines.items()})
        for intake in self._intakes:
            intake.start()

    def stop(self) -> None:
        """Take nothing more; what runs has the configured grace to end."""
        for intake in self._intakes:
            intake.stop()
        self._runtime.stop()
