"""A project with jobs, and runtimes of it."""

from __future__ import annotations

from datetime import timedelta

import pytest
from systemprompt_jobs_prometheus import Metrics

from plugins.prometheus.tests.support import ShiftedClock
from systemprompt_jobs import Runtime

JOBS = """
from systemprompt_jobs import job

@job
def works():
    return "done"

@job
def fails():
    raise ValueError("no luck")

@job(schedule="0 0 0 1 1 *", run_on_startup=True)
def starts_up(*, well: bool = True):
    if not well:
        raise ValueError("no luck")

@job(schedule="0 0 * * * *")
def hourly(): ...
"""

CONFIG = """
scheduler:
  local_plugins: [jobs.py]
  jobs:
    - {extension: jobs, job: starts_up, enabled: true}
"""


@pytest.fixture
def project(tmp_path):
    folder = tmp_path / "services" / "scheduler"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(CONFIG)
    (tmp_path / "jobs.py").write_text(JOBS)
    return tmp_path


@pytest.fixture
def load(project):
    """Return a function that loads a runtime with metrics of its own, as a new process would."""
    loaded = []

    def load(metrics=None, *, now=None, **environ):
        runtime = Runtime(
            project,
            plugins=[metrics or Metrics()],
            environ={"SYSTEMPROMPT_PLUGINS": "", **environ},
            clock=ShiftedClock(now) if now else None,
        )
        loaded.append(runtime)
        return runtime

    yield load
    for runtime in loaded:
        runtime.stop(timedelta(0))
