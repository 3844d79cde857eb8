"""Plugins made on the spot: installed distributions, modules and local files."""

from __future__ import annotations

import importlib
import sys
from textwrap import dedent

import pluggy
import pytest

from systemprompt_jobs import hookspecs
from systemprompt_jobs._collect import collect
from systemprompt_jobs.model import Place


class Site:
    """A folder on the import path that plugins are installed into."""

    def __init__(self, folder):
        self.folder = folder
        self.manager = pluggy.PluginManager(hookspecs.PROJECT)
        self.manager.add_hookspecs(hookspecs)
        self.installed = []

    def write(self, file, source):
        path = self.folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(source))
        return path

    def install(self, name, source, *, distribution=None, version="1.0", entry=None, file=None):
        """Install a distribution of one module that declares the extension `name`."""
        module = f"module_of_{name}".replace("-", "_")
        path = self.write(file or f"{module}.py", source)
        distribution = distribution or f"dist-of-{name}"
        info = self.folder / f"{distribution.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n"
        )
        (info / "entry_points.txt").write_text(f"[systemprompt_jobs]\n{name} = {entry or module}\n")
        self.installed.append(name)
        return path

    def collect(self, **arguments):
        """Collect what is installed here; whatever else the environment has stays out."""
        importlib.invalidate_caches()
        return collect(self.manager, **{"allowed": ",".join(self.installed), **arguments})

    def problem(self, culprit, **arguments):
        """Collect, and return the only problem, which must be the culprit's."""
        degraded = self.collect(**arguments).degraded
        assert list(degraded) == [culprit]
        assert degraded[culprit].culprit == culprit
        return degraded[culprit]


@pytest.fixture
def site(tmp_path, monkeypatch):
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    before = set(sys.modules)
    yield Site(folder)
    for name in set(sys.modules) - before:
        if name.startswith(("module_of_", "systemprompt_local_", "package_")):
            del sys.modules[name]


GOOD = """
    from systemprompt_jobs import job

    @job
    def works(): ...
"""


@pytest.fixture
def good(site):
    """Install a plugin that works, whatever its neighbours do."""
    site.install("good", GOOD)
    return "good:works"


def line_of(path, text):
    """Return the place of the only line that contains `text`."""
    lines = path.read_text().splitlines()
    (number,) = [n for n, line in enumerate(lines, 1) if text in line]
    return Place(path, number)
