"""The page of commands leaves nothing out."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from systemprompt_jobs.builtin.cli import _failures
from systemprompt_jobs.builtin.cli._app import COMMANDS, jobs, systemprompt
from systemprompt_jobs.builtin.cli._runs import STATES

PAGE = (Path(__file__).parents[2] / "docs/reference/commands.md").read_text()
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))


def options(command):
    return [
        name
        for option in command.params
        if isinstance(option, click.Option)
        for name in (*option.opts, *option.secondary_opts)
    ]


def command(name):
    found = jobs.get_command(click.Context(jobs), name)
    assert found is not None
    return found


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_its_section_with_each_option(name):
    section = SECTIONS[f"`{name}`"]
    assert [option for option in options(command(name)) if f"`{option}" not in section] == []


def test_the_global_options_are_described():
    section = SECTIONS["Options of all commands"]
    assert [option for option in options(systemprompt) if f"`{option}" not in section] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_the_summary_is_that_of_the_command(name):
    assert command(name).get_short_help_str(limit=200) == COMMANDS[name][1]


def test_each_exit_code_is_described():
    codes = (0, _failures.FAILED, _failures.WRONG_USE, _failures.NO_DATABASE)
    for code in (*codes, _failures.INTERRUPTED):
        assert f"| {code} |" in SECTIONS["Exit codes"]


def test_each_state_is_described():
    assert [state for state in STATES if f"`{state}`" not in SECTIONS["Output"]] == []
