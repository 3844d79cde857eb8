"""`new-plugin`: the package of a plugin that passes its own tests at once."""

from __future__ import annotations

import keyword
import re
import shlex
import sys
from importlib.metadata import entry_points, packages_distributions
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

import click

from systemprompt_jobs import __version__, hookspecs

from ._files import write_files
from ._text import say

_FILES = {
    "pyproject.toml": "pyproject.txt",
    "README.md": "readme.txt",
    ".gitignore": "gitignore",
    ".github/workflows/test.yaml": "workflow.txt",
    "src/example_plugin/__init__.py": "module.txt",
    "src/example_plugin/py.typed": "",
    "tests/test_example_plugin.py": "tests.txt",
}
"""Path in the package → file in the folder `new_plugin`; both bear the name of an example."""

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", re.ASCII)


@click.command("new-plugin")
@click.argument("name")
@click.option(
    "--into",
    metavar="DIR",
    default=".",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where to make the folder NAME; else here.",
)
def command(name: str, into: Path) -> None:
    """Make the package of a plugin: a job, its tests, README and CI.

    NAME is that of the package, of the extension in configurations, and of the folder.
    """
    _check_name(name)
    folder = into / name
    if folder.exists():
        raise click.UsageError(f"{folder} exists already; nothing was changed")
    write_files(folder, {path: _text(name, file) for path, file in _named(name)})
    say(
        f"made {folder}; next, in a virtual environment:",
        f"  cd {shlex.quote(str(folder))} && pip install --editable '.[dev]'",
        "  pytest && ruff check && mypy && systemprompt infra jobs check",
        f"  systemprompt infra jobs init ../demo && cd ../demo  # a project to run it in\n"
        f"  systemprompt infra jobs run {name}:count_files",
    )


def _named(name: str) -> list[tuple[str, str]]:
    return [(_renamed(path, name), file) for path, file in _FILES.items()]


def _text(name: str, file: str) -> str:
    if not file:
        return ""
    text = (files(__package__) / "new_plugin" / file).read_text("utf-8")
    return _renamed(text, name).replace("0.0.0", __version__)


def _renamed(text: str, name: str) -> str:
    return text.replace("example-plugin", name).replace("example_plugin", _module(name))


def _module(name: str) -> str:
    return name.replace("-", "_")


def _check_name(name: str) -> None:
    """Raise UsageError for what cannot be the name of a package, or is somebody else's."""
    if not _NAME.fullmatch(name):
        meant = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
        hint = f"; try {meant}" if _NAME.fullmatch(meant) else ""
        raise click.UsageError(
            f"{name!r} is no name for a package: lower-case letters, digits and single "
            f"hyphens, a letter first{hint}"
        )
    module = _module(name)
    if keyword.iskeyword(module) or module in sys.stdlib_module_names:
        raise click.UsageError(f"{name!r} is Python's own: put a word of yours before it")
    if owner := _owner(name, module):
        raise click.UsageError(f"{name!r} is taken by {owner}: choose another name")


def _owner(name: str, module: str) -> str:
    """Return whose extension or module is called so already, among what is installed."""
    for point in entry_points(group=hookspecs.PROJECT, name=name):
        return f"the extension of {point.dist.name if point.dist else point.value}"
    if find_spec(module) is None:
        return ""
    return f"the module of {', '.join(packages_distributions().get(module, [module]))}"
