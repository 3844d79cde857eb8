"""`init`: a project that works at once."""

from __future__ import annotations

import shlex
from importlib.resources import files
from pathlib import Path

import click

from ._files import write_files
from ._text import paragraph, say

_FILES = {
    "services/scheduler/config.yaml": "config.yaml",
    "profile.yaml": "profile.yaml",
    "jobs.py": "jobs.txt",
    ".gitignore": "gitignore",
}
"""Path in the project → file in the folder `template`."""


@click.command("init")
@click.argument("folder", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
@click.option("--force", is_flag=True, help="Overwrite files that exist.")
def command(folder: Path, force: bool) -> None:
    """Make a project in DIR that works at once."""
    there = [path for path in _FILES if (folder / path).exists()]
    if there and not force:
        raise click.UsageError(
            f"{folder} has {', '.join(there)} already; --force overwrites, nothing was changed"
        )
    templates = files(__package__) / "template"
    write_files(folder, {path: (templates / file).read_text() for path, file in _FILES.items()})
    root = shlex.quote(str(folder))
    say(
        paragraph(f"made {', '.join(_FILES)} in {folder}; next:", ""),
        f"  cd {root} && systemprompt infra jobs list",
        "  systemprompt infra jobs serve",
    )
