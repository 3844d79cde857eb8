"""`stats`: how jobs have been doing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from . import _complete
from ._history import find_id
from ._options import as_json
from ._runs import STATES
from ._shapes import print_json
from ._table import Cell, Column, show_table
from ._text import say
from ._times import duration, took

if TYPE_CHECKING:
    from datetime import timedelta

    from systemprompt_jobs.model import JobStats

    from ._session import Session

_COLUMNS = (
    Column("JOB", "id"),
    Column("RUNS"),
    Column("OK"),
    Column("TOOK p50, p95", "wrap"),
    Column("LATE p50, p95", "wrap"),
    Column("LAST"),
)
_BARS = "▁▂▃▄▅▆▇█"
_SHOWN = 12


@click.command("stats")
@click.argument("names", nargs=-1, metavar="[JOB]...", shell_complete=_complete.jobs)
@click.option("--since", default="7d", show_default=True, metavar="DURATION",
              help="Count what was recorded within this time.")  # fmt: skip
@as_json
@click.pass_obj
def command(session: Session, names: tuple[str, ...], since: str, as_json: bool) -> None:
    """Show how often jobs ran, succeeded, and how long and how late they were."""
    age = duration("--since", since)
    runtime = session.runtime()
    found = runtime.stats(*(find_id(runtime, name) for name in names), since=age)
    if as_json:
        print_json({"jobs": [_answer(stats) for stats in found]})
    elif found:
        show_table(_COLUMNS, [_row(stats) for stats in found])
    else:
        say("no runs yet")


def _answer(stats: JobStats) -> dict[str, Any]:
    return {
        "job": stats.job_id,
        "runs": stats.runs,
        "counts": dict(stats.counts),
        "success_rate": stats.success_rate,
        "took_p50_s": _seconds(stats.took[0]),
        "took_p95_s": _seconds(stats.took[1]),
        "late_p50_s": _seconds(stats.late[0]),
        "late_p95_s": _seconds(stats.late[1]),
        "last": [{"state": state, "took_s": _seconds(time)} for state, time in stats.last],
    }


def _seconds(value: timedelta | None) -> float | None:
    return None if value is None else value.total_seconds()


def _row(stats: JobStats) -> tuple[Cell | str, ...]:
    rate = stats.success_rate
    return (
        stats.job_id,
        str(stats.runs),
        "" if rate is None else Cell(_percent(rate), "" if rate == 1 else "yellow"),
        _pair(*stats.took),
        _pair(*stats.late),
        sparkline(stats.last[-_SHOWN:]),
    )


def _percent(rate: float) -> str:
    """Return whole percents, of which 100 means all."""
    return f"{int(rate * 100)}%"


def _pair(*values: timedelta | None) -> str:
    return ", ".join(took(value) for value in values if value is not None)


def sparkline(runs: tuple[tuple[str, timedelta | None], ...]) -> str:
    """Return a character per run: how long it took if it succeeded, else its state's symbol."""
    longest = max((time.total_seconds() for _, time in runs if time is not None), default=0.0)
    return "".join(
        _bar(time.total_seconds(), longest)
        if state == "succeeded" and time is not None
        else STATES[state][0]
        for state, time in runs
    )


def _bar(seconds: float, longest: float) -> str:
    return _BARS[round(seconds / longest * (len(_BARS) - 1))] if longest > 0 else _BARS[0]
