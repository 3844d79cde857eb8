"""The page of one job: will it run, how did it do, what is in force and who set it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from systemprompt_jobs.errors import UnknownJobError

from . import _charts, _words
from ._guard import dashboard_of
from ._list import is_trouble

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.requests import Request
    from starlette.responses import Response

    from systemprompt_jobs import Run, Runtime
    from systemprompt_jobs.model import Explanation, Glance, JobOverview, Plan

_RUNS, _STRIP, _CHART, _RANKED, _TICKS, _LATELY, _DIGITS = 25, 40, 60, 1000, 10, 5, 18


@dataclass(frozen=True, slots=True)
class Tick:
    """A coming tick, in the job's zone; `note` says that the clocks are changed before it."""

    instant: datetime
    local: datetime
    note: str


def job(request: Request) -> Response:
    """Return the page of one job."""
    dashboard, name = dashboard_of(request), request.path_params["job"]
    runtime = dashboard.runtime
    overview = next(iter(runtime.jobs(name)), None)
    if overview is None:
        return _orphan(request, name)
    before = request.query_params.get("before", "")
    older = int(before) if before.isdecimal() and len(before) <= _DIGITS else None
    runs = runtime.history(job=name, before=older, limit=_RUNS)
    newest = runtime.glances(name, limit=_RANKED).get(name, [])
    charted = newest[-_CHART:]
    at = request.query_params.get("at", "")
    return dashboard.render(
        request,
        "job.html",
        job=overview,
        plan=overview.plan,
        ticks=[*_next_ticks(overview)],
        values=[*_values(overview.plan)],
        runs=runs,
        older=runs[-1].id if len(runs) == _RUNS else None,
        figures=_figures(newest),
        took_chart=_charts.bars(charted, _words.duration, "duration"),
        late_chart=_charts.bars(charted, lambda run: run.late, "start after it was due"),
        strip=[_words.mark(run) for run in newest[-_STRIP:]],
        at=at,
        asked=_explained(runtime, overview.plan, at) if at else None,
        explained=runtime.explain(name),
        troubles=[] if older else _troubles(runs[:_LATELY], newest),
    )


def _orphan(request: Request, name: str) -> Response:
    dashboard = dashboard_of(request)
    runs = dashboard.runtime.history(job=name, limit=_RUNS)
    if not runs and name not in {orphan.id for orphan in dashboard.runtime.orphans()}:
        raise UnknownJobError(f"there is no job {name!r}")
    return dashboard.render(request, "orphan.html", name=name, runs=runs)


@dataclass(frozen=True, slots=True)
class Figures:
    """How the newest runs did: times as (p50, p95)."""

    runs: int
    counts: dict[str, int]
    took: tuple[timedelta | None, timedelta | None]
    late: tuple[timedelta | None, timedelta | None]
    since: datetime


def _figures(newest: list[Glance]) -> Figures | None:
    if not newest:
        return None
    counts = Counter[str]()
    for run in newest:
        counts[_words.look(run)] += run.count
    took = _charts.quantiles(map(_words.duration, newest))
    late = _charts.quantiles(run.late for run in newest)
    return Figures(len(newest), dict(counts.most_common()), took, late, newest[0].at)


@dataclass(frozen=True, slots=True)
class Trouble:
    """What went wrong last, and how many of the newest went alike."""

    run: Run
    alike: int


def _troubles(lately: list[Run], newest: list[Glance]) -> list[Trouble]:
    """Return the newest of each kind."""
    kinds: dict[tuple[str, str], Run] = {}
    for run in lately:
        if is_trouble(run):
            kinds.setdefault(_kind(run), run)
    alike = Counter(map(_kind, newest))
    return [Trouble(run, alike[kind]) for kind, run in kinds.items()]


def _kind(run: Run | Glance) -> tuple[str, str]:
    return run.state, run.reason


def _explained(runtime: Runtime, plan: Plan, text: str) -> Explanation | str:
    """Return what became of the tick at a time in the job's zone, or what is wrong with it."""
    try:
        at = datetime.fromisoformat(text)
        at = at if at.tzinfo else at.replace(tzinfo=ZoneInfo(plan.timezone))
        return runtime.explain(plan.id, at.astimezone(UTC))
    except (ValueError, OverflowError):
        return f"{text!r} is no time: write 2026-03-29T01:00"


def _next_ticks(overview: JobOverview) -> Iterator[Tick]:
    """Yield the next ticks; none for a job that has none or whose plan is not in force."""
    schedule, tick = overview.plan.schedule, overview.next_tick
    if schedule is None or overview.superseded is not None:
        return
    zone = ZoneInfo(overview.plan.timezone)
    offset = _words.now().astimezone(zone).utcoffset()
    for _ in range(_TICKS):
        if tick is None:
            return
        local = tick.astimezone(zone)
        yield Tick(tick, local, _clock_change(offset, local.utcoffset()))
        offset, tick = local.utcoffset(), schedule.next(tick)


def _clock_change(before: timedelta | None, after: timedelta | None) -> str:
    change = (after or timedelta()) - (before or timedelta())
    if not change:
        return ""
    way = "forward" if change > timedelta() else "back"
    return f"clocks go {way} {_words.took(abs(change)).removesuffix(' 0 min')}"


@dataclass(frozen=True, slots=True)
class Value:
    """A value in force, who set it, and the values it hides, highest first."""

    name: str
    value: str
    by: str
    hidden: tuple[tuple[str, str], ...]


def _values(plan: Plan) -> Iterator[Value]:
    for name, sources in plan.sources.items():
        *hidden, last = sources
        over = tuple((source.text(name), source.by) for source in reversed(hidden))
        yield Value(name, last.text(name), last.by, over)
