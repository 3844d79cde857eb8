"""`backfill`: ticks of the past that never ran."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from . import _complete
from ._options import as_json
from ._plans import condition
from ._run import warn_unless_taken
from ._shapes import print_json, run_shape
from ._text import complain, counted, paragraph, say
from ._times import instant, moment, now
from ._who import who

if TYPE_CHECKING:
    from datetime import datetime

    from systemprompt_jobs import Runtime
    from systemprompt_jobs.model import Backfill

    from ._session import Session

_SHOWN = 10
_MOST = 500


@click.command("backfill")
@click.argument("job", metavar="JOB", shell_complete=_complete.jobs)
@click.option("--from", "start", metavar="T", required=True, help="Ticks from this time on: "
              "2026-03-29T01:00 (UTC without an offset), or 2d for two days ago.")  # fmt: skip
@click.option("--to", "end", metavar="T", help="Ticks up to this time; else up to now.")
@click.option("--limit", type=click.IntRange(1, _MOST), default=100, show_default=True, metavar="N",
              help="How many ticks at most, the oldest first.")  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Only say what would run.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@as_json
@click.pass_context
def command(
    ctx: click.Context,
    job: str,
    start: str,
    end: str | None,
    limit: int,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Run ticks of the past that were missed, or of which nothing is recorded.

    It shows them and asks. Running schedulers take them, as with `run --detach`.
    """
    if not (dry_run or yes) and (as_json or not sys.stdin.isatty()):
        ctx.fail("nobody can be asked here: say --yes, or --dry-run to see what would run")
    session: Session = ctx.obj
    runtime = session.runtime_at_work()
    window = moment("--from", start), moment("--to", end) if end else now()
    found = runtime.backfill(job, *window, limit=limit, dry_run=True)
    if not as_json:
        _show(found)
    if found.ticks and not dry_run and (yes or click.confirm("Run them?")):
        found = _hand_over(runtime, found, limit)
    if as_json:
        print_json(_answer(found))
    elif found.runs:
        first, last = found.runs[0].id, found.runs[-1].id
        which = f"run {first} is" if first == last else f"runs {first} to {last} are"
        say(f"{which} handed over")


def _hand_over(runtime: Runtime, found: Backfill, limit: int) -> Backfill:
    if condition(runtime.find(found.job_id)) == "disabled":
        complain(f"{found.job_id} is disabled; made up for all the same")
    window: tuple[datetime, datetime] = found.start, found.end
    done = runtime.backfill(found.job_id, *window, limit=limit, who=who())
    warn_unless_taken(runtime, done.runs)
    return done


def _show(found: Backfill) -> None:
    window = f"from {instant(found.start)} to {instant(found.end)} UTC"
    if found.ticks:
        say(paragraph(f"{found.job_id}, {window}: {counted(len(found.ticks), 'tick')} to run", ""))
    else:
        say(paragraph(f"{found.job_id}, {window}: there is nothing to make up", ""))
    say(*(f"  {instant(tick)}" for tick in found.ticks[:_SHOWN]))
    if len(found.ticks) > _SHOWN:
        say(f"  and {len(found.ticks) - _SHOWN} up to {instant(found.ticks[-1])}")
    if found.more:
        say("  there are more: say --limit, or go on when these have run")
    if found.strange:
        say(
            paragraph(f"{counted(found.strange, 'missed tick')} of another schedule left out", "  ")
        )


def _answer(found: Backfill) -> dict[str, Any]:
    return {
        "job": found.job_id,
        "from": found.start,
        "to": found.end,
        "ticks": list(found.ticks),
        "more": found.more,
        "left_out": found.strange,
        "runs": [run_shape(run) for run in found.runs],
    }
