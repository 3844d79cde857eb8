"""What the executor contract asks of one whose functions run on other nodes: through the record."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from systemprompt_jobs import Report, Runtime, hookimpl
from systemprompt_jobs.errors import UsageError
from systemprompt_jobs.model import State

from ._voices import HeardVoice

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from systemprompt_jobs.interfaces import RemoteExecutor

PATIENCE_S = 60.0


_JOBS = ("say", "tell", "fail", "give-anything", "fork", "leave-a-thread", "leave", "hold")


class _Given:
    """The plugin that provides the executor under test."""

    def __init__(self, executor: RemoteExecutor) -> None:
        self._executor = executor

    @hookimpl
    def make_executor(self, kind: str) -> RemoteExecutor | None:
        return self._executor if kind == "given" else None


def write_project(root: Path) -> None:
    """Have all jobs of the contract run in the executor under test."""
    entries = [{"extension": "jobs", "job": name, "overlap": "allow"} for name in _JOBS]
    scheduler = {
        "executors": {"default": {"kind": "given"}},
        "shutdown_grace": "0s",
        "jobs": entries,
    }
    folder = root / "services" / "scheduler"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(json.dumps({"scheduler": scheduler}), "utf-8")


class RecordedBench:
    """Hands runs to a scheduler that has the executor, and reads what became of them."""

    def __init__(
        self, origin: Mapping[str, Any], executor: RemoteExecutor, size: int, folder: Path
    ) -> None:
        self.size = size
        self.kills = executor.capabilities.kills
        self.frees = self.kills  # a node counts what was cancelled and goes on
        self.voices: dict[int, HeardVoice] = defaultdict(HeardVoice)
        self.seen: dict[int, Report] = {}
        self._executor = executor
        self._folder = folder
        self._open: set[int] = set()
        self._runtime = Runtime(**{**origin, "plugins": [*origin["plugins"], _Given(executor)]})
        self._runtime.start()

    def submit(self, name: str, **parameters: Any) -> int:
        """Hand over a run; return its id."""
        (run,) = self._runtime.submit(f"jobs:{name}", parameters=parameters)
        self._open.add(run.id)
        return run.id

    def hold(self) -> int:
        """Hand over a run that goes on until `release`."""
        return self.submit("hold", folder=str(self._folder))

    def until_running(self, count: int) -> None:
        """Wait until `count` of them have begun."""
        until(lambda: len([*self._folder.glob("*.running")]) >= count)

    def release(self) -> None:
        """Let all of them end."""
        (self._folder / "release").touch()

    def interrupt(self, run: int) -> None:
        """Cancel a run; one that has ended stays as it is."""
        with suppress(UsageError):
            self._runtime.cancel(run)

    def stop_taking(self) -> None:
        """Close the executor when all runs are on their way."""
        until(lambda: not self._runtime.history(states=[State.PENDING, State.CLAIMED]))
        self._executor.close()

    def reports(self, count: int) -> Mapping[int, Report]:
        """Return the next reports."""
        found: dict[int, Report] = {}

        def look() -> bool:
            for id_ in sorted(self._open):
                run = self._runtime.find_run(id_)
                if run.finished is not None and len(found) < count:
                    began = run.started or run.finished
                    self.seen[id_] = found[id_] = Report(
                        run.state, began, run.finished, message=run.message, error=run.error
                    )
                    self._hear(id_)
                    self._open.remove(id_)
            return len(found) == count

        until(look)
        return found

    def _hear(self, id_: int) -> None:
        run, voice = self._runtime.find_run(id_), self.voices[id_]
        if run.progress is not None:
            voice.progress(run.progress.done, run.progress.total, run.progress.message)
        for attempt in self._runtime.attempts(run):
            voice.annotate(attempt.annotations)
            if attempt.log:
                voice.output(attempt.log)

    def close(self) -> None:
        """Stop the scheduler when all has ended."""
        self.release()
        self.reports(len(self._open))
        self._runtime.stop()


def until(condition: Any) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)
