"""The reference page tells the truth."""

from __future__ import annotations

import re
from datetime import timedelta  # noqa: TC003  # the page's examples are run
from pathlib import Path

import pytest

from systemprompt_jobs import job
from systemprompt_jobs._configure import find_project
from systemprompt_jobs._configure._layers import DEFAULTS
from systemprompt_jobs._configure._schema import JobEntry, Scheduler
from systemprompt_jobs.errors import ConfigurationError

PAGE = (Path(__file__).parents[2] / "docs/reference/configuration.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```yaml\n(.*?)```(?:\n```text\n(.*?)```)?", PAGE, re.DOTALL)


@pytest.fixture
def collection(make_collection):
    @job(schedule="0 0 * * * *")
    def cleanup(ctx, *, older_than: timedelta): ...

    return make_collection(cleanup, extension="my-extension")


@pytest.mark.parametrize(("text", "messages"), EXAMPLES)
def test_every_example_gives_the_messages_below_it(folder, collection, text, messages):
    folder.config_path.write_text(text)
    if messages:
        found = folder.refusal(collection)
        expected = messages.splitlines()
        assert [line.removeprefix("services/scheduler/") for line in found] == expected
    else:
        assert folder.plans(collection)["my-extension:cleanup"].problem is None


def test_messages_about_variables_and_the_root_are_as_shown(folder):
    shown = PAGE.split("### Variables and the root")[1]
    with pytest.raises(ConfigurationError) as caught:
        find_project("nowhere", {}, folder.root)
    for problem in (*folder.problems(TIMZONE="x", DATABASES="x", WORKERS="many"), caught.value):
        assert f"{problem}\n" in shown


def test_every_setting_is_on_the_page_with_its_default_and_variable():
    for name in (*Scheduler.model_fields, *JobEntry.model_fields):
        assert f"`{name}`" in PAGE
    for name, value in DEFAULTS.items():
        (row,) = re.findall(
            rf"^\| `{name}` \|.*$", PAGE.split("## `scheduler.jobs`")[0], re.MULTILINE
        )
        scalar = not isinstance(value, dict | list)
        default = str(value).lower() if isinstance(value, bool) else value
        assert f"| `{default}` |" in row if scalar else "| none |" in row
        assert row.endswith(
            f"`SYSTEMPROMPT_JOBS__{name.upper()}` |" if scalar else "| files only |"
        )
