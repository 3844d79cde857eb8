"""The page of the Python API names everything public."""

from __future__ import annotations

import inspect
import re
from dataclasses import fields
from pathlib import Path

import pytest

import systemprompt_jobs
from systemprompt_jobs import JobContext, JobResult, Runtime, errors, interfaces, job, testing

PAGE = (Path(__file__).parents[1] / "docs/reference/python-api.md").read_text(encoding="utf-8")


def public(owner):
    return [name for name in dir(owner) if not name.startswith("_")]


@pytest.mark.parametrize("name", sorted({*systemprompt_jobs.__all__} - {"__version__"}))
def test_every_public_name_is_on_the_page(name):
    assert re.search(rf"`[^`\n]*\b{name}\b[^`\n]*`", PAGE)
    assert getattr(systemprompt_jobs, name) is not None


def test_every_argument_of_job_has_its_row():
    arguments = set(inspect.signature(job).parameters) - {"function"}
    rows = set(re.findall(r"^\| `(\w+)` \|", PAGE.partition("## `Job`")[0], re.MULTILINE))
    assert rows == arguments


def test_everything_of_a_context_has_its_row():
    own = {field.name for field in fields(JobContext)} - {"resources", "services", "said"}
    section = PAGE.partition("## `JobContext`")[2].partition("## `JobResult`")[0]
    rows = set(re.findall(r"^\| `(\w+)", section, re.MULTILINE))
    assert rows == own | {
        n for n in public(JobContext) if n not in {"resources", "services", "said"}
    }


@pytest.mark.parametrize("name", public(Runtime))
def test_every_member_of_a_runtime_is_on_the_page(name):
    assert re.search(rf"`{name}[(`]", PAGE)


@pytest.mark.parametrize("name", ["project", "settings", "collection", "warnings"])
def test_the_attributes_of_a_runtime_exist(name, tmp_path):
    assert hasattr(Runtime(tmp_path, environ={"SYSTEMPROMPT_PLUGINS": ""}), name)


@pytest.mark.parametrize("name", [n for n in public(JobResult) if callable(getattr(JobResult, n))])
def test_every_way_to_make_a_result_is_on_the_page(name):
    assert f"{name}(" in PAGE


def test_the_tree_of_errors_is_whole():
    for name, error in vars(errors).items():
        if inspect.isclass(error) and issubclass(error, errors.JobsError):
            assert name in (errors.__doc__ or "")


@pytest.mark.parametrize(
    "name", sorted({*testing.__all__, *public(testing.Scheduler), "run_job", "scheduler", "nodes"})
)
def test_everything_to_test_with_is_on_the_page(name):
    section = PAGE.partition("\n## `testing`")[2]
    assert re.search(rf"`{name}[`(]", section)


@pytest.mark.parametrize("name", ["Schedule", "Voice", "Attempt", "Executor", "Clock"])
def test_every_protocol_is_on_the_page(name):
    assert hasattr(interfaces, name)
    assert f"`{name}`" in PAGE
