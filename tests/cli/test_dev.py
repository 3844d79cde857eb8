"""`serve --dev`: the scheduler follows its author's edits."""

from __future__ import annotations

import signal

import pytest

PACKAGE = '''
from systemprompt_jobs import job

from .words import WORD


@job(schedule="every: 1s")
def speak():
    """Say the word."""
    if WORD == "oops":
        raise ValueError(WORD)
    return WORD
'''
CONFIG = """
scheduler:
  local_plugins: [jobs.py, talk]
  jobs: [{extension: talk, job: speak, enabled: true}]
"""


@pytest.fixture
def root(new_project):
    root = new_project(config=CONFIG)
    (root / "talk").mkdir(mode=0o755)
    save(root / "talk/__init__.py", PACKAGE)
    save(root / "talk/words.py", 'WORD = "first"')
    return root


def save(file, text):
    """Write a file as editors do: another one takes its place."""
    new = file.with_name(".new")
    new.write_text(text)
    new.chmod(0o644)
    new.rename(file)


def test_edits_are_followed_and_a_broken_one_is_waited_out(started, root):
    process = started("--root", root, "--log-format", "json", "infra", "jobs", "serve", "--dev")
    process.line_with('"message": "first"')

    save(root / "talk/words.py", 'WORD = "second"')
    assert "talk/words.py" in process.line_with('"restarting"')
    process.line_with('"message": "second"')

    save(root / "talk/words.py", "WORD = (")
    assert "was never closed" in process.line_with('"plugin_failed"')
    save(root / "talk/words.py", 'WORD = "oops"')
    assert "ValueError: oops" in process.line_with('"run_failed"')

    save(root / "services/scheduler/config.yaml", "scheduler: {jobs: 5}")
    process.line_with('"scheduler_ended"')
    save(root / "services/scheduler/config.yaml", CONFIG)
    save(root / "talk/words.py", 'WORD = "third"')
    process.line_with('"message": "third"')

    process.signal(signal.SIGINT)
    answer = process.end()
    assert answer.code == 0
    assert "scheduler.jobs" in answer.err  # what was wrong with the configuration is said


def test_the_scheduler_ends_when_what_watches_over_it_is_killed(started, root):
    process = started("--root", root, "--log-format", "json", "infra", "jobs", "serve", "--dev")
    process.line_with('"scheduler_started"')
    process.signal(signal.SIGKILL)
    process.line_with('"scheduler_stopped"')


def test_what_no_edit_can_mend_ends_it(started, tmp_path):
    process = started("--root", tmp_path / "nowhere", "infra", "jobs", "serve", "--dev")
    answer = process.end()
    assert answer.code == 2
    assert "does not exist" in answer.err


def test_a_traceback_is_shown_by_rich_on_a_terminal(terminal, root):
    save(root / "talk/words.py", 'WORD = "oops"')
    shown = terminal("--root", root, "infra", "jobs", "serve", "--dev").read_until("oops\x1b")
    assert "\x1b[" in shown[shown.index("Traceback") - 10 : shown.index("Traceback")]
