"""The counter sees each call of a hook once."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pluggy
import pytest
import systemprompt_jobs_counter as counter

from systemprompt_jobs import hookspecs

FOLDER = Path(__file__).parents[1]
OBSERVED = {
    "run_cancelled",
    "run_failed",
    "run_finished",
    "run_lost",
    "run_retrying",
    "run_started",
    "run_succeeded",
    "tick_missed",
    "tick_skipped",
}


@pytest.fixture
def hook():
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    manager.register(counter)
    manager.check_pending()
    counter.counts.clear()
    yield manager.hook
    counter.counts.clear()


def test_each_observed_hook_is_counted_exactly_once(hook):
    for name in OBSERVED:
        getattr(hook, name)(run=None, report=None, delay=None)
    assert counter.counts == dict.fromkeys(OBSERVED, 1)


def test_no_run_or_tick_hook_is_left_out():
    named = {name for name in hookspecs.names() if name.startswith(("run_", "tick_"))}
    assert set(counter.hooks) == named >= OBSERVED


def test_the_counts_are_written_to_the_file_that_the_environment_names(hook, tmp_path, monkeypatch):
    file = tmp_path / "counts"
    monkeypatch.setenv("SYSTEMPROMPT_JOBS_COUNTER_FILE", str(file))
    hook.run_started(run=None)
    hook.run_succeeded(run=None, report=None)
    hook.run_started(run=None)
    assert file.read_text() == "run_started 2\nrun_succeeded 1\n"
    assert list(tmp_path.iterdir()) == [file]


def test_without_the_variable_no_file_is_written(hook, tmp_path, monkeypatch):
    monkeypatch.delenv("SYSTEMPROMPT_JOBS_COUNTER_FILE", raising=False)
    monkeypatch.chdir(tmp_path)
    hook.run_started(run=None)
    assert counter.counts["run_started"] == 1
    assert not list(tmp_path.iterdir())


def test_the_entry_point_names_the_module():
    project = tomllib.loads((FOLDER / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["systemprompt_jobs"] == {"counter": counter.__name__}
