"""`disk_usage` fails above its limit and destroys nothing."""

from __future__ import annotations

import shutil
from types import SimpleNamespace

import pytest
from systemprompt_jobs_maintenance import disk_usage


@pytest.fixture
def disks(monkeypatch):
    """Three disks of which 2 of 10 bytes are reserved for the administrator."""
    used = {"/": 4, "/var": 8, "/srv": 6}

    def usage(path):
        if path not in used:
            raise FileNotFoundError(2, "No such file or directory", path)
        return SimpleNamespace(total=10, used=used[path], free=8 - used[path])

    monkeypatch.setattr(shutil, "disk_usage", usage)


def test_without_paths_it_says_that_nothing_is_configured():
    assert disk_usage().message == "nothing configured"


def test_below_the_limit_it_reports_as_df_does(disks):
    result = disk_usage(paths=["/", "/srv"], limit=75)
    assert (result.ok, result.message) == (True, "/ 50.0 %, /srv 75.0 %")
    assert (result.processed, result.failed) == (2, 0)


def test_above_the_limit_it_fails_and_names_the_path(disks):
    result = disk_usage(paths=["/", "/var"])
    assert not result.ok
    assert result.message == "/ 50.0 %, /var 100.0 %; 1 failed; /var is above the limit of 90 %"


def test_a_missing_path_is_a_failure_and_the_others_are_measured(disks):
    result = disk_usage(paths=["/nowhere", "/"])
    assert not result.ok
    assert result.message == "/ 50.0 %; 1 failed; /nowhere: No such file or directory"
    assert disk_usage(paths=["/nowhere"]).message.startswith("nothing measured")


def test_a_real_disk_is_used_to_some_extent(tmp_path):
    assert disk_usage(paths=[str(tmp_path)], limit=100).ok
    assert not disk_usage(paths=[str(tmp_path)], limit=0).ok
