"""What every plugin with jobs must do, as tests."""

from __future__ import annotations

import hashlib
import inspect
import re
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from importlib import metadata
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import pytest

from systemprompt_jobs.errors import JobsError
from systemprompt_jobs.model import Plan, State

from ._project import TestRuntime, write_config

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path


_OF_SCHEDULES = {"never-fires", "every-second", "five-fields"}
"""Findings of `check` that an author cures, or silences."""

_NOW = datetime(2026, 1, 1, tzinfo=UTC)


class PluginContract:
    """Base class for the tests of a plugin.

    Derive a class whose name begins with `Test`, and name the plugin: its entry point, its
    module, or the module or object itself. Each job has its tests.

    - `services`: what `ctx.get(TYPE)` returns, by type, in place of what the plugin registers.
    - `settings(root)`: override it to return what stands below `scheduler:`, e.g. `databases`, or
      `jobs` with the parameters that a job needs.
    - `prepare(root)`: override it to make the files and tables that jobs look at, in the
      project's folder. A dry run of each job must leave all files and tables as they are.

    Example::

        class TestShop(PluginContract):
            plugin = "shop_jobs"
    """

    plugin: object
    services: Mapping[type, object] = MappingProxyType({})

    def settings(self, root: Path) -> Mapping[str, Any]:  # noqa: ARG002  # for those who override
        """Return what the project's configuration says."""
        return {}

    def prepare(self, root: Path) -> None:
        """Make what the jobs look at."""

    @pytest.fixture
    def runtime(self, tmp_path: Path) -> Iterator[TestRuntime]:
        """Yield a runtime of a project that has this plugin alone."""
        runtime = self._runtime(tmp_path)
        self.prepare(tmp_path)
        yield runtime
        runtime.stop()

    @pytest.fixture
    def plan(self, runtime: TestRuntime, job_id: str) -> Plan:
        """Return the plan of the job under test."""
        return runtime.find(job_id)

    def _runtime(self, root: Path) -> TestRuntime:
        write_config(root, "", {"databases": {}, **self.settings(root)})
        environ = {"SYSTEMPROMPT_PLUGINS": ""}
        return TestRuntime(root, self.services, plugins=[self.plugin], environ=environ)

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        if "job_id" in metafunc.fixturenames:
            metafunc.parametrize("job_id", self._job_ids(metafunc.config))

    def _job_ids(self, config: pytest.Config) -> list[str]:
        factory: pytest.TempPathFactory = config._tmp_path_factory  # type: ignore[attr-defined]  # noqa: SLF001
        try:
            plans = self._runtime(factory.mktemp("plugin")).plans
        except JobsError:  # the first test tells
            return []
        return [plan.id for plan in plans]

    def test_it_can_be_imported_and_nothing_of_it_is_degraded(self, runtime: TestRuntime) -> None:
        assert [str(problem) for problem in runtime.degraded] == []
        assert len({plan.id for plan in runtime.plans}) == len(runtime.plans)

    def test_each_job_is_described(self, plan: Plan) -> None:
        assert plan.job.description, f"{plan.job!r}: the first line of a docstring describes it"

    def test_each_schedule_is_one_that_somebody_means(
        self, runtime: TestRuntime, plan: Plan
    ) -> None:
        found = [problem for problem in runtime.lint() if problem.culprit == plan.id]
        assert [str(problem) for problem in found if problem.code in _OF_SCHEDULES] == []
        if plan.schedule is not None:
            assert plan.schedule.next(_NOW), f"{plan.schedule.text!r} has no tick after {_NOW}"

    def test_each_parameter_has_a_type_and_stands_in_the_documentation(self, plan: Plan) -> None:
        text = "\n".join(_documentation(plan))
        for name, parameter in inspect.signature(plan.job.function).parameters.items():
            if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
                assert parameter.annotation is not parameter.empty, f"{name} has no annotation"
                assert re.search(rf"\b{name}\b", text), (
                    f"{plan.id}: neither a docstring nor the README says what {name} is"
                )

    def test_a_dry_run_succeeds_and_changes_nothing(
        self, runtime: TestRuntime, plan: Plan, tmp_path: Path
    ) -> None:
        before = _contents(tmp_path)
        report = runtime.call_once(plan.id)
        assert report.outcome in {State.SUCCEEDED, State.SKIPPED}, (
            f"{report.outcome}: {report.error}\n{report.traceback}"
        )
        after = _contents(tmp_path)
        changed = [name for name, content in before.items() if after.get(name) != content]
        assert changed == [], f"a dry run of {plan.id} has changed {', '.join(changed)}"


def _documentation(plan: Plan) -> Iterable[str]:
    """Yield the docstrings of the function and its module, and the distribution's README."""
    function = inspect.unwrap(plan.job.function)
    yield inspect.getdoc(function) or ""
    yield inspect.getdoc(inspect.getmodule(function)) or ""
    if plan.extension.distribution:
        about = metadata.metadata(plan.extension.distribution)
        yield about.get("Description") or str(about.get_payload())  # type: ignore[attr-defined]


def _contents(root: Path) -> dict[str, object]:
    """Return what is in the files of a folder; of SQLite databases, what their tables say."""
    files = [file for file in sorted(root.rglob("*")) if file.is_file()]
    return {
        str(file.relative_to(root)): _content(file)
        for file in files
        if not file.name.endswith(("-wal", "-shm"))
    }


def _content(file: Path) -> object:
    content = file.read_bytes()
    if not content.startswith(b"SQLite format 3"):
        return hashlib.sha256(content).hexdigest()
    with closing(sqlite3.connect(file)) as connection:
        return list(connection.iterdump())
