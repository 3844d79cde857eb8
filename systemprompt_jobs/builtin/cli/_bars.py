"""How far jobs are, while `run` waits for them: bars on a terminal, else now and then a line."""

from __future__ import annotations

import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from systemprompt_jobs import hookimpl

from ._runs import count_text, progress_text
from ._text import complain, one_line

if TYPE_CHECKING:
    from rich.progress import TaskID

    from systemprompt_jobs import Progress, Run

_LINE_EVERY_S = 5.0


class RunCommandBars:
    """A plugin that shows the progress of runs, from the first that has any to `close`."""

    def __init__(self) -> None:
        self._bars: Any = None
        self._tasks: dict[int, TaskID] = {}
        self._next_line: dict[int, float] = {}
        self._closed = False
        self._lock = threading.Lock()

    @hookimpl
    def run_progressed(self, run: Run, progress: Progress) -> None:
        """Show it."""
        with self._lock:
            if not self._closed:
                self._show(run, progress)

    def _show(self, run: Run, progress: Progress) -> None:
        if self._bars is not None or sys.stderr.isatty():
            self._draw(run, progress)
        elif time.monotonic() >= self._next_line.get(run.id, 0.0):
            self._next_line[run.id] = time.monotonic() + _LINE_EVERY_S
            complain(f"{run.job_id}: {progress_text(progress)}")

    @hookimpl
    def run_finished(self, run: Run) -> None:
        """Show it no longer."""
        with self._lock:
            if run.id in self._tasks:
                self._bars.remove_task(self._tasks.pop(run.id))

    def close(self) -> None:
        """Give the terminal back."""
        with self._lock:
            self._closed = True
            if self._bars is not None:
                self._bars.stop()

    def _draw(self, run: Run, progress: Progress) -> None:
        if self._bars is None:
            self._bars = _new_bars()
            self._bars.start()
        if run.id not in self._tasks:
            self._tasks[run.id] = self._bars.add_task(
                one_line(run.job_id), total=None, count="", said=""
            )
        self._bars.update(
            self._tasks[run.id],
            completed=progress.done,
            total=progress.total,
            count=count_text(progress),
            said=one_line(progress.message),
        )


def _new_bars() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars
    from rich.table import Column

    def text(template: str, share: int) -> TextColumn:
        column = Column(no_wrap=True, overflow="ellipsis", ratio=share)
        return TextColumn(template, markup=False, table_column=column)

    return Bars(
        text("{task.description}", 3),
        BarColumn(bar_width=16),
        TextColumn("{task.fields[count]}", markup=False),
        TimeRemainingColumn(),
        text("{task.fields[said]}", 3),
        console=Console(stderr=True),
        transient=True,
        expand=True,
        redirect_stdout=sys.stdout.isatty(),
    )
