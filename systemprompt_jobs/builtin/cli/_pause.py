"""`pause`: no tick of these jobs runs until they are resumed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import click

from systemprompt_jobs.errors import UsageError

from ._choose import chosen, jobs_by
from ._options import as_json
from ._shapes import pause_shape, print_json
from ._text import one_line, say
from ._times import instant, now, relative
from ._who import who

if TYPE_CHECKING:
    from systemprompt_jobs.model import PauseOverview

    from ._session import Session


@click.command("pause")
@jobs_by("Every installed job.")
@click.option(
    "--until",
    metavar="TIME",
    help="End by itself: at a time (2026-03-29T01:00) or after a duration (2h).",
)
@click.option("--note", default="", metavar="TEXT", help="Why; shown wherever the job is.")
@as_json
@click.pass_context
def command(
    ctx: click.Context,
    names: tuple[str, ...],
    every: bool,
    tag: str | None,
    until: str | None,
    note: str,
    as_json: bool,
) -> None:
    """Pause jobs: their ticks are skipped until the end or `resume`."""
    session: Session = ctx.obj
    runtime = session.runtime_at_work()
    ids = chosen(ctx, runtime, names, [plan.id for plan in runtime.plans] if every else None, tag)
    end = _end(until, runtime.settings.timezone) if until else None
    before = runtime.pauses()
    found = runtime.pause(*ids, until=end, note=note, who=who())
    if as_json:
        print_json({"pauses": [pause_shape(pause) for pause in found]})
        return
    for pause in found:
        say(_line(pause, already=pause.job_id in before))


def _end(text: str, zone: str) -> datetime | timedelta:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return _duration(text)
    return (found if found.tzinfo else found.replace(tzinfo=ZoneInfo(zone))).astimezone(UTC)


def _duration(text: str) -> timedelta:
    from pydantic import TypeAdapter, ValidationError

    from systemprompt_jobs import Duration

    try:
        return TypeAdapter[timedelta](Duration).validate_python(text)
    except ValidationError:
        raise UsageError(
            f"--until {text}: write a time such as 2026-03-29T01:00 or a duration such as 2h"
        ) from None


def _line(pause: PauseOverview, *, already: bool) -> str:
    done = f"was paused already, since {instant(pause.since)} UTC; now" if already else "is paused"
    return one_line(f"{pause.job_id} {done} {_until(pause)}")


def _until(pause: PauseOverview) -> str:
    if pause.until is None:
        return "until it is resumed"
    return f"until {instant(pause.until)} UTC ({relative(pause.until, now())})"
