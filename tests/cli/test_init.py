from __future__ import annotations

import pytest

FILES = ["services/scheduler/config.yaml", "profile.yaml", "jobs.py", ".gitignore"]


@pytest.fixture
def made(cli, tmp_path):
    """Return a folder that `init` has filled."""
    assert cli("infra", "jobs", "init", tmp_path / "demo").code == 0
    return tmp_path / "demo"


def test_makes_a_project_that_works_at_once(cli, made):
    assert cli("--root", made, "infra", "jobs", "check").out == "1 plugin, 1 job, all well\n"
    answer = cli("--root", made, "infra", "jobs", "run", "greet")
    assert answer.code == 0
    assert "Hello, world!" in answer.out


def test_the_example_runs_often_and_at_start_up(cli, made):
    (job,) = cli("--root", made, "infra", "jobs", "list", "--json").json["jobs"]
    assert job["starts_up"] is True
    assert job["schedule"] == "0 * * * * *"
    assert job["listed"] is True


def test_writes_out_what_happens_to_unlisted_jobs(made):
    assert "\n  unlisted_jobs: run\n" in (made / FILES[0]).read_text()


def test_keeps_the_database_out_of_git(made):
    assert (made / ".gitignore").read_text() == "var/\n"


def test_prints_the_next_commands(cli, tmp_path):
    answer = cli("infra", "jobs", "init", tmp_path / "my demo")
    assert f"  cd '{tmp_path}/my demo' && systemprompt infra jobs list\n" in answer.out
    assert answer.out.endswith("  systemprompt infra jobs serve\n")


def test_refuses_to_overwrite_and_changes_nothing(cli, tmp_path):
    (tmp_path / "jobs.py").write_text("mine")
    answer = cli("infra", "jobs", "init", tmp_path)
    assert answer.code == 2
    assert f"{tmp_path} has jobs.py already; --force overwrites, nothing was changed" in answer.err
    assert (tmp_path / "jobs.py").read_text() == "mine"
    assert not (tmp_path / "services").exists()


def test_force_overwrites(cli, tmp_path):
    (tmp_path / "jobs.py").write_text("mine")
    assert cli("infra", "jobs", "init", tmp_path, "--force").code == 0
    assert "@job" in (tmp_path / "jobs.py").read_text()


def test_leaves_nothing_half_done(cli, tmp_path):
    (tmp_path / ".gitignore").mkdir()
    answer = cli("infra", "jobs", "init", tmp_path, "--force")
    assert answer.code == 2
    assert answer.err.startswith(f"error: {tmp_path}/.gitignore: Is a directory\n")
    assert [path for path in FILES if (tmp_path / path).is_file()] == []


def test_a_file_in_place_of_the_folder_is_wrong_use(cli, tmp_path):
    (tmp_path / "file").touch()
    assert cli("infra", "jobs", "init", tmp_path / "file").code == 2
