"""`prune_files` removes exactly the old files that match, and only below its root."""

from __future__ import annotations

import os
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from systemprompt_jobs_maintenance import _files, prune_files

NOW = datetime(2024, 5, 1, 12, 0, tzinfo=UTC)
DAY = timedelta(days=1)


def write(path, days, size=10):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    changed = (NOW - days * DAY).timestamp()
    os.utime(path, (changed, changed))
    return path


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    return root


@pytest.fixture
def prune(context, root):
    def call(*patterns, enforce=True, root=root, older_than=30 * DAY, **more):
        return prune_files(
            context(enforce=enforce),
            root=str(root),
            patterns=patterns,
            older_than=older_than,
            **more,
        )

    return call


def left(root):
    return sorted(str(p.relative_to(root)) for p in root.rglob("*") if not p.is_dir())


def test_with_nothing_configured_it_says_so(context):
    result = prune_files(context())
    assert (result.ok, result.message) == (True, "nothing configured")


def test_exactly_the_old_files_that_match_are_removed(root, prune):
    for n in range(2000):
        write(root / f"{n % 5}" / f"{n}.{'log' if n % 2 else 'txt'}", days=n % 60)
    expected = [p for p in left(root) if p.endswith(".txt") or int(Path(p).stem) % 60 <= 30]
    result = prune("**/*.log")
    assert left(root) == expected
    assert result.processed == 2000 - len(expected)
    assert result.message == f"removed {result.processed} files ({result.processed / 100:.1f} kB)"


def test_a_dry_run_counts_the_same_files_and_removes_none(root, prune):
    write(root / "old.log", days=31)
    write(root / "new.log", days=29)
    result = prune("*.log", enforce=False)
    assert result.message == "would remove 1 file (10 bytes)"
    assert left(root) == ["new.log", "old.log"]


def test_age_counts_from_now_where_there_is_no_tick(root, context):
    write(root / "old.log", days=1)
    result = prune_files(
        context(tick=None), root=str(root), patterns=["*"], older_than=timedelta(0)
    )
    assert result.processed == 1


def test_the_newest_files_of_each_pattern_stay(root, prune):
    for days in range(40, 45):
        write(root / f"a-{days}.db", days)
        write(root / f"b-{days}.db", days)
    prune("a-*.db", "b-*.db", keep=2)
    assert left(root) == ["a-40.db", "a-41.db", "b-40.db", "b-41.db"]


def test_a_file_that_one_pattern_keeps_stays_though_another_matches_it(root, prune):
    write(root / "a.log", 40)
    write(root / "b.log", 41)
    prune("b.*", "*.log", keep=1)
    assert left(root) == ["a.log", "b.log"]


def test_folders_stay_even_if_they_match_and_are_empty(root, prune):
    (root / "empty.log").mkdir()
    write(root / "full.log" / "x", days=99)
    assert prune("*.log").processed == 0
    assert (root / "empty.log").is_dir()
    assert (root / "full.log" / "x").is_file()


def test_links_stay_and_nothing_behind_them_is_removed(tmp_path, root, prune):
    outside = write(tmp_path / "outside" / "a.log", days=99)
    inside = write(root / "real" / "b.txt", days=99)
    (root / "folder").symlink_to(outside.parent)
    (root / "file.log").symlink_to(outside)
    (root / "round.log").symlink_to("round.log")
    (root / "alias").symlink_to("real")
    result = prune("**/*.log", "folder/*.log", "*/*.log", "alias/*.txt")
    assert (result.ok, result.processed) == (True, 0)
    assert outside.exists()
    assert inside.exists()
    assert (root / "file.log").is_symlink()


def test_a_root_that_is_a_link_is_the_folder_it_leads_to(tmp_path, root, prune):
    write(root / "old.log", days=31)
    (tmp_path / "link").symlink_to(root)
    assert prune("*.log", root=tmp_path / "link").processed == 1


@pytest.mark.parametrize("way", ["/", "//", "/tmp/..", "link"])
def test_the_whole_file_system_is_refused(tmp_path, prune, way):
    (tmp_path / "link").symlink_to("/")
    way = str(tmp_path / "link") if way == "link" else way
    result = prune("no-such-file-*", root=way)
    assert result.message == f"root {way!r} is the whole file system: name a folder"
    assert not result.ok


@pytest.mark.parametrize("pattern", ["../*.log", "a/../../*.log", "/etc/*", "", "."])
def test_patterns_that_leave_the_root_are_refused(tmp_path, root, prune, pattern):
    bystander = write(tmp_path / "x.log", days=99)
    result = prune("*.txt", pattern)
    assert not result.ok
    assert "must stay below root" in result.message
    assert bystander.exists()


def test_what_is_missing_is_named(context, root):
    def message(**parameters):
        result = prune_files(context(), **parameters)
        assert not result.ok
        return result.message

    assert message(patterns=["*"], older_than=DAY).startswith("root is missing")
    assert message(root=str(root), older_than=DAY).startswith("patterns are missing")
    assert message(root=str(root), patterns=["*"]).startswith("older_than is missing")
    assert message(root=f"{root}/x", patterns=["*"]) == f"root '{root}/x' is no folder"


def test_a_relative_root_counts_from_the_working_folder(root, prune, monkeypatch):
    write(root / "old.log", days=31)
    monkeypatch.chdir(root.parent)
    assert prune("*.log", root="root").processed == 1


def test_a_file_that_vanishes_counts_as_failed_and_the_others_go(root):
    files = [_files._File(write(root / name, 99), 0.0, 10) for name in ("a", "b", "c")]
    files[1].path.unlink()
    problems = []
    assert [file.path.name for file in _files._remove(files, problems)] == ["a", "c"]
    assert problems == [f"{root / 'b'}: No such file or directory"]


def test_files_that_may_not_be_removed_fail_the_run_and_the_others_go(context, unprivileged):
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        guarded = [write(root / "guarded" / f"{n}.log", days=40 + n) for n in range(7)]
        write(root / "free" / "old.log", days=39)
        guarded[0].parent.chmod(0o500)
        result = prune_files(context(), root=str(root), patterns=["*/*.log"], older_than=30 * DAY)
        guarded[0].parent.chmod(0o700)
        assert not result.ok
        assert (result.processed, result.failed) == (1, 7)
        assert result.message.startswith("removed 1 file (10 bytes); 7 failed; ")
        assert f"{guarded[6].resolve()}: Permission denied" in result.message
        assert result.message.endswith("and 2 more")
        assert len(left(root)) == 7
