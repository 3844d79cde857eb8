"""Where the project is, and which of its two files exist."""

from __future__ import annotations

import pytest

from systemprompt_jobs._configure import Project, find_project
from systemprompt_jobs.errors import ConfigurationError


def test_an_explicit_root_wins_over_the_variable(folder, tmp_path):
    (tmp_path / "other").mkdir()
    found = find_project(folder.root, {"SYSTEMPROMPT_ROOT": str(tmp_path / "other")}, tmp_path)
    assert found.root == folder.root


def test_the_variable_wins_over_the_search(folder):
    folder.write(profile="")
    (other := folder.root / "other").mkdir()
    found = find_project(None, {"SYSTEMPROMPT_ROOT": "other"}, folder.root)
    assert found == Project(other)


def test_an_empty_variable_is_no_variable(folder):
    folder.write(profile="")
    assert find_project(None, {"SYSTEMPROMPT_ROOT": ""}, folder.root).profile is not None


@pytest.mark.parametrize("file", ["profile.yaml", "services/scheduler/config.yaml"])
def test_the_search_goes_upwards_to_the_first_folder_with_a_file(folder, file):
    (folder.root / file).touch()
    (deep := folder.root / "a/b").mkdir(parents=True)
    found = find_project(None, {}, deep)
    assert found.root == folder.root
    assert found.found
    assert folder.root / file in (found.config, found.profile)


def test_without_any_project_the_working_directory_is_one_without_files(folder):
    assert find_project(None, {}, folder.root) == Project(folder.root)
    assert not find_project(None, {}, folder.root).found


def test_a_file_is_never_searched_above_an_explicit_root(folder):
    folder.write(profile="")
    (inner := folder.root / "inner").mkdir()
    assert not find_project(inner, {}, folder.root).found


@pytest.mark.parametrize(
    ("root", "reason"),
    [("nowhere", "does not exist"), ("file", "is not a folder"), ("x" * 5000, "cannot be used")],
)
def test_a_root_that_is_no_folder_is_an_error_that_names_it(folder, root, reason):
    (folder.root / "file").touch()
    for arguments, culprit in (
        ((root, {}), "--root"),
        ((None, {"SYSTEMPROMPT_ROOT": root}), "SYSTEMPROMPT_ROOT"),
    ):
        with pytest.raises(ConfigurationError) as caught:
            find_project(*arguments, folder.root)
        assert str(caught.value).startswith(f"{culprit}: {root!r} {reason}")
