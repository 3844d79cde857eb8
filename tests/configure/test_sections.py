"""The hook `configured`: each plugin gets its own section, and its complaints are heard."""

from __future__ import annotations

from pathlib import Path

import pytest

from systemprompt_jobs import Runtime
from systemprompt_jobs.errors import ConfigurationError
from systemprompt_jobs.model import Place

PLUGIN = """
from systemprompt_jobs import hookimpl

heard = []


@hookimpl
def configured(settings, runtime):
    heard.append((dict(settings), runtime))
"""
RAISING = """
from systemprompt_jobs import hookimpl
from systemprompt_jobs.errors import ConfigurationError
from systemprompt_jobs.model import Place, Problem


@hookimpl
def configured(settings):
    raise {error}
"""
MISTAKES = """ConfigurationError([
        Problem("scheduler.extensions.second.a", "is wrong"),
        Problem("elsewhere", "is wrong too", Place(__import__("pathlib").Path("other.toml"), 7)),
    ])"""


@pytest.fixture
def load(tmp_path):
    """Return a function that loads local plugins with a configuration."""

    def make(config="", environ=(), **plugins):
        for name, text in plugins.items():
            (tmp_path / f"{name}.py").write_text(text)
        files = ", ".join(f"{name}.py" for name in plugins)
        (tmp_path / "profile.yaml").write_text(
            f"scheduler:\n  local_plugins: [{files}]\n{config}", encoding="utf-8"
        )
        return Runtime(tmp_path, environ={"SYSTEMPROMPT_PLUGINS": "", **dict(environ)})

    return make


def heard(runtime, name):
    return runtime._manager.get_plugin(name).heard


def test_each_plugin_gets_its_own_section_once_with_secrets_revealed(load):
    config = "  extensions:\n    first: {key: {env: KEY}}\n    second: {b: 2}\n"
    runtime = load(config, {"KEY": "s3cret"}, first=PLUGIN, second=PLUGIN, third=PLUGIN)
    assert heard(runtime, "first") == [({"key": "s3cret"}, runtime)]
    assert heard(runtime, "second") == [({"b": 2}, runtime)]
    assert heard(runtime, "third") == [({}, runtime)]


def test_what_it_gets_cannot_be_changed(load):
    changing = "from systemprompt_jobs import hookimpl\n\n@hookimpl\ndef configured(settings):\n"
    config = "  extensions:\n    first: {a: 0}\n"
    runtime = load(config, first=f"{changing}    settings['a'] = 1\n")
    assert "TypeError" in runtime.degraded[0].reason
    assert runtime.settings.extensions["first"] == {"a": 0}


def test_mistakes_join_the_others_with_file_and_line_and_nothing_starts(load, tmp_path):
    config = "  workers: many\n  extensions:\n    second: {a: 1}\n"
    runtime = load(config, first=PLUGIN, second=RAISING.format(error=MISTAKES))
    with pytest.raises(ConfigurationError) as error:
        _ = runtime.plans
    profile = tmp_path / "profile.yaml"
    assert [(p.culprit, p.place.file, p.place.line) for p in error.value.problems] == [
        ("elsewhere", Path("other.toml"), 7),
        ("scheduler.workers", profile, 3),
        ("scheduler.extensions.second.a", profile, 5),
    ]
    with pytest.raises(ConfigurationError):
        runtime.start()
    assert heard(runtime, "first")


@pytest.mark.parametrize("error", ["ValueError('odd')", "SystemExit(3)"])
def test_any_other_exception_degrades_the_plugin_and_the_others_are_told(load, tmp_path, error):
    config = "  extensions:\n    second: {a: 1}\n"
    plugins = {"first": PLUGIN, "second": RAISING.format(error=error), "third": PLUGIN}
    runtime = load(config, **plugins)
    (problem,) = runtime.degraded
    assert problem.culprit == "second"
    assert problem.reason.startswith(f"its configured() raised {error.partition('(')[0]}: ")
    assert problem.place == Place(tmp_path / "profile.yaml", 4)
    assert heard(runtime, "first")
    assert heard(runtime, "third")
    assert runtime.plans == ()
