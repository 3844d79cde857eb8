"""A project in a temporary folder, and a runtime whose services a test has the last word on."""

from __future__ import annotations

import inspect
import json
from typing import TYPE_CHECKING, Any

import svcs

from systemprompt_jobs import Job, JobExtension, Run, Runtime
from systemprompt_jobs.model import State, Trigger

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime
    from pathlib import Path

    from systemprompt_jobs import Report
    from systemprompt_jobs._context import Resources


class Tests(JobExtension):
    """The extension of job functions that a test adds by themselves: `tests:NAME`."""

    __test__ = False

    def __init__(self, *jobs: Job[..., Any]) -> None:
        self.own = [*jobs]

    def jobs(self) -> Iterable[Job[..., Any]]:
        """Return what was added."""
        return self.own


class TestRuntime(Runtime):
    """A runtime where these services replace those that plugins register."""

    __test__ = False

    def __init__(self, root: Path, services: Mapping[type, object], **arguments: Any) -> None:
        self._fakes = services
        super().__init__(root, **arguments)

    def _new_resources(self) -> Resources:
        resources = super()._new_resources()
        for kind, value in self._fakes.items():  # past the registry's own refusal of a second one
            svcs.Registry.register_value(resources.registry, kind, value)
        return resources

    def call_once(
        self,
        name: str,
        *,
        parameters: Mapping[str, Any] | None = None,
        enforce: bool = False,
        tick: datetime | None = None,
        attempt: int = 1,
    ) -> Report:
        """Return the report of one attempt of a job, which is not recorded nor tried again."""
        plan = self.find(name)
        run = Run(
            1,
            plan.id,
            Trigger.MANUAL if tick is None else Trigger.SCHEDULE,
            State.RUNNING,
            tick=tick,
            attempt=attempt,
            parameters={**plan.parameters, **(parameters or {})},
            enforce=enforce,
            node="test",
        )
        return self.attempt(run).call()


def write_config(root: Path, text: str, settings: Mapping[str, Any]) -> None:
    """Write config.yaml: its text, or else the settings below `scheduler:`."""
    file = root / "services" / "scheduler" / "config.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    written = inspect.cleandoc(text) if text else json.dumps({"scheduler": settings})
    file.write_text(written, "utf-8")
