"""The pytest plugin: the fixtures `run_job`, `scheduler` and `nodes`.

pytest loads it where systemprompt-jobs is installed, so it imports nothing heavy by itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from pathlib import Path

    from ._machine import Machine
    from ._run_job import RunJob
    from ._scheduler import Scheduler


@pytest.fixture
def run_job(tmp_path_factory: pytest.TempPathFactory) -> RunJob:
    """Return what calls one job's function with all that production gives it."""
    from ._run_job import RunJob

    return RunJob(tmp_path_factory.mktemp("run_job"))


@pytest.fixture
def scheduler(tmp_path: Path) -> Iterator[Scheduler]:
    """Return a scheduler on a clock that the test moves, in a project at `tmp_path`."""
    from ._scheduler import Scheduler

    scheduler = Scheduler(tmp_path)
    yield scheduler
    scheduler.close()


@pytest.fixture
def nodes(scheduler: Scheduler) -> Callable[[int], list[Machine]]:
    """Return what starts so many nodes of `scheduler`."""
    return scheduler.nodes


def pytest_assertrepr_compare(op: str, left: object, right: object) -> list[str] | None:
    """Say of what a number of runs is the number."""
    from sys import modules

    if (timeline := modules.get(f"{__package__}._timeline")) is None:
        return None
    sides: list[Any] = [left, right]
    counts = [side for side in sides if isinstance(side, timeline.Count)]
    if not counts:
        return None
    return [f"{left} {op} {right}: there are {counts[0]} {counts[0].what}"]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    """Show what has happened on virtual time where a test fails."""
    report = yield
    found: Any = getattr(item, "funcargs", {}).get("scheduler")
    if report.failed and hasattr(found, "timeline"):
        report.sections.append(("time line of scheduler", str(found.timeline())))
    return report
