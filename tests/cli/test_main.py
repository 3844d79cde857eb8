from __future__ import annotations

import subprocess
import sys

import pytest

from systemprompt_jobs import __version__

HEAVY = {"rich", "sqlalchemy", "pydantic", "yaml", "structlog", "alembic", "croniter", "psycopg"}
HEAVY |= {"asyncio", "svcs"}


def loaded_by(*arguments: str) -> set[str]:
    """Return which heavy modules a fresh process has loaded after a command."""
    code = (
        "import sys; from systemprompt_jobs.builtin.cli import main; "
        f"main({[*arguments]!r}); print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return HEAVY & set(done.stderr.split())


@pytest.mark.parametrize("group", [[], ["infra"], ["infra", "jobs"], ["infra", "jobs", "list"]])
def test_help_loads_nothing_heavy(group):
    assert loaded_by(*group, "--help") <= ({"asyncio"} if group else set())


def test_list_does_not_load_alembic(project):
    assert "alembic" not in loaded_by("--root", str(project), "infra", "jobs", "list")


def test_version(cli):
    assert cli("--version").out == f"systemprompt-jobs {__version__}\n"


@pytest.mark.parametrize("group", [[], ["infra"], ["infra", "jobs"]])
def test_h_is_help(cli, group):
    assert cli(*group, "-h").out == cli(*group, "--help").out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["infr"], "there is no command 'infr'; did you mean infra?"),
        (["infra", "job"], "there is no command 'job'; did you mean jobs?"),
        (["infra", "jobs", "histry"], "there is no command 'histry'; did you mean history"),
        (["infra", "jobs", "config", "shw"], "there is no command 'shw'; did you mean show?"),
        (["infra", "jobs", "db", "upgrde"], "there is no command 'upgrde'; did you mean upgrade?"),
        (["infra", "jobs", "xyz"], "there is no command 'xyz'; there is "),
        (["infra", "jobs", "list", "--jsn"], "--json"),
        (["--rot", "x", "infra"], "--root"),
        (["--log-format", "xml", "infra", "jobs", "list"], "'human', 'json'"),
    ],
)
def test_what_is_unknown_is_wrong_use_and_near_ones_are_named(cli, arguments, said):
    answer = cli(*arguments)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith("error: ")
    assert said in answer.err


def test_wrong_use_names_the_help(cli):
    assert cli("infra", "jobs", "lst").err.endswith("\nsee systemprompt infra jobs --help\n")


def test_an_option_of_all_commands_after_one_is_told_where_it_stands(cli):
    answer = cli("infra", "jobs", "serve", "--strict")
    assert answer.code == 2
    assert answer.err == (
        "error: --strict stands before the command: systemprompt --strict …\n"
        "see systemprompt --help\n"
    )


@pytest.mark.parametrize("root", ["nowhere", "file"])
def test_a_root_that_is_no_folder_is_wrong_use(cli, tmp_path, root):
    (tmp_path / "file").touch()
    answer = cli("--root", tmp_path / root, "infra", "jobs", "list")
    assert answer.code == 2
    assert answer.err.startswith(f"error: --root: '{tmp_path / root}' ")


def test_the_project_is_found_upwards(cli, project, monkeypatch):
    monkeypatch.chdir(project / "services")
    assert cli("infra", "jobs", "status", "--json").json["root"] == str(project)


def test_root_wins_over_the_environment(cli, project, tmp_path, monkeypatch):
    monkeypatch.setenv("SYSTEMPROMPT_ROOT", str(tmp_path / "elsewhere"))
    answer = cli("--root", project, "infra", "jobs", "status", "--json")
    assert answer.json["root"] == str(project)


def test_trace_hooks_prints_hook_calls(cli, project):
    answer = cli("--root", project, "--trace-hooks", "infra", "jobs", "run", "greet")
    assert " ms  core.logs  run_succeeded(run=run 1 of jobs:greet, succeeded, " in answer.err
    assert "make_executor" not in answer.out
    assert "PATH" not in answer.err  # what a process was started with may be secret


def test_a_database_that_cannot_be_used_is_exit_3(jobs, project):
    (project / "var").mkdir()
    (project / "var/jobs.db").write_text("this is no database, however long you look at it")
    for command in (["list"], ["status"], ["history"], ["run", "greet"]):
        answer = jobs(*command)
        assert answer.code == 3, command
        assert answer.err.startswith("error: the database "), command
        assert "Traceback" not in answer.err


def test_a_reader_that_goes_away_ends_the_command_quietly(started, project):
    process = started("--root", project, "infra", "jobs", "list", "--json")
    process.popen.stdout.close()
    assert process.popen.wait() == 1
    assert process.popen.stderr.read() == ""


def test_an_output_without_unicode_still_gets_its_answer(started, project, monkeypatch):
    monkeypatch.setenv("PYTHONIOENCODING", "iso-8859-1")
    answer = started("--root", project, "infra", "jobs", "run", "greet").end()
    assert answer.code == 0
    assert "\\u2713 succeeded" in answer.out
