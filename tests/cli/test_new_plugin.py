from __future__ import annotations

import stat
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from systemprompt_jobs import __version__


@pytest.fixture
def new(cli, tmp_path):
    """Return a function that makes a plugin in the folder `tmp_path`."""
    return lambda *arguments: cli("infra", "jobs", "new-plugin", *arguments, "--into", tmp_path)


def test_what_is_made_and_what_comes_next_is_said(new, tmp_path):
    answer = new("acme-inbox")
    assert answer.code == 0
    assert answer.out.startswith(f"made {tmp_path}/acme-inbox; next")
    assert f"cd {tmp_path}/acme-inbox && pip install --editable '.[dev]'" in answer.out
    assert "run acme-inbox:count_files" in answer.out


def test_no_file_keeps_the_name_of_the_example_and_nobody_else_may_write_them(new, tmp_path):
    new("acme-inbox")
    files = [path for path in (tmp_path / "acme-inbox").rglob("*") if path.is_file()]
    assert len(files) == 7
    for file in files:
        assert "example" not in f"{file.name} {file.read_text()}"
        assert stat.S_IMODE(file.stat().st_mode) & 0o022 == 0


def test_it_takes_no_release_that_may_break_it(new, tmp_path):
    new("acme-inbox")
    project = tomllib.loads((tmp_path / "acme-inbox/pyproject.toml").read_text())["project"]
    (needed,) = map(Requirement, project["dependencies"])
    major, minor, patch = Version(__version__).release
    versions = (__version__, f"{major}.{minor}.{patch + 9}", f"{major}.{minor + 1}.0")
    found = [needed.specifier.contains(version) for version in versions]
    assert (needed.name, found) == ("systemprompt-jobs", [True, True, False])


def test_the_formatter_has_nothing_to_wrap_where_the_name_is_long(new, tmp_path):
    new("acme-" + "x" * 35)
    lines = [line for file in tmp_path.rglob("*.py") for line in file.read_text().splitlines()]
    assert max(map(len, lines)) <= 100


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("Acme_Inbox", "'Acme_Inbox' is no name for a package: lower-case letters, "),
        ("Acme_Inbox", "; try acme-inbox\n"),
        ("../acme", "; try acme\n"),
        ("9", "a letter first\n"),
        ("json", "'json' is Python's own: put a word of yours before it\n"),
        ("class", "'class' is Python's own"),
        ("hello", "'hello' is taken by the extension of systemprompt-jobs-hello: choose another"),
        ("sqlalchemy", "'sqlalchemy' is taken by the module of SQLAlchemy: choose another name\n"),
    ],
)
def test_a_name_that_cannot_be_is_refused_with_the_remedy(new, tmp_path, name, says):
    answer = new(name)
    assert answer.code == 2
    assert says in answer.err
    assert [path.name for path in tmp_path.iterdir()] == ["elsewhere"]


def test_a_folder_that_exists_is_left_alone(new, tmp_path):
    (tmp_path / "acme-inbox").mkdir()
    answer = new("acme-inbox")
    assert answer.code == 2
    assert f"{tmp_path}/acme-inbox exists already; nothing was changed" in answer.err
    assert list((tmp_path / "acme-inbox").iterdir()) == []


def test_a_file_in_place_of_the_folder_is_wrong_use(cli, tmp_path):
    (tmp_path / "file").touch()
    answer = cli("infra", "jobs", "new-plugin", "acme-inbox", "--into", tmp_path / "file")
    assert answer.code == 2
    assert f"{tmp_path}/file" in answer.err
