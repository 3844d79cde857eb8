"""The smallest plugin."""

from __future__ import annotations

import tomllib
from pathlib import Path

from systemprompt_jobs_hello import hello

from systemprompt_jobs import Job
from systemprompt_jobs.testing import PluginContract

FOLDER = Path(__file__).parents[1]


def test_it_greets_the_world_and_whomever_it_is_told():
    assert hello() == "Hello, world!"
    assert hello(name="Ada") == "Hello, Ada!"


def test_it_is_a_job_that_runs_at_every_full_minute():
    assert isinstance(hello, Job)
    assert (hello.name, hello.description, hello.schedule) == ("hello", "Say hello.", "0 * * * * *")


def test_the_entry_point_names_the_module_that_holds_the_job():
    project = tomllib.loads((FOLDER / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["systemprompt_jobs"] == {"hello": hello.__module__}


def test_the_plugin_stays_within_fifteen_lines():
    lines = (FOLDER / "systemprompt_jobs_hello.py").read_text().splitlines()
    assert len(lines) <= 15


class TestContract(PluginContract):
    plugin = "systemprompt_jobs_hello"
