"""Tables: fitted to the terminal, or whole in plain wide lines where something else reads."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from ._text import one_line, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.text import Text

_GAP = 2
_STEPS = (("wrap cut", 24), ("id", 30), ("wrap cut", 12), ("id", 12))
"""Which columns shrink, and to how many cells, one step after the other until all fits."""


class Cell(NamedTuple):
    """A text and its style, e.g. `red`, on a terminal with colours."""

    text: str
    style: str = ""


@dataclass(frozen=True, slots=True)
class Column:
    """A title, and what happens where the table is too wide for the terminal.

    `keep`: nothing; `wrap`: it takes more lines; `cut`: it ends in `…`; `id`: it is broken
    where the parts of a job's id meet.
    """

    title: str
    fit: Literal["keep", "wrap", "cut", "id"] = "keep"


def show_table(columns: Sequence[Column], rows: Sequence[Sequence[Cell | str]]) -> None:
    """Print a table; where there is no row, nothing."""
    if not rows:
        return
    cells = [[_cell(value) for value in row] for row in rows]
    if sys.stdout.isatty():
        _show_fitted(columns, cells)
    else:
        _show_whole(columns, cells)


def _cell(value: Cell | str) -> Cell:
    text, style = value if isinstance(value, Cell) else (value, "")
    return Cell(one_line(text), style)


def _show_whole(columns: Sequence[Column], rows: Sequence[Sequence[Cell]]) -> None:
    texts = [[c.title for c in columns], *([cell.text for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    for row in texts:
        cells = (text.ljust(width + _GAP) for text, width in zip(row, widths, strict=True))
        say("".join(cells).rstrip())


def _show_fitted(columns: Sequence[Column], rows: Sequence[Sequence[Cell]]) -> None:
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    titles = [[column.title for column in columns]]
    texts = [*titles, *([cell.text for cell in row] for row in rows)]
    natural = [max(map(cell_len, column)) for column in zip(*texts, strict=True)]
    widths = fit(columns, natural, console.width - _GAP * (len(columns) - 1))
    table = Table(box=None, padding=(0, _GAP, 0, 0), pad_edge=False, header_style="bold")
    for column, width in zip(columns, widths, strict=True):
        cut = column.fit == "cut"
        table.add_column(
            column.title, width=width, no_wrap=cut, overflow="ellipsis" if cut else "fold"
        )
    for row in rows:
        table.add_row(*map(_fitted, columns, row, widths))
    console.print(table)


def _fitted(column: Column, cell: Cell, width: int) -> Text:
    from rich.text import Text

    text = _broken(cell.text, width) if column.fit == "id" else cell.text
    return Text(text, cell.style)


def _broken(text: str, width: int) -> str:
    """Return an id in lines of `width`, all but the first one moved in."""
    lines = [""]
    for part in re.findall(r"[^:_-]*[:_-]|[^:_-]+", text):
        if len(lines[-1] + part) > width and lines[-1].strip():
            lines.append(" ")
        lines[-1] += part
    return "\n".join(lines)


def fit(columns: Sequence[Column], natural: Sequence[int], room: int) -> list[int]:
    """Return a width for each column so that all have `room`, as far as that is possible."""
    widths = list(natural)
    for kinds, least in _STEPS:
        able = [i for i, column in enumerate(columns) if column.fit in kinds.split()]
        while sum(widths) > room:
            widest = max(able, key=lambda i: widths[i], default=None)
            if widest is None or widths[widest] <= least:
                break
            widths[widest] -= 1
    return widths
