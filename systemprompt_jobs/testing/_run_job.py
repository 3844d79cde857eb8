"""The fixture `run_job`: one call of one job's function, with all that production gives it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from systemprompt_jobs import Job
from systemprompt_jobs.errors import ParameterError

from ._project import TestRuntime, Tests, write_config
from ._times import instant_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    from systemprompt_jobs import Report

_REFUSED = f"{ParameterError.__module__}.{ParameterError.__qualname__}"


class RunJob:
    """Calls a job's function once; nothing is recorded and no time passes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(
        self,
        job: Job[..., Any] | str,
        *,
        plugins: Sequence[object] = (),
        parameters: Mapping[str, Any] | None = None,
        enforce: bool = False,
        tick: str | datetime | None = None,
        config: Mapping[str, Any] | None = None,
        databases: Mapping[str, str] | None = None,
        services: Mapping[type, object] | None = None,
        attempt: int = 1,
    ) -> Report:
        """Return the report of a job: a `@job` function, or the name of one of `plugins`.

        `parameters` are checked as in production; `config` is what `ctx.config` holds,
        `databases` the URLs behind `ctx.db_pool`, `services` what `ctx.get(TYPE)` returns by
        type. `tick` is an instant, read as UTC if it names no zone; without it the run is one by
        hand. Functions of `plugins` (modules, objects, names) wrap the call as they always do.

        Raises ParameterError, UnknownJobError, and ConfigurationError. Whatever the function
        raises is in the report.
        """
        own = [Tests(job)] if isinstance(job, Job) else []
        name = f"tests:{job.name}" if isinstance(job, Job) else job
        sections = {"extensions": {"tests": dict(config)}} if config and own else {}
        settings = {"databases": dict(databases or {}), **sections}
        write_config(self.folder, "", settings)
        runtime = TestRuntime(
            self.folder,
            services or {},
            plugins=[*plugins, *own],
            environ={"SYSTEMPROMPT_PLUGINS": ""},
        )
        try:
            report = runtime.call_once(
                name,
                parameters=parameters,
                enforce=enforce,
                tick=None if tick is None else instant_of(tick, "UTC"),
                attempt=attempt,
            )
        finally:
            runtime.stop()
        if _REFUSED in report.error_types:
            raise ParameterError(report.error)
        return report
