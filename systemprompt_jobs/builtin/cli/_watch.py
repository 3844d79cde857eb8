"""An answer that is drawn anew, again and again, on a screen of its own."""

from __future__ import annotations

import io
import time
from contextlib import redirect_stdout
from typing import TYPE_CHECKING

from systemprompt_jobs.errors import JobsError

from ._text import paragraph, say

if TYPE_CHECKING:
    from collections.abc import Callable

_EVERY_S = 2.0


class _Sheet(io.StringIO):
    """What is printed for a terminal."""

    def isatty(self) -> bool:
        return True


def keep_drawing(answer: Callable[[], None]) -> None:
    """Draw what `answer` prints, every 2 s until Ctrl-C; an outage is shown and waited for."""
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    with Live(console=Console(), screen=True, auto_refresh=False) as live:
        while True:
            live.update(Text.from_ansi(_sheet(answer)), refresh=True)
            time.sleep(_EVERY_S)


def _sheet(answer: Callable[[], None]) -> str:
    sheet = _Sheet()
    with redirect_stdout(sheet):
        try:
            answer()
        except JobsError as error:
            say(paragraph(f"error: {error}", ""))
    return sheet.getvalue()
