"""What people see on a terminal of 80 columns."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from systemprompt_jobs.builtin.cli._table import Column, _broken, fit
from systemprompt_jobs.builtin.cli._text import many_lines, one_line, paragraph
from systemprompt_jobs.builtin.cli._times import relative, short, took

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
LONG_NAMES = """
from systemprompt_jobs import job

@job(schedule="0 */5 8-17 * * 1-5", timezone="Europe/Berlin")
def a_job_with_a_name_that_is_much_longer_than_most_people_would_like(ctx):
    return "m" * 500

@job(schedule="0 0 0 1 1 *")
def short():
    raise ValueError("\\x1b[31mred\\x1b[2J \\u202e[bold]reversed[/bold] \\x07" + "e" * 300)
"""
ESCAPES = re.compile(r"\x1b\[[0-9;]*m")


@pytest.fixture
def shown(terminal, new_project, cli):
    """Return a function: the lines of a command on a terminal, after both jobs have run."""
    root = new_project(LONG_NAMES, "scheduler: {local_plugins: [jobs.py]}")
    cli("--root", root, "infra", "jobs", "run", "--all")

    def show(*command: str) -> list[str]:
        answer = terminal("--root", root, "infra", "jobs", *command).end()
        assert answer.code == 0
        return ESCAPES.sub("", answer.out).splitlines()

    return show


@pytest.mark.parametrize(
    "command",
    [
        ["list"],
        ["history"],
        ["stats"],
        ["audit"],
        ["plugins"],
        ["status"],
        ["check"],
        ["status", "short"],
    ],
)
def test_tables_fit_and_nothing_that_a_job_says_moves_or_colours_anything(shown, tmp_path, command):
    lines = shown(*command)
    whole = ("    ", "  ValueError")  # errors are not cut, nor are paths
    cut = [x for x in lines if not x.startswith(whole) and str(tmp_path) not in x]
    assert max(map(len, cut)) <= 80
    assert not {"\x1b", "\x07", "\u202e"} & set("".join(lines))


def test_markup_is_shown_as_it_is(shown):
    assert "ValueError: \\x1b[31mred\\x1b[2J \\u202e[bold]reversed[/bold]" in "\n".join(
        shown("status", "short")
    )


def test_long_ids_are_broken_between_words(shown):
    """How wide the column is depends on how far off the next ticks are."""
    header, *lines = shown("list")
    width = re.match(r"\S+ +", header).end()
    column = [line[:width].rstrip() for line in lines]
    first = column[: column.index(next(part for part in column if part.endswith(" *"))) + 1]
    *parts, last = [part.strip() for part in first]
    assert len(parts) > 1
    assert all(part.endswith("_") for part in parts)
    assert "".join([*parts, last]) == (
        "jobs:a_job_with_a_name_that_is_much_longer_than_most_people_would_like *"
    )


def test_the_log_of_a_job_is_escaped_too(terminal, new_project):
    root = new_project(
        "from systemprompt_jobs import job\n"
        "@job\n"
        "def greet(ctx): ctx.log.info('a\\x1b[2Jb', c='d\\x1be\\nf')\n"
    )
    out = terminal("--root", root, "infra", "jobs", "run", "greet").end().out
    assert "a\\x1b[2Jb" in out
    assert "x1be f" in out
    assert "\x1b[2J" not in out


def test_no_color_is_respected(terminal, project, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    answer = terminal("--root", project, "infra", "jobs", "run", "greet").end()
    assert "\x1b" not in answer.out
    listed = terminal("--root", project, "infra", "jobs", "list").end()
    assert re.search(r"\x1b\[[0-9;]*3[0-9]", listed.out) is None


def test_a_terminal_has_colours(terminal, project):
    listed = terminal("--root", project, "infra", "jobs", "plugins").end()
    assert "\x1b[32mok" in listed.out


def test_wide_terminals_show_whole_rows(terminal, project):
    listed = terminal("--root", project, "infra", "jobs", "history", columns=200).end()
    assert listed.code == 0
    assert all(len(line) <= 200 for line in listed.out.splitlines())


COLUMNS = (Column("A"), Column("B", "id"), Column("C", "wrap"), Column("D", "cut"))


@pytest.mark.parametrize(
    ("natural", "room", "widths"),
    [
        ([5, 10, 10, 10], 80, [5, 10, 10, 10]),
        ([5, 10, 50, 50], 80, [5, 10, 32, 33]),
        ([5, 40, 50, 50], 80, [5, 30, 22, 23]),
        ([5, 40, 10, 10], 60, [5, 35, 10, 10]),
        ([5, 90, 90, 90], 60, [5, 30, 12, 13]),
        ([5, 90, 90, 90], 20, [5, 12, 12, 12]),
    ],
)
def test_columns_shrink_messages_first_and_ids_last(natural, room, widths):
    assert fit(COLUMNS, natural, room) == widths


@pytest.mark.parametrize(
    ("text", "width", "lines"),
    [
        ("short:id", 20, ["short:id"]),
        ("extension:a_long_job_name", 12, ["extension:a_", " long_job_", " name"]),
        ("extension:unbreakablename", 12, ["extension:", " unbreakablename"]),
    ],
)
def test_ids_are_broken_where_their_parts_meet(text, width, lines):
    assert _broken(text, width).splitlines() == lines


def test_one_line_and_many_lines_spell_out_what_is_not_printable():
    assert one_line("a\nb\t c\x1b\x00\u2028é\ud800") == "a b c\\x1b\\x00 é\\ud800"
    assert many_lines("a\n\tb\r\x9b") == "a\n\tb\\r\\x9b"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "now"), (5, "in 5 s"), (119, "in 1 min"), (7200, "in 2 h"), (864000, "in 10 d"),
     (-90, "1 min ago")],
)  # fmt: skip
def test_relative_times(seconds, words):
    assert relative(NOW + timedelta(seconds=seconds), NOW) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.0125, "12 ms"), (59.94, "59.9 s"), (125, "2 min 5 s"), (7380, "2 h 3 min")],
)
def test_durations(seconds, words):
    assert took(timedelta(seconds=seconds)) == words
    assert took(None) == ""


def test_short_instants_leave_out_what_goes_without_saying():
    assert short(NOW, NOW) == "12:00:00"
    assert short(NOW - timedelta(days=1), NOW) == "04-30 12:00"
    assert short(NOW - timedelta(days=400), NOW) == "2025-03-27"


def test_a_paragraph_fits_below_what_its_first_line_begins_with(monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    with monkeypatch.context() as patched:
        patched.setattr("sys.stdout", SimpleNamespace(isatty=lambda: True))
        shown = paragraph("one two three four five", "    ", "x   ")
    assert shown == "x   one two three\n    four five"
