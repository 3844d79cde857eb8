"""How a run looks on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._table import Cell, Column, show_table
from ._text import one_line
from ._times import instant, short, took

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from systemprompt_jobs import Progress, Run

STATES = {
    "pending": ("·", "dim"),
    "claimed": ("·", "dim"),
    "dispatched": ("→", "dim"),
    "retrying": ("↻", "yellow"),
    "running": ("▶", "cyan"),
    "succeeded": ("✓", "green"),
    "failed": ("✗", "bold red"),
    "timed_out": ("✗", "bold red"),
    "cancelled": ("■", "yellow"),
    "lost": ("?", "bold red"),
    "skipped": ("-", "yellow"),
    "missed": ("!", "yellow"),
}
"""State → its symbol and its colour."""

COLUMNS = (
    Column("RUN"),
    Column("JOB", "id"),
    Column("STATE", "wrap"),
    Column("WHEN (UTC)", "wrap"),
    Column("TOOK"),
    Column("MESSAGE", "cut"),
)
VERSIONS = (*COLUMNS[:-1], Column("FROM", "wrap"))


def show_runs(runs: Iterable[Run], today: datetime, *, versions: bool = False) -> None:
    """Print a table of runs, with what each said, or with `versions` what each came from."""
    show_table(
        VERSIONS if versions else COLUMNS,
        [
            (
                *(str(r.id), r.job_id, state_cell(r), _when(r, today), took(r.duration)),
                (f"{r.distribution} {r.version}".strip() or "local") if versions else said(r),
            )
            for r in runs
        ],
    )


def state_cell(run: Run) -> Cell:
    """Return the state with its symbol, and the reason or the number of ticks."""
    symbol, style = STATES[run.status]
    tries = (
        f" {run.attempt}/{run.max_attempts}" if run.status == "retrying" or run.attempt > 1 else ""
    )
    reason = f": {run.reason}" if run.reason else ""
    count = f" x{run.count}" if run.count > 1 else ""
    return Cell(f"{symbol} {run.status}{tries}{reason}{count}", style)


def said(run: Run) -> str:
    """Return the error of a run, its message, or how far it is, in one line."""
    running = run.progress if run.state == "running" else None
    return one_line(run.error or run.message or (progress_text(running) if running else ""))


def progress_text(progress: Progress) -> str:
    """Return e.g. `50/200 (25 %) copying`."""
    share = f" ({progress.done / progress.total:.0%})" if progress.total else ""
    return one_line(f"{count_text(progress)}{share.replace('%', ' %')} {progress.message}")


def count_text(progress: Progress) -> str:
    """Return e.g. `50/200`, or `50` where nobody knows the total."""
    total = "" if progress.total is None else f"/{progress.total:,.12g}"
    return f"{progress.done:,.12g}{total}"


def _when(run: Run, today: datetime) -> str:
    """Return the tick, or the start and what triggered it; for a stretch, its first and last."""
    if run.count > 1 and run.tick and run.last_tick:
        return f"{short(run.tick, today)} to {short(run.last_tick, today)}"
    if run.tick:
        by_hand = f" {run.trigger}" if run.trigger == "manual" else ""
        return f"{short(run.tick, today)}{by_hand}"
    begun = run.started or run.created
    return f"{short(begun, today) if begun else ''} {run.trigger}".strip()


def long_when(run: Run) -> str:
    """Return e.g. `schedule 2026-05-01 02:30:00`."""
    begun = run.tick or run.started or run.created
    return f"{run.trigger} {instant(begun) if begun else ''}".strip()
