"""What comes along is true: the README's table, the alert rules and the dashboard."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import zipfile
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from click.testing import CliRunner
from hatchling.builders.wheel import WheelBuilder
from systemprompt_jobs_prometheus import Metrics, _command, _look
from systemprompt_jobs_prometheus import __file__ as package

from plugins.prometheus.tests.support import NODE, read, run
from systemprompt_jobs import Report, hookspecs
from systemprompt_jobs.model import JobOverview, PauseOverview, State
from tests.support import START, make_plan

FOLDER = Path(__file__).parents[1]
HERE = Path(package).parent
RULES = yaml.safe_load((HERE / "alerts.yaml").read_text("utf-8"))["groups"][0]["rules"]
DASHBOARD = json.loads((HERE / "dashboard.json").read_text("utf-8"))
OF_PROMETHEUS = {"le", "instance"}

VALUES = {
    "node": NODE,
    "report": Report(State.SUCCEEDED, START, START),
    "after": timedelta(seconds=1),
    "runs": 1,
    "nodes": 1,
    "audits": 1,
}
"""What hooks get; `run` is made for each."""


class Scheduler:
    """A runtime that has an answer to everything."""

    degraded = ()

    def health(self):
        return SimpleNamespace(ready=True)

    def nodes(self):
        id_ = f"{_look.this_process()}ab"
        offset = timedelta(seconds=-2)
        return [SimpleNamespace(id=id_, kind="scheduler", state="live", clock_offset=offset)]

    def dispatched(self):
        return {"big": 3}

    def jobs(self):
        pause = PauseOverview("ext:cleanup", START, None, "", "")
        return [JobOverview(make_plan(), START, run(state=State.SUCCEEDED), pause)]


@pytest.fixture(scope="module")
def page():
    """Return a page on which every metric has a sample: each hook was called."""
    metrics = Metrics()
    for hook in (
        hook for hook in dir(metrics) if hasattr(getattr(metrics, hook), hookspecs.MARKER)
    ):
        if hook != "health_page":
            function = getattr(metrics, hook)
            wanted = function.__code__.co_varnames[1 : function.__code__.co_argcount]
            for state in (State.SUCCEEDED, State.LOST):
                function(**{n: run(state=state) if n == "run" else VALUES[n] for n in wanted})
    return read(metrics.health_page("/metrics", Scheduler()))


def names(page):
    return {name for name, _ in page.samples}


def used(expression):
    return set(re.findall(r"\bsystemprompt_jobs_\w+", expression))


def expressions():
    for rule in RULES:
        yield pytest.param(rule["expr"], id=rule["alert"])
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            yield pytest.param(target["expr"], id=f"{panel['title']} {target['refId']}")
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            yield pytest.param(variable["query"]["query"], id=variable["name"])


@pytest.mark.parametrize("expression", [*expressions()])
def test_every_expression_uses_metrics_and_labels_that_exist(page, expression):
    assert used(expression)
    assert used(expression) <= names(page)
    labels = {label for _, sample in page.samples for label, _ in sample} | OF_PROMETHEUS
    grouped = re.findall(r"\b(?:by|on) \(([^)]*)\)", expression)
    selected = re.findall(r"(\w+)=~?\"", expression)
    assert {label.strip() for text in grouped for label in text.split(",")} | {*selected} <= labels
    assert re.findall(r'outcome="(?!lost")', expression) == []


def test_every_metric_is_on_the_dashboard_or_in_an_alert(page):
    """One that nobody looks at is not worth its memory."""
    seen = {name for parameter in expressions() for name in used(parameter.values[0])}
    base = {
        re.sub(r"_(bucket|sum|count)$", "", n) for n in names(page) if not n.endswith("_created")
    }
    assert base == {re.sub(r"_bucket$", "", name) for name in seen}


def test_alerts_and_panels_say_what_they_are():
    for rule in RULES:
        assert rule["labels"]["severity"] in {"warning", "critical"}
        assert rule["annotations"]["summary"]
    titles = [panel["title"] for panel in DASHBOARD["panels"]]
    assert len({*titles}) == len(titles)
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(titles)


def test_no_two_panels_lie_on_each_other():
    cells = [
        (x, y)
        for grid in (panel["gridPos"] for panel in DASHBOARD["panels"])
        for x in range(grid["x"], grid["x"] + grid["w"])
        for y in range(grid["y"], grid["y"] + grid["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) == 23


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not installed")
def test_promtool_accepts_the_rules():
    subprocess.run(["promtool", "check", "rules", HERE / "alerts.yaml"], check=True, timeout=60)


def test_the_table_of_the_readme_has_every_metric_with_type_labels_and_meaning(page):
    row = re.compile(r"^\| `(systemprompt_jobs_\w+)` \| (\w+) \| (.*?) \| (.*) \|$", re.MULTILINE)
    shown = row.findall((FOLDER / "README.md").read_text("utf-8"))
    assert sorted(shown) == sorted(rows(page))


def rows(page):
    """Return what the table must say, by the page itself."""
    for family in page.families.values():
        if family.name.startswith("systemprompt_jobs_") and not family.name.endswith("_created"):
            suffix = "_total" if family.type == "counter" else ""
            labels = sorted({label for s in family.samples for label in s.labels} - {"le"})
            shown = ", ".join(f"`{label}`" for label in labels)
            yield family.name + suffix, family.type, shown, family.documentation.rstrip(".")


def test_the_wheel_holds_the_files(tmp_path):
    (wheel,) = WheelBuilder(str(FOLDER)).build(directory=str(tmp_path))
    held = {Path(name).name for name in zipfile.ZipFile(wheel).namelist()}
    assert {*_command.FILES, "py.typed"} <= held


@pytest.mark.parametrize("file", _command.FILES)
def test_the_command_prints_them_as_they_are(file):
    result = CliRunner().invoke(_command.prometheus, [file])
    assert result.exit_code == 0
    assert result.output == (HERE / file).read_text("utf-8")
