"""`prune`: forget old history."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ._options import as_json
from ._shapes import print_json
from ._table import Column, show_table
from ._text import counted, listed, say
from ._times import duration, instant
from ._who import who

if TYPE_CHECKING:
    from systemprompt_jobs.model import Pruned

    from ._session import Session

_COLUMNS = (Column("JOB", "id"), Column("RUNS"))


@click.command("prune")
@click.option("--older-than", metavar="DURATION", help="What ended longer ago, e.g. 7d; else "
              "`retention`.")  # fmt: skip
@click.option("--keep", type=click.IntRange(min=0), metavar="N", help="Newest runs of each job to "
              "keep; else `retention_runs`.")  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@as_json
@click.pass_obj
def command(
    session: Session, older_than: str | None, keep: int | None, dry_run: bool, as_json: bool
) -> None:
    """Forget old history, as schedulers do by themselves about once an hour."""
    age = duration("--older-than", older_than) if older_than is not None else None
    runtime = session.runtime()
    pruned = runtime.prune(older_than=age, keep=keep, dry_run=dry_run, who=who())
    if as_json:
        print_json(_answer(pruned, dry_run=dry_run))
    else:
        _show(pruned, "would go" if dry_run else "forgotten")


def _answer(pruned: Pruned, *, dry_run: bool) -> dict[str, Any]:
    return {
        "before": pruned.before,
        "dry_run": dry_run,
        "runs": pruned.runs,
        "nodes": pruned.nodes,
        "audits": pruned.audits,
        "jobs": dict(pruned.jobs),
    }


def _show(pruned: Pruned, verb: str) -> None:
    jobs = sorted(pruned.jobs.items(), key=lambda item: (-item[1], item[0]))
    show_table(_COLUMNS, [(job, str(number)) for job, number in jobs])
    counts = listed(
        counted(number, thing)
        for number, thing in (
            (pruned.runs, "run"),
            (pruned.nodes, "node"),
            (pruned.audits, "audit row"),
        )
    )
    say(f"{verb}: {counts} that ended before {instant(pruned.before)}")
