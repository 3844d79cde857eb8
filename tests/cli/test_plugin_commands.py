from __future__ import annotations

import sys

import pytest

MODULE = '''
import click

@click.command()
@click.pass_obj
def hello(session):
    """Say hello."""
    click.echo(f"{len(session.runtime().plans)} jobs")
    return 7
'''


@pytest.fixture
def distribution(tmp_path, monkeypatch):
    """Return a function that makes an installed distribution with commands."""
    monkeypatch.syspath_prepend(tmp_path)

    def make(name: str, commands: dict[str, str], module: str = MODULE) -> None:
        (tmp_path / f"{name}_module.py").write_text(module)
        monkeypatch.delitem(sys.modules, f"{name}_module", raising=False)
        info = tmp_path / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        points = "".join(f"{command} = {value}\n" for command, value in commands.items())
        (info / "entry_points.txt").write_text(f"[systemprompt_jobs.commands]\n{points}")

    return make


def test_a_plugin_adds_a_command(jobs, distribution):
    distribution("added1", {"hello": "added1_module:hello"})
    answer = jobs("hello")
    assert (answer.code, answer.out) == (0, "3 jobs\n")


def test_help_lists_it_with_its_distribution_and_without_loading_it(cli, distribution):
    distribution("added2", {"hello": "added2_module:hello"}, "raise SystemExit('loaded')")
    answer = cli("infra", "jobs", "--help")
    assert answer.code == 0
    brought = answer.out.partition("Commands of plugins:\n")[2]
    assert ["hello", "from", "added2"] in [line.split() for line in brought.splitlines()]


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("raise SystemExit(0)", "SystemExit: 0"),
        ("", "AttributeError: "),
        ("hello = 3", "is no click command"),
    ],
)
def test_a_broken_one_is_one_clear_error_and_hurts_no_other(cli, distribution, module, reason):
    distribution("added3", {"hello": "added3_module:hello"}, module)
    answer = cli("infra", "jobs", "hello")
    assert answer.code == 1
    assert answer.err.startswith("error: ")
    assert "added3" in answer.err
    assert reason in answer.err
    assert len(answer.err.splitlines()) == 1
    assert cli("infra", "jobs", "list").code == 0


def test_built_in_names_win(cli, distribution):
    distribution("added4", {"list": "added4_module:hello"})
    assert "added4" not in cli("infra", "jobs", "--help").out
    assert cli("infra", "jobs", "list").out.startswith("no jobs yet")


def test_a_name_that_two_claim_belongs_to_neither(cli, distribution):
    distribution("added5", {"hello": "added5_module:hello"})
    distribution("added6", {"hello": "added6_module:hello"})
    answer = cli("infra", "jobs", "hello")
    assert answer.code == 1
    assert "is claimed by" in answer.err


def test_a_near_one_of_a_plugin_is_named(cli, distribution):
    distribution("added7", {"hello": "added7_module:hello"})
    assert "did you mean hello" in cli("infra", "jobs", "helo").err
