"""`explain`: why a job will run or not, who set each value, and what became of one tick."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import click

from systemprompt_jobs.builtin.words import schedule_words

from . import _complete
from ._options import as_json
from ._plans import condition
from ._shapes import print_json, run_shape, values_shape
from ._table import Cell, Column, show_table
from ._text import one_line, paragraph, say
from ._times import read_instant

if TYPE_CHECKING:
    from collections.abc import Iterator

    from systemprompt_jobs.model import Explanation, Plan

    from ._session import Session

_COLUMNS = (Column("SETTING"), Column("VALUE", "wrap"), Column("SET BY", "wrap"))


@click.command("explain")
@click.argument("job", metavar="JOB", shell_complete=_complete.jobs)
@click.option("--at", metavar="TIME", help="What became of the tick at this time, and why; in the "
              "job's zone unless it has an offset.")  # fmt: skip
@as_json
@click.pass_obj
def command(session: Session, job: str, at: str | None, as_json: bool) -> None:
    """Say why a job will run or not, and who set each of its values."""
    runtime = session.runtime()
    zone = ZoneInfo(runtime.find(job).timezone)
    found = runtime.explain(job, read_instant("--at", at, zone) if at else None)
    if as_json:
        print_json(_answer(found))
    else:
        _show(found, values=at is None)


def _answer(found: Explanation) -> dict[str, Any]:
    return {
        "job": found.plan.id,
        "sentences": list(found.sentences),
        "run": run_shape(found.run) if found.run else None,
        "values": values_shape(found.plan),
    }


def _show(found: Explanation, *, values: bool) -> None:
    plan = found.plan
    found_so = "" if condition(plan) == "enabled" else f" ({condition(plan)})"
    say(one_line(f"{plan.id}{found_so}: {schedule_words(plan)}"), "")
    say(*(paragraph(sentence, "  ") for sentence in found.sentences))
    if values:
        say("")
        show_table(_COLUMNS, list(_rows(plan)))


def _rows(plan: Plan) -> Iterator[tuple[Cell | str, Cell | str, Cell | str]]:
    """Yield each value in force, and below it those that it hides, highest first."""
    for name, sources in plan.sources.items():
        *hidden, last = sources
        yield name, last.text(name), last.by
        for source in reversed(hidden):
            yield "", Cell(f"over {source.text(name)}", "dim"), Cell(source.by, "dim")
