"""The pages of hooks and events are true: every hook, parameter, field and log line, and no other."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import textwrap
from datetime import timedelta
from pathlib import Path

import pytest

from systemprompt_jobs import hookspecs
from systemprompt_jobs._observe import _CAPACITY, DRAIN_S, SLOW_S
from systemprompt_jobs._run import MAX_MESSAGE, MAX_TRACEBACK
from systemprompt_jobs._said import LOG_CHARACTERS
from systemprompt_jobs.builtin import logs
from systemprompt_jobs.model import Node, Place, Problem, Progress, Report, Run, State, Trigger
from tests.support import START, captured

PAGE = (Path(__file__).parent.parent / "docs" / "reference" / "hooks.md").read_text()
HOOKS = sorted(hookspecs.names())
VALUES = {
    "offset": timedelta(seconds=2),
    "after": timedelta(seconds=2),
    "before": START,
    "reason": "locked",
    **dict.fromkeys(("runs", "nodes", "audits"), 3),
    "node": Node("h:1:b", "h", 1, "b", "1.0"),
    "run": Run(1, "e:j", Trigger.SCHEDULE, State.FAILED, tick=START, last_tick=START, reason="x"),
    "report": Report(State.FAILED, START, START, "m", 1, 2, "E: x", "Traceback …"),
    "job_id": "e:j",
    "until": START,
    "note": "a reason",
    "who": "ada@host",
    "delay": timedelta(seconds=10),
    "problem": Problem("e", "broken", Place(Path("a.py"), 3), "repair it"),
    "problems": (),
}


def section(title):
    """Return the page's text under a heading, up to the next one of its level or above."""
    above = f"^#{{1,{title.index(' ')}}} "
    _, found, rest = PAGE.partition(f"\n{title}\n")
    assert found, f"the page has no section {title!r}"
    return re.split(above, rest, maxsplit=1, flags=re.MULTILINE)[0]


def spec(hook):
    return getattr(hookspecs, hook)


def signature(hook):
    return f"{hook}({', '.join(inspect.signature(spec(hook)).parameters)})"


def example(hook):
    return textwrap.dedent(inspect.getdoc(spec(hook)).partition("Example::\n\n")[2])


def test_the_page_has_exactly_the_hooks_with_their_parameters():
    assert sorted(re.findall(r"^### `(.+)`$", PAGE, re.MULTILINE)) == sorted(map(signature, HOOKS))


def test_the_table_of_stages_has_each_hook_once():
    rows = re.findall(r"^\| \[\w+\]\(#\w+\) \| (.+) \|$", PAGE, re.MULTILINE)
    assert sorted(re.findall(r"`(\w+)`", " ".join(rows))) == HOOKS


@pytest.mark.parametrize("hook", HOOKS)
class TestAHook:
    def test_each_parameter_is_explained(self, hook):
        text = section(f"### `{signature(hook)}`")
        for parameter in inspect.signature(spec(hook)).parameters:
            assert re.search(rf"`{parameter}`: ", text)

    def test_its_docstring_has_an_example_that_implements_it(self, hook):
        (function,) = ast.parse(example(hook)).body
        assert function.name == hook
        arguments = {argument.arg for argument in function.args.args}
        assert arguments <= set(inspect.signature(spec(hook)).parameters)
        assert [decorator.id for decorator in function.decorator_list] == ["hookimpl"]

    def test_the_page_shows_the_same_example(self, hook):
        assert f"```python\n{example(hook)}\n```" in section(f"### `{signature(hook)}`")


@pytest.mark.parametrize("kind", [Run, Progress, Report, Node, Problem])
def test_the_page_has_exactly_the_fields_of_a_value(kind):
    rows = re.findall(r"^\| (`.+?) \|", section(f"### {kind.__name__}"), re.MULTILINE)
    shown = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    properties = [name for name, value in vars(kind).items() if isinstance(value, property)]
    assert sorted(shown) == sorted([*(f.name for f in dataclasses.fields(kind)), *properties])


def test_the_page_has_the_limits():
    assert f"At most {_CAPACITY:,} calls wait" in PAGE
    assert f"for at most {DRAIN_S:g} s" in PAGE
    assert f"at most {MAX_MESSAGE:,} characters" in PAGE
    assert f"at most {LOG_CHARACTERS:,} characters" in PAGE
    assert f"the last {MAX_TRACEBACK:,} characters" in PAGE


def observers():
    return re.findall(r"^### `(\w+)\(", section("## Observe"), re.MULTILINE)


EVENTS = (Path(__file__).parent.parent / "docs" / "reference" / "events.md").read_text()
ROWS = {
    row[0]: row[1:]
    for row in re.findall(
        r"^\| \[`(\w+)`\]\(hooks\.md#\w[\w-]*\) \| (.+?) \| (.+?) \| (.+?) \| (.+) \|$",
        EVENTS,
        re.MULTILINE,
    )
}
"""Event → when, process, given, log."""

UNLOGGED = {"run_dispatched", "run_finished", "run_progressed", "tick_claimed"}
"""Three say nothing new, and one would say too much."""


def test_the_table_of_events_has_each_lifecycle_hook_in_the_pages_order():
    assert [*ROWS] == observers()


def type_shown(annotation):
    """Return e.g. `[Report](hooks.md#report) or None` for `Report | None`."""
    kind, _, none = annotation.partition(" | ")
    if kind == "tuple[Problem, ...]":
        return "[Problems](hooks.md#problem)"
    linked = kind in {"Node", "Problem", "Progress", "Report", "Run"}
    shown = f"[{kind}](hooks.md#{kind.lower()})" if linked else kind.replace("int", "a count")
    return shown + (" or None" if none else "")


@pytest.mark.parametrize("hook", observers())
def test_an_event_says_when_it_comes_and_what_it_is_given(hook):
    when, _, given, _ = ROWS[hook]
    summary = inspect.getdoc(spec(hook)).partition("\n")[0].rstrip(".")
    said = re.sub(r"^Observe (that )?", "", summary)
    assert when == said[0].upper() + said[1:]
    parameters = inspect.signature(spec(hook)).parameters.values()
    assert given == ", ".join(f"`{p.name}`: {type_shown(p.annotation)}" for p in parameters)


@pytest.mark.parametrize("hook", observers())
def test_an_event_says_at_which_level_and_with_which_fields_it_is_logged(hook):
    log = ROWS[hook][-1].partition("; ")[0]
    if hook in UNLOGGED:
        assert log == "not logged"
        return
    names = inspect.signature(spec(hook)).parameters
    with captured() as entries:
        getattr(logs, hook)(**{name: VALUES[name] for name in names})
    (entry,) = entries
    level, _, fields = log.partition(": ")
    assert (entry.pop("event"), entry.pop("log_level")) == (hook, level)
    assert sorted(entry) == sorted(re.findall(r"`(\w+)`", fields))


@pytest.mark.parametrize(
    "hook", [hook for hook in observers() if "report" in ROWS[hook][2] and hook not in UNLOGGED]
)
def test_what_plugins_noted_is_in_the_lines_of_an_end_and_hides_nothing(hook):
    names = inspect.signature(spec(hook)).parameters
    values = {name: VALUES[name] for name in names}
    notes = {"trace_id": "4bf9", "event": "mine", "job": "mine", "duration_s": "mine"}
    values["report"] = dataclasses.replace(values["report"], annotations=notes)
    with captured() as entries:
        getattr(logs, hook)(**values)
    (entry,) = entries
    assert (entry["event"], entry["job"], entry["duration_s"]) == (hook, "e:j", 0)
    assert entry["trace_id"] == "4bf9"


def test_nothing_else_is_observed_by_the_log():
    logged = {name for name, value in vars(logs).items() if hasattr(value, hookspecs.MARKER)}
    assert logged == {*observers()} - UNLOGGED


ONLY_LOGGED = EVENTS.partition("## What is only logged")[2]
LEVELS = {"debug", "info", "warning", "error", "exception"}


def logged_events():
    """Yield event, level and fields of each call of a logger in the package, hooks' apart."""
    package = Path(hookspecs.__file__).parent
    for file in package.rglob("*.py"):
        if file.name == "logs.py" or "testing" in file.parts:
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", None) in LEVELS:
                event = node.args[0].value if isinstance(node.args[0], ast.Constant) else ""
                if re.fullmatch(r"[a-z_]+", event):
                    fields = {keyword.arg for keyword in node.keywords}
                    yield event, node.func.attr, fields


def test_what_is_only_logged_is_what_the_code_logs_and_nothing_else():
    row = r"^\| `(\w+)` \| (\w+) \| (.+?) \|"
    shown = {
        (event, level, frozenset(re.findall(r"`(\w+)`", fields)))
        for event, level, fields in re.findall(row, ONLY_LOGGED, re.MULTILINE)
    }
    found = set()
    for event, call, fields in logged_events():
        traced = call == "exception" or "exc_info" in fields
        level = "error" if call == "exception" else call
        kept = frozenset(fields - {"exc_info"} | ({"exception"} if traced else set()))
        found.add((event, level, kept))
    assert found == shown


def test_the_page_of_events_has_the_limits():
    assert f"queue of {_CAPACITY:,}" in ONLY_LOGGED
    assert f"longer than {SLOW_S:g} s" in ONLY_LOGGED
    assert f"within {DRAIN_S:g} s" in ONLY_LOGGED
