"""Writes the files that commands make: all of them, or none."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def write_files(folder: Path, texts: Mapping[str, str]) -> None:
    """Write each text into its path below `folder`, over what is there.

    After an error, what is new is removed. Raises UsageError.
    """
    new: list[Path] = []
    try:
        for path, text in texts.items():
            file = folder / path
            file.parent.mkdir(parents=True, exist_ok=True)
            if not file.exists():
                file.touch(mode=0o644)  # a plugin that everybody may write to would be refused
                new.append(file)
            file.write_text(text, "utf-8")
    except OSError as error:
        for file in new:
            file.unlink(missing_ok=True)
        raise click.UsageError(f"{error.filename or folder}: {error.strerror}") from error
