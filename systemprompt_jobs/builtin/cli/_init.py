"""`init`: a project that works at once."""

from __future__ import annotations

import shlex
from importlib.resources import files
from pathlib import Path

import click

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
    try:
        _write(folder)
    except OSError as error:
        raise click.UsageError(f"{error.filename or folder}: {error.strerror}") from error
    root = shlex.quote(str(folder))
    say(
        paragraph(f"made {', '.join(_FILES)} in {folder}; next:", ""),
        f"  cd {root} && systemprompt infra jobs list",
        "  systemprompt infra jobs serve",
    )


def _write(folder: Path) -> None:
    """Write all files, or none: what is new and was written before an error is removed."""
    templates, new = files(__package__) / "template", []
    try:
        for path, template in _FILES.items():
            file = folder / path
            file.parent.mkdir(parents=True, exist_ok=True)
            if not file.exists():
                file.touch(mode=0o644)  # a plugin that everybody may write to would be refused
                new.append(file)
            file.write_text((templates / template).read_text("utf-8"), "utf-8")
    except OSError:
        for file in new:
            file.unlink(missing_ok=True)
        raise
