"""The shell completes what the project has, and stays silent where anything is wrong."""

from __future__ import annotations

import pytest
from click.shell_completion import BashComplete

from systemprompt_jobs.builtin.cli._app import systemprompt


def complete(*words):
    *arguments, incomplete = words
    found = BashComplete(systemprompt, {}, "systemprompt", "X").get_completions(
        list(map(str, arguments)), incomplete
    )
    return [item.value for item in found]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["explain", ""], ["fail", "greet", "off"]),
        (["run", "greet", "f"], ["fail"]),
        (["run", "jobs:g"], ["jobs:greet"]),
        (["pause", "--tag", "p"], ["polite"]),
        (["history", "--job", "gr"], ["greet"]),
        (["history", "--state", "su"], ["succeeded"]),
        (["expl"], ["explain"]),
    ],
)
def test_jobs_tags_states_and_commands(project, words, expected):
    assert complete("--root", project, "infra", "jobs", *words) == expected


def test_runs(jobs, project):
    jobs("run", "greet", "fail")
    assert complete("--root", project, "infra", "jobs", "logs", "") == ["1", "2"]


def test_nothing_is_said_of_a_project_that_is_not_there(tmp_path, capsys):
    assert complete("--root", tmp_path / "nowhere", "infra", "jobs", "run", "") == []
    assert capsys.readouterr() == ("", "")
