"""`nodes`: the schedulers and workers of this database."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click

from ._options import as_json
from ._problems import show_refused
from ._shapes import print_json
from ._table import Cell, Column, show_table
from ._text import counted, listed, paragraph, say
from ._times import duration, now, relative, took

if TYPE_CHECKING:
    from datetime import datetime

    from systemprompt_jobs.model import NodeOverview

    from ._session import Session

_COLUMNS = (
    Column("NODE", "wrap"),
    Column("STATE"),
    Column("VERSION"),
    Column("UP"),
    Column("HEARD OF"),
    Column("WORKERS"),
    Column("JOBS"),
    Column("CLOCK"),
)
_STYLES = {"live": "green", "left": "dim", "died": "bold red"}
_SHOWN = 5


@click.command("nodes")
@click.option("--gone", default="1d", show_default=True, metavar="DURATION",
              help="Show those too that went within this time.")  # fmt: skip
@as_json
@click.pass_obj
def command(session: Session, gone: str, as_json: bool) -> None:
    """Show the live schedulers and workers, and those that went lately."""
    age = duration("--gone", gone)
    nodes = session.runtime().nodes(age)
    if as_json:
        print_json({"nodes": [_answer(node) for node in nodes]})
    elif nodes:
        _show(nodes, now())
    else:
        say("no scheduler is live; start one: systemprompt infra jobs serve")


def _answer(node: NodeOverview) -> dict[str, Any]:
    offset = node.clock_offset
    return {
        "id": node.id,
        "state": node.state,
        "kind": node.kind,
        "version": node.version,
        "workers": node.workers,
        "started": node.started,
        "heartbeat": node.heartbeat,
        "clock_offset_s": offset.total_seconds() if offset is not None else None,
        "jobs": node.jobs,
        "lacks": list(node.lacks),
        "strays": node.strays,
        "problem": node.problem,
    }


def _show(nodes: list[NodeOverview], present: datetime) -> None:
    show_table(_COLUMNS, [_row(node, present) for node in nodes])
    show_refused(nodes)
    for node in nodes:
        if node.lacks:
            more = len(node.lacks) - _SHOWN
            names = [*node.lacks[:_SHOWN], *([f"{more} more"] if more > 0 else [])]
            lacking = counted(len(node.lacks), "job")
            say("", paragraph(f"{node.id} lacks {lacking} of other nodes: {listed(names)}", ""))


def _row(node: NodeOverview, present: datetime) -> tuple[Cell | str, ...]:
    end = present if node.state == "live" else node.heartbeat
    return (
        node.id,
        Cell(f"{node.state}{_kind(node)}", _STYLES[node.state]),
        node.version,
        took(max(end - node.started, timedelta(0))),
        relative(min(node.heartbeat, present), present),
        str(node.workers),
        str(node.jobs),
        _offset(node.clock_offset),
    )


def _kind(node: NodeOverview) -> str:
    return "" if node.kind == "scheduler" else f" {node.kind}"


def _offset(offset: timedelta | None) -> str:
    return "" if offset is None else f"{offset.total_seconds():+.3f} s"
