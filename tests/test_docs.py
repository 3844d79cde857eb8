"""The pages are true where a machine can tell: links, examples, and the README's plugin."""

from __future__ import annotations

import inspect
import re
import tomllib
from functools import partial
from pathlib import Path

import pytest
import yaml

from systemprompt_jobs import Runtime, _node, _observe, job
from systemprompt_jobs._calendar import parse
from systemprompt_jobs._configure import find_project, load_settings
from systemprompt_jobs.builtin import intervals
from systemprompt_jobs.builtin.cli import _leave
from systemprompt_jobs.model import State

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
OURS = [README, *sorted((ROOT / "docs").rglob("*.md"))]
PAGES = [*OURS, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *ROOT.glob("plugins/*/README.md")]

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
MADE_WRONG = {"configuration.md"}
"""Pages whose YAML shows mistakes; a test of their own compares it with the messages."""

each_page = partial(pytest.mark.parametrize, "page", ids=lambda page: str(page.relative_to(ROOT)))


def blocks(page, language):
    """Return the code blocks of a language, without the indentation of a list they stand in."""
    found = re.findall(
        rf"^( *)```{language}\n(.*?)^ *```$", page.read_text("utf-8"), re.DOTALL | re.MULTILINE
    )
    return [re.sub(rf"^{indent}", "", text, flags=re.MULTILINE) for indent, text in found]


def prose(page):
    """Return the page without code blocks, in which brackets mean something else."""
    return re.sub(r"^ *```.*?^ *```$", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)


def anchors(page):
    """Return what GitHub makes of the headings."""
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        for heading in HEADING.findall(prose(page))
    }


def broken_links(page):
    for target in LINK.findall(prose(page)):
        file, _, anchor = target.partition("#")
        if ":" in file:
            continue  # another site
        there = (page.parent / file).resolve() if file else page
        found = there.is_relative_to(ROOT) and there.exists()
        if not found or (anchor and anchor not in anchors(there)):
            yield target


def without_prompts(text):
    """Return the code of an interactive example, without its answers."""
    lines = [line[4:] for line in text.splitlines() if line.startswith((">>> ", "... "))]
    return "\n".join(lines) if text.startswith(">>> ") else text


@each_page(PAGES)
def test_every_relative_link_leads_somewhere(page):
    assert list(broken_links(page)) == []


def test_every_page_can_be_reached_from_the_index():
    index = ROOT / "docs" / "index.md"
    linked = {(index.parent / target).resolve() for target in LINK.findall(prose(index))}
    assert set(OURS) - {README, index} <= linked


def test_supervisors_are_told_to_wait_for_longer_than_a_stop_can_take():
    grace = Runtime(environ={"SYSTEMPROMPT_PLUGINS": ""}).settings.shutdown_grace.total_seconds()
    at_most = grace + _node._KILLING_S + _observe.DRAIN_S + _leave._PATIENCE_S
    texts = [path.read_text("utf-8") for path in (ROOT / "docs").rglob("*") if path.is_file()]
    words = r"(?:TimeoutStopSec=|stop_grace_period: |GracePeriodSeconds: |--stop-timeout )(\d+)"
    told = [int(seconds) for text in texts for seconds in re.findall(words, text)]
    assert len(told) == 5
    assert min(told) > at_most


def test_the_page_on_architecture_has_each_module_in_its_layer():
    page = (ROOT / "docs/explanation/architecture.md").read_text("utf-8")
    words = re.findall(r"\w+", page.partition("## Who may import whom")[2].split("```")[1])
    rules = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]
    layer_of = {
        module.rpartition(".")[2]: number
        for number, layer in enumerate(rules["contracts"][0]["layers"])
        for module in layer.split(" | ")
    }
    package = (ROOT / "systemprompt_jobs").iterdir()
    modules = {path.stem for path in package if path.is_dir() or path.suffix == ".py"}
    assert layer_of.keys() == modules - {"__init__", "__pycache__"}
    layers = [layer_of[module] for module in sorted(layer_of, key=words.index)]
    assert layers == sorted(layers)


@each_page(PAGES)
def test_every_python_example_compiles(page):
    for text in blocks(page, "python"):
        compile(without_prompts(text), str(page), "exec")


@each_page([page for page in PAGES if page.name not in MADE_WRONG])
def test_every_configuration_in_the_pages_is_accepted(page, tmp_path):
    for text in blocks(page, "yaml"):
        if "scheduler:" in text:
            settings = settings_of(tmp_path, text)
            assert [*map(str, settings.problems)] == []
            for entry in settings.entries:  # of plugins that need not be installed here
                if "schedule" in entry.values:
                    schedule = entry.values["schedule"].value
                    assert intervals.parse_schedule(schedule) or parse(schedule, settings.timezone)


@pytest.mark.parametrize(
    ("word", "argument"), [("Retries", "max_attempts"), ("timeouts", "timeout")]
)
def test_the_readme_denies_nothing_that_exists(word, argument):
    not_yet = README.read_text("utf-8").partition("## Not yet")[2].partition("##")[0]
    assert not_yet
    assert not (word in not_yet and argument in inspect.signature(job).parameters)


def settings_of(root, text):
    write_config(root, text)
    for name in {"jobs.py", *re.findall(r"\b\w+\.py\b", text)}:  # local plugins
        (root / name).touch(mode=0o644)
    for name in re.findall(r"\{file: ([^}]+)\}", text):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text("secret")
    environ = dict.fromkeys(re.findall(r"\{env: (\w+)\}", text), "sqlite:///secret")
    return load_settings(find_project(root, {}, root), environ)


def write_config(root, text):
    file = root / "services" / "scheduler" / "config.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, "utf-8")


@pytest.fixture
def inbox(tmp_path):
    """Return a runtime of the README's plugin, hook and configuration, and the folder it counts."""
    folder = tmp_path / "waiting"
    folder.mkdir()
    (tmp_path / "inbox.py").write_text("\n".join(blocks(README, "python")), "utf-8")
    (config,) = map(yaml.safe_load, blocks(README, "yaml"))
    (entry,) = config["scheduler"]["jobs"]
    entry["parameters"]["folder"] = str(folder)
    config["scheduler"]["local_plugins"] = ["inbox.py"]
    write_config(tmp_path, yaml.safe_dump(config))
    runtime = Runtime(tmp_path, environ={"SYSTEMPROMPT_PLUGINS": ""})
    yield runtime, folder
    runtime.stop()


def test_the_plugin_of_the_readme_runs_as_configured_and_counts_its_runs(inbox):
    runtime, folder = inbox
    (folder / "letter.txt").touch()
    (good,) = runtime.run("inbox:count")
    assert (good.state, good.message) == (State.SUCCEEDED, "1 files wait")
    (bad,) = runtime.run("inbox:count", parameters={"limit": 0})
    assert (bad.state, bad.error) == (State.FAILED, "RuntimeError: 1 files wait, 0 are allowed")
    ends = runtime.find("count").job.function.__globals__["ends"]
    runtime.stop()
    assert ends == {("inbox:count", "succeeded"): 1, ("inbox:count", "failed"): 1}


def test_the_configuration_of_the_readme_wins_over_its_plugin(inbox):
    runtime, folder = inbox
    plan = runtime.find("count")
    assert plan.schedule.describe() == "every 10 seconds"
    assert runtime.lint() == []
    assert plan.parameters == {"folder": str(folder), "limit": 20}
