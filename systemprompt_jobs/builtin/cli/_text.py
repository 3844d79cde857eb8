"""Text for terminals: whatever a job or a plugin says can neither move nor colour anything."""

from __future__ import annotations

import sys
import textwrap
from shutil import get_terminal_size
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Iterable


def many_lines(text: str) -> str:
    """Return `text` with everything but printable characters, tabs and line ends spelt out."""
    return "".join(c if c.isprintable() or c in "\n\t" else _spelt(c) for c in text)


def one_line(value: object) -> str:
    """Return the text of `value` in one line of printable characters."""
    return "".join(c if c.isprintable() else _spelt(c) for c in " ".join(str(value).split()))


def _spelt(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")


def counted(number: int, thing: str) -> str:
    """Return e.g. `1 job` or `3 jobs`."""
    return f"{number} {thing}{'' if number == 1 else 's'}"


def indented(text: str) -> list[str]:
    """Return the lines of `text`, each moved in."""
    return [f"    {line}".rstrip() for line in text.splitlines()]


def paragraph(text: str, indent: str, first: str | None = None) -> str:
    """Return `text` moved in and, where a terminal reads, broken to fit it.

    `first` is what its first line begins with, instead of `indent`.
    """
    width = get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize
    return textwrap.fill(
        one_line(text),
        width,
        initial_indent=indent if first is None else first,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def say(*lines: str) -> None:
    """Print lines to standard output."""
    for line in lines:
        click.echo(line)


def complain(*lines: str) -> None:
    """Print lines to standard error."""
    for line in lines:
        click.echo(many_lines(line), err=True)


def listed(words: Iterable[str]) -> str:
    """Return words, separated by commas."""
    return ", ".join(words)
