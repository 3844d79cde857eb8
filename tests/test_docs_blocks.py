"""Each block of code in the pages does something: Python runs, commands exist, data can be read."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from contextlib import suppress
from functools import partial
from pathlib import Path

import click
import pytest

import systemprompt_jobs
from systemprompt_jobs.builtin.cli._app import systemprompt

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted(ROOT.glob("plugins/*/README.md")),
]

BLOCK = re.compile(r"^( *)```(\w+)\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)
COMMAND = re.compile(r"\bsystemprompt ((?:--|infra )[^#|&;)`>\n]*)")

NOT_RUN = {
    **dict.fromkeys(
        (
            "docs/how-to/migrate-from-airflow.md",
            "docs/how-to/migrate-from-apscheduler.md",
            "docs/how-to/migrate-from-celery-beat.md",
        ),
        "shows code for others first; test_docs_guides.py runs what takes its place",
    ),
    **dict.fromkeys(
        (
            "docs/how-to/develop-a-plugin.md",
            "docs/how-to/publish-a-plugin.md",
            "docs/how-to/test-a-job.md",
            "docs/how-to/write-a-schedule.md",
            "docs/tutorial/first-plugin.md",
        ),
        "shows files that import each other; test_docs_guides.py runs their tests",
    ),
    "docs/how-to/trace-runs.md": "shows files; test_docs_guides.py runs them",
    "docs/how-to/wrap-every-attempt.md": "sets up opentelemetry; test_docs_guides.py runs it",
    "docs/reference/schedules.md": "interactive; calendar/test_reference.py runs it",
    "plugins/dashboard/README.md": "needs a project in /srv",
}
"""Page → why its Python is not run here. It is compiled all the same, by test_docs.py."""

each_page = partial(pytest.mark.parametrize, "page", ids=lambda page: str(page.relative_to(ROOT)))


def blocks(page, language):
    for indent, found, text in BLOCK.findall(page.read_text("utf-8")):
        if found == language:
            yield re.sub(rf"^{indent}", "", text, flags=re.MULTILINE)


def having(language):
    return each_page([page for page in PAGES if any(blocks(page, language))])


@each_page(
    [p for p in PAGES if any(blocks(p, "python")) and str(p.relative_to(ROOT)) not in NOT_RUN]
)
def test_the_python_of_a_page_runs_from_top_to_bottom(page, tmp_path, monkeypatch):
    names = {name: getattr(systemprompt_jobs, name) for name in systemprompt_jobs.__all__}
    monkeypatch.chdir(tmp_path)
    for text in blocks(page, "python"):
        names["__name__"] = "page"
        exec(compile(text, str(page), "exec"), names)


def test_each_page_that_is_not_run_here_is_there():
    assert [name for name in NOT_RUN if not (ROOT / name).is_file()] == []


@having("console")
def test_each_command_line_in_a_page_is_one(page):
    for text in blocks(page, "console"):
        for line in COMMAND.findall(text):
            with suppress(click.exceptions.Exit):  # --version
                parse(shlex.split(line))


def parse(arguments):
    """Have click read the arguments of each group and of the command, and call nothing."""
    command, name = systemprompt, "systemprompt"
    context = None
    while True:
        context = command.make_context(name, list(arguments), parent=context)
        if not isinstance(command, click.Group):
            return
        arguments = [*context._protected_args, *context.args]
        name, command, arguments = command.resolve_command(context, arguments)


@having("json")
def test_the_json_of_a_page_is_json(page):
    for text in blocks(page, "json"):
        json.loads(text)


@having("toml")
def test_the_toml_of_a_page_is_toml(page):
    for text in blocks(page, "toml"):
        tomllib.loads(text)


def test_no_block_is_of_a_language_that_nothing_looks_at():
    seen = {found for page in PAGES for _, found, _ in BLOCK.findall(page.read_text("utf-8"))}
    assert seen == {"console", "json", "python", "text", "toml", "yaml"}
