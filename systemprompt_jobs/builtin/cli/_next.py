"""`next`: upcoming ticks of one job, of all, or of a schedule that nobody has yet."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import click

from systemprompt_jobs import cron
from systemprompt_jobs.errors import UsageError

from . import _complete
from ._options import as_json
from ._plans import condition
from ._shapes import print_json
from ._table import Cell, Column, show_table
from ._text import one_line, paragraph, say
from ._times import now, read_instant, relative

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime

    from systemprompt_jobs import Runtime
    from systemprompt_jobs.interfaces import Schedule

    from ._session import Session

_COLUMNS = (Column("TICK"), Column("UTC"), Column("WHEN"), Column("JOB", "id"), Column("", "wrap"))


@dataclass(frozen=True, slots=True)
class _Tick:
    """A tick in a zone; `note` says that the clocks were changed since the one before."""

    job: str
    instant: datetime
    local: datetime
    note: str


@dataclass(frozen=True, slots=True)
class _Upcoming:
    """Ticks without end, the schedule to be explained if one was asked for, and who is disabled."""

    ticks: Iterator[_Tick]
    explained: Schedule | None
    zone: ZoneInfo
    disabled: str | None


@click.command("next")
@click.argument("job", required=False, metavar="[JOB]", shell_complete=_complete.jobs)
@click.option("-n", "--number", type=click.IntRange(1, 10_000), default=10, show_default=True,
              help="How many ticks.")  # fmt: skip
@click.option("--from", "start", metavar="T", help="Ticks after this time, e.g. 2026-03-29T01:00; "
              "else after now.")  # fmt: skip
@click.option("--tz", metavar="Z", help="Show times in this zone; with --schedule, evaluate it "
              "there too.")  # fmt: skip
@click.option("--schedule", "text", metavar="TEXT", help="Explain this text instead of a job's.")
@as_json
@click.pass_obj
def command(
    session: Session,
    job: str | None,
    number: int,
    start: str | None,
    tz: str | None,
    text: str | None,
    as_json: bool,
) -> None:
    """Show upcoming ticks, and what a schedule means."""
    if text is not None and job is not None:
        raise UsageError("name a JOB or give --schedule, not both")
    runtime = session.runtime()
    found = _upcoming(runtime, job, start, tz, text)
    if as_json:
        print_json(_answer(found, number))
    else:
        _show(found, number, named=text is None)


def _upcoming(
    runtime: Runtime, job: str | None, start: str | None, tz: str | None, text: str | None
) -> _Upcoming:
    zone = _zone(tz) if tz else None
    if text is not None:
        schedules = {"": runtime.parse(text, tz or "UTC")}
    else:
        schedules = _schedules(runtime, job)
    shown_in = zone or _common_zone(schedules.values(), runtime.settings.timezone)
    after = read_instant("--from", start, shown_in) if start else now()
    ticks = _noted(_merged(schedules, after), after, shown_in)
    explained = next(iter(schedules.values())) if text is not None or job else None
    plan = runtime.find(job) if job is not None else None
    return _Upcoming(ticks, explained, shown_in, plan.id if plan and not plan.enabled else None)


def _schedules(runtime: Runtime, job: str | None) -> dict[str, Schedule]:
    if job is None:
        plans = [plan for plan in runtime.plans if condition(plan) == "enabled"]
        return {plan.id: plan.schedule for plan in plans if plan.schedule is not None}
    plan = runtime.find(job)
    if condition(plan) == "degraded":
        raise UsageError(f"the job {plan.id} is degraded: {plan.problem}")
    if plan.schedule is None:
        raise UsageError(f"the job {plan.id} has no schedule: it runs by hand or at start-up")
    return {plan.id: plan.schedule}


def _zone(name: str) -> ZoneInfo:
    """Return the zone, checked as a schedule's zone is."""
    return ZoneInfo(cron("@daily", timezone=name).timezone or "UTC")


def _common_zone(schedules: Iterable[Schedule], default: str) -> ZoneInfo:
    zones = {schedule.timezone or default for schedule in schedules}
    return ZoneInfo(zones.pop() if len(zones) == 1 else default)


def _merged(schedules: dict[str, Schedule], after: datetime) -> Iterator[tuple[datetime, str]]:
    return heapq.merge(*(_ticks(name, schedule, after) for name, schedule in schedules.items()))


def _ticks(name: str, schedule: Schedule, after: datetime) -> Iterator[tuple[datetime, str]]:
    tick = schedule.next(after)
    while tick is not None:
        yield tick, name
        tick = schedule.next(tick)


def _noted(
    ticks: Iterator[tuple[datetime, str]], after: datetime, zone: ZoneInfo
) -> Iterator[_Tick]:
    offset = after.astimezone(zone).utcoffset()
    for instant, job in ticks:
        local = instant.astimezone(zone)
        yield _Tick(job, instant, local, _jump(offset, local.utcoffset()))
        offset = local.utcoffset()


def _jump(before: timedelta | None, after: timedelta | None) -> str:
    """Return how the clocks were changed between two ticks."""
    change = (after or timedelta()) - (before or timedelta())
    if not change:
        return ""
    minutes = abs(change) // timedelta(minutes=1)
    size = f"{minutes // 60} h" if minutes % 60 == 0 else f"{minutes} min"
    return f"clocks went {'forward' if change > timedelta() else 'back'} {size}"


def _warnings(schedule: Schedule) -> tuple[str, ...]:
    """Return what might surprise; a plugin's own schedule need not have any."""
    found = getattr(schedule, "warnings", None)
    return tuple(found()) if callable(found) else ()


def _answer(found: _Upcoming, number: int) -> dict[str, Any]:
    explained, zone = found.explained, found.zone
    answer: dict[str, Any] = {
        "timezone": zone.key,
        "ticks": [
            {
                "job": tick.job or None,
                "tick": tick.instant,
                "local": tick.local,
                "note": tick.note or None,
            }
            for tick in islice(found.ticks, number)
        ],
    }
    if explained is not None:
        answer["schedule"] = {
            "text": explained.text,
            "description": explained.describe(),
            "warnings": list(_warnings(explained)),
        }
    return answer


def _show(found: _Upcoming, number: int, *, named: bool) -> None:
    ticks, explained, zone = list(islice(found.ticks, number)), found.explained, found.zone
    if found.disabled:
        say(f"{one_line(found.disabled)} is disabled; it would be due:")
    if explained is not None:
        say(f"{one_line(explained.text)}  means  {one_line(explained.describe())}")
        say(*(paragraph(f"note: {warning}", "") for warning in _warnings(explained)), "")
    if not ticks:
        say("no tick from then on")
        return
    local = zone.key != "UTC"
    several = named and explained is None
    chosen = (True, local, True, several, any(tick.note for tick in ticks))
    columns = [Column(f"TICK ({zone.key})"), *_COLUMNS[1:]]
    show_table(_only(columns, chosen), [_only(_row(tick), chosen) for tick in ticks])


def _only(items: Iterable[Any], chosen: Iterable[bool]) -> list[Any]:
    return [item for item, wanted in zip(items, chosen, strict=True) if wanted]


def _row(tick: _Tick) -> tuple[Cell | str, ...]:
    return (
        tick.local.strftime("%a %Y-%m-%d %H:%M:%S"),
        tick.instant.strftime("%m-%d %H:%M:%S"),
        relative(tick.instant, now()),
        tick.job,
        Cell(tick.note, "yellow"),
    )
