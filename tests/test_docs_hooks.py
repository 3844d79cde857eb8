"""The page of hooks is true: every hook, parameter, field and log event, and nothing else."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import textwrap
from datetime import timedelta
from pathlib import Path

import pytest
import structlog

from systemprompt_jobs import hookspecs
from systemprompt_jobs._observe import _CAPACITY, DRAIN_S
from systemprompt_jobs._run import MAX_MESSAGE, MAX_TRACEBACK
from systemprompt_jobs._said import LOG_CHARACTERS
from systemprompt_jobs.builtin import logs
from systemprompt_jobs.model import Node, Place, Problem, Progress, Report, Run, State, Trigger
from tests.support import START

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


def logged_observers():
    """Return all but two that say nothing new, and one that would say too much."""
    said_elsewhere = {"run_dispatched", "run_finished", "run_progressed", "tick_claimed"}
    return [hook for hook in observers() if hook not in said_elsewhere]


def test_every_observation_hook_but_four_is_logged():
    logged = {name for name, value in vars(logs).items() if hasattr(value, hookspecs.MARKER)}
    assert logged == set(logged_observers())


@pytest.mark.parametrize("hook", logged_observers())
def test_the_page_has_the_level_and_fields_of_each_log_event(hook):
    names = inspect.signature(spec(hook)).parameters
    with structlog.testing.capture_logs() as entries:
        getattr(logs, hook)(**{name: VALUES[name] for name in names})
    (entry,) = entries
    row = re.search(rf"^\| `{hook}` \| (\w+) \| (.+) \|$", section("## Log events"), re.MULTILINE)
    assert (entry.pop("event"), entry.pop("log_level")) == (hook, row[1])
    assert sorted(entry) == sorted(re.findall(r"`(\w+)`", row[2]))
