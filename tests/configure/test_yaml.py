"""YAML is read safely, with lines, and every mistake in it is explained."""

from __future__ import annotations

import os

import pytest
import yaml

from systemprompt_jobs._configure import _compose, parse_value
from systemprompt_jobs._configure._yaml import read


@pytest.fixture(params=["CSafeLoader", "SafeLoader"], autouse=True)
def _loader(request, monkeypatch):
    """Whether or not PyYAML was built with libyaml makes no difference."""
    if not hasattr(yaml, request.param):
        pytest.skip("PyYAML without libyaml")
    monkeypatch.setattr(_compose, "_LOADER", getattr(yaml, request.param))


def document(folder, text, *, shared=False):
    folder.write(config=text)
    return read(folder.config_path, shared=shared)


def problems(folder, text, *, shared=False):
    found = folder.short(document(folder, text, shared=shared).problems)
    return [problem.removeprefix("services/scheduler/config.yaml:") for problem in found]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5", 5), ("-5", -5), ("+5", 5), ("0x1F", 31), ("0o17", 15), ("1.5", 1.5), ("1e3", 1000.0),
        ("true", True), ("Yes", True), ("on", True), ("false", False), ("NO", False), ("off", False),
        ("y", "y"), ("010", "010"), ("1_000", "1_000"), ("12:30:00", "12:30:00"),
        ("2024-02-29", "2024-02-29"), ("2024-02-29 12:00:00", "2024-02-29 12:00:00"),
        (".inf", ".inf"), ("1e999", "1e999"), ("9" * 5000, "9" * 5000), ("'yes'", "yes"),
        ('"5"', "5"), ("!!str 5", "5"), ("! 5", "5"), ("''", ""), ("=", "="), ("a: b", "a: b"),
        ("[1, a]", [1, "a"]), ("{a: 1}", {"a": 1}), ("{1: x, yes: y}", {"1": "x", "yes": "y"}),
    ],
)  # fmt: skip
def test_values_are_what_people_expect(folder, text, value):
    if value == "a: b":
        text = "'a: b'"
    found = document(folder, f"scheduler:\n  x: {text}\n")
    assert (found.problems, found.data) == ((), {"x": value})
    assert type(found.data["x"]) is type(value)


@pytest.mark.parametrize(
    "text", ["", "# nothing\n", "---\n", "scheduler:", "scheduler: ~\n", "\ufeff"]
)
def test_nothing_is_fine(folder, text):
    assert document(folder, text).data == {}
    assert problems(folder, text) == []


def test_every_value_has_its_line(folder):
    found = document(
        folder,
        """\
        # a comment
        scheduler:
          timezone: UTC
          jobs:
            - job: a
              parameters:
                x: 1
            - {job: b}
        """,
    )
    lines = {".".join(map(str, loc)): place.line for loc, place in found.places.items()}
    assert lines == {
        "": 2, "timezone": 3, "jobs": 4, "jobs.0": 5, "jobs.0.job": 5, "jobs.0.parameters": 6,
        "jobs.0.parameters.x": 7, "jobs.1": 8, "jobs.1.job": 8,
    }  # fmt: skip
    assert found.place(("jobs", 1, "no such key")).line == 8
    assert found.place(()).file == folder.config_path


def test_anchors_aliases_and_merge_keys_work(folder):
    found = document(
        folder,
        """\
        scheduler:
          a: &a {x: 1, y: 2}
          b: {<<: *a, y: 3}
          c: {<<: [{y: 9}, *a]}
          d: *a
          e: {"<<": text}
        """,
    )
    assert found.problems == ()
    assert found.data == {
        "a": {"x": 1, "y": 2},
        "b": {"x": 1, "y": 3},
        "c": {"x": 1, "y": 9},
        "d": {"x": 1, "y": 2},
        "e": {"<<": "text"},
    }


def test_other_sections_of_a_shared_file_are_not_looked_at(folder):
    text = "theirs: !Their {a: ~, a: ~}\nscheduler: {a: 1}\n? [odd]\n: ~\n"
    assert document(folder, text, shared=True).data == {"a": 1}
    assert problems(folder, text, shared=True) == []


QUOTES = "config.yaml: a value that begins with a special character needs quotes"
CHECK = "(check the indentation and the quotes here and in the line before)"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("scheduler:\n  schedule: */5 * * * * *\n", f'2: {QUOTES} (quote the schedule: schedule: "*/5 * * * * *")'),
        ("scheduler:\n  schedule: * * * * * * # all\n", f'2: {QUOTES} (quote the schedule: schedule: "* * * * * *")'),
        ("scheduler: {schedule: */5 * * * * *, a: 1}", f'1: {QUOTES} (quote the schedule: schedule: "*/5 * * * * *")'),
        ("scheduler:\n  schedule: @daily\n", f'2: {QUOTES} (quote the schedule: schedule: "@daily")'),
        ("scheduler:\n  zone: %x\n", f'2: {QUOTES} (quote the value: zone: "%x")'),
        ("scheduler:\n  schedule: *5\n", '2: config.yaml: the alias *5 has no anchor &5 above it (quote the schedule: schedule: "*5")'),
        ("scheduler: {a: *b}", "1: config.yaml: the alias *b has no anchor &b above it"),
        ("scheduler: &a [*a]", "1: config.yaml: the alias *a refers to itself"),
        ("scheduler:\n\ta: 1\n", "2: config.yaml: the line is indented with a tab (use spaces)"),
        ("scheduler:\n  a: 'x\n  b: 1\n", f"2: config.yaml: is not valid YAML: while scanning a quoted scalar, found unexpected end of stream {CHECK}"),
        ("a: 1\n---\nb: 2\n", "2: config.yaml: holds a second document (remove it and its `---`)"),
        ("- a\n", "1: config.yaml: must begin with `scheduler:`"),
        ("scheduler: text\n", '1: scheduler: is "text", not a mapping of settings'),
        ("scheduler: [1]\n", "1: scheduler: is [1], not a mapping of settings"),
        ("schedulr: {}\n", "1: schedulr: unknown key (did you mean 'scheduler'?)"),
        ("jobs: []\n", "1: jobs: unknown key (only `scheduler:` may stand here: indent it below that)"),
        ("? [a]\n: b\n", '1: "?": unknown key (only `scheduler:` may stand here: indent it below that)'),
        ("scheduler: {}\nscheduler: {}\n", "2: scheduler: is given twice, first in line 1"),
        ("scheduler:\n  a: 1\n  a: 2\n", "3: scheduler.a: is given twice, first in line 2"),
        ("scheduler:\n  a:\n", "2: scheduler.a: has no value (give it one or remove it)"),
        ("scheduler:\n  a: [1, ~]\n", "2: scheduler.a[1]: has no value (give it one or remove it)"),
        ("scheduler:\n  a: !!python/name:os.system x\n", '2: scheduler.a: has the tag "tag:yaml.org,2002:python/name:os.system" (remove the tag)'),
        ("scheduler:\n  a: !x {b: 1}\n", '2: scheduler.a: has the tag "!x" (remove the tag)'),
        ("scheduler:\n  <<: 5\n", "2: scheduler: merges with `<<` what is not a mapping"),
        ("scheduler:\n  ? {a: 1}\n  : x\n", "2: scheduler: has a key that is not text"),
        ('scheduler:\n  a: "\\0"\n', "2: scheduler.a: holds a NUL or half a surrogate pair"),
        ("scheduler:\n  a: \x07\n", "2: config.yaml: holds the control character U+0007"),
        ("scheduler:\n  ä b: ~\n", '2: scheduler."ä b": has no value (give it one or remove it)'),
    ],
)  # fmt: skip
def test_each_mistake_has_one_clear_message(folder, text, expected):
    assert problems(folder, text) == [expected]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("scheduler:\n  a: 1\n b: 2\n", 3),
        ("scheduler:\n  a: b: c\n", 2),
        ("scheduler: {a: [1\n", 2),
    ],
)
def test_broken_yaml_is_located(folder, text, line):
    (problem,) = problems(folder, text)
    assert "is not valid YAML" in problem
    assert int(problem.partition(":")[0]) in (line - 1, line)


def test_depth_and_size_are_bounded_before_aliases_are_expanded(folder):
    laughs = "scheduler:\n  a0: &a0 [1]\n" + "".join(
        f"  a{i + 1}: &a{i + 1} [*a{i}, *a{i}]\n" for i in range(40)
    )
    chain = "scheduler:\n  a0: &a0 [1]\n" + "".join(
        f"  a{i + 1}: &a{i + 1} [*a{i}]\n" for i in range(3000)
    )
    merges = "scheduler:\n  a0: &a0 {x: 1}\n" + "".join(
        f"  a{i + 1}: &a{i + 1} {{<<: [*a{i}, *a{i}]}}\n" for i in range(40)
    )
    for text in (laughs, chain, merges):
        (problem,) = problems(folder, text)
        assert problem.endswith("holds more than 50 levels or 100000 values")
    assert "nested deeper than 50 levels" in problems(folder, "[" * 100_000)[0]


def test_the_size_of_a_file_is_limited(folder):
    assert problems(folder, "#" * ((1 << 20) + 1)) == [" config.yaml: is larger than 1 MiB"]
    assert problems(folder, "#" * (1 << 20)) == []


def test_a_file_that_is_not_utf_8_is_refused_with_the_line(folder):
    assert problems(folder, "# ä\nscheduler:\n  a: ö\n".encode("latin-1")) == [
        "1: config.yaml: is not UTF-8 (save it with the encoding UTF-8)"
    ]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs POSIX")
def test_what_is_no_file_is_refused_and_never_waited_for(folder):
    for make in (os.mkdir, os.mkfifo, lambda path: path.symlink_to("nowhere")):
        make(folder.config_path)
        (problem,) = read(folder.config_path, shared=False).problems
        assert problem.reason == "is not a file"
        (folder.config_path.rmdir if folder.config_path.is_dir() else folder.config_path.unlink)()


def test_a_file_that_cannot_be_read_is_a_problem(folder, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    folder.write(config="")
    monkeypatch.setattr(type(folder.config_path), "open", refuse)
    (problem,) = read(folder.config_path, shared=False).problems
    assert problem.reason == "cannot be read: Permission denied"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5", 5), ("", ""), ("null", None), ("~", None), ("yes", True), ("[1, a]", [1, "a"]),
        ("'5'", "5"), ("*.log", "*.log"), ("@x", "@x"), ("[1", "[1"), ("{a: }", "{a: }"),
        ("# x", "# x"), ("12:30", "12:30"), ("\x00", "\x00"), ("a\n---\nb", "a\n---\nb"),
    ],
)  # fmt: skip
def test_a_single_value_that_is_no_yaml_is_text(text, value):
    assert parse_value(text) == value
