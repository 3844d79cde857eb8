"""The pages: each asks the runtime and hands plain values to a template."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from starlette.exceptions import HTTPException

from systemprompt_jobs.errors import UnknownJobError
from systemprompt_jobs.model import State
from systemprompt_jobs.secrets import masked

from . import _charts, _timeline, _words

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from starlette.requests import Request
    from starlette.responses import Response

    from systemprompt_jobs import Run, Runtime
    from systemprompt_jobs.model import Explanation, JobOverview, JobStats, Orphan, Plan, Source

    from ._app import Dashboard

PER_PAGE = 25
_STRIP, _CHART, _TICKS = 40, 60, 10
_ONLY = ("all", "trouble", "paused", "disabled")
_TROUBLE = (State.FAILED, State.LOST, State.MISSED, "timed_out")


def dashboard_of(request: Request) -> Dashboard:
    """Return what the pages share."""
    found: Dashboard = request.app.state.dashboard
    return found


# --- all jobs ---


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table of jobs. `strip` is runs of equal marks: style and symbols."""

    job: JobOverview
    strip: tuple[tuple[str, str], ...]
    said: str
    stats: JobStats | None


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which jobs are asked for, as the address says."""

    q: str
    tag: str
    only: str
    page: int

    @classmethod
    def by(cls, request: Request) -> Chosen:
        """Return what a request asks for; nonsense is as good as nothing."""
        asked = request.query_params
        only, page = asked.get("only", ""), asked.get("page", "")
        return cls(
            asked.get("q", "").strip(),
            asked.get("tag", ""),
            only if only in _ONLY else "all",
            int(page) if page.isascii() and page.isdigit() and len(page) < 7 else 1,  # noqa: PLR2004
        )

    def has(self, job: JobOverview) -> bool:
        """Return whether a job is asked for."""
        plan = job.plan
        text = f"{plan.id} {plan.job.description} {_words.schedule_words(plan)}".lower()
        if self.q.lower() not in text or (self.tag and self.tag not in plan.job.tags):
            return False
        if self.only == "trouble":
            last = job.last_run
            return plan.problem is not None or bool(last and last.state in _TROUBLE)
        return self.only == "all" or _words.condition(job) == self.only


def jobs(request: Request) -> Response:
    """Return the page of all jobs."""
    dashboard, chosen = dashboard_of(request), Chosen.by(request)
    overview = dashboard.runtime.status()
    found = [job for job in overview.jobs if chosen.has(job)]
    pages = max(1, -(-len(found) // PER_PAGE))
    page = min(max(chosen.page, 1), pages)
    shown = found[(page - 1) * PER_PAGE : page * PER_PAGE]
    return dashboard.render(
        request,
        "jobs.html",
        overview=overview,
        rows=_rows(dashboard.runtime, shown),
        chosen=chosen,
        total=len(found),
        page=page,
        pages=pages,
        tags=sorted({tag for job in overview.jobs for tag in job.plan.job.tags}),
        only=_ONLY,
    )


def _rows(runtime: Runtime, shown: list[JobOverview]) -> list[Row]:
    if not shown:
        return []
    ids = [job.plan.id for job in shown]
    newest = runtime.newest(*ids, limit=_STRIP)
    stats = {found.job_id: found for found in runtime.stats(*ids)}
    return [
        Row(job, _strip(newest.get(id_, [])), _strip_words(newest.get(id_, [])), stats.get(id_))
        for id_, job in zip(ids, shown, strict=True)
    ]


def _strip(runs: Iterable[Run]) -> tuple[tuple[str, str], ...]:
    looks = groupby(_words.look(run) for run in runs)
    return tuple((look, _words.MARKS.get(look, "·") * len([*same])) for look, same in looks)


def _strip_words(runs: list[Run]) -> str:
    looks = [_words.look(run) for run in runs]
    counted = ", ".join(f"{looks.count(look)} {look}" for look in _words.MARKS if look in looks)
    return f"newest {len(runs)}: {counted}" if runs else "no runs yet"


# --- one job ---


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
    runs = runtime.history(
        job=name, before=int(before) if before.isdecimal() and len(before) < 19 else None,  # noqa: PLR2004
        limit=PER_PAGE,
    )  # fmt: skip
    charted = runtime.newest(name, limit=_CHART).get(name, [])
    at = request.query_params.get("at", "")
    return dashboard.render(
        request,
        "job.html",
        job=overview,
        plan=overview.plan,
        ticks=[*_next_ticks(overview)],
        values=[*_values(overview.plan)],
        runs=runs,
        older=runs[-1].id if len(runs) == PER_PAGE else None,
        stats=next(iter(runtime.stats(name)), None),
        took_chart=_charts.bars(charted, _charts.took, "duration"),
        late_chart=_charts.bars(charted, _charts.late, "start after it was due"),
        strip=[_words.mark(run) for run in charted],
        at=at,
        asked=_explained(runtime, overview.plan, at) if at else None,
        explained=runtime.explain(name),
    )


def _orphan(request: Request, name: str) -> Response:
    dashboard = dashboard_of(request)
    orphan = _find_orphan(dashboard.runtime.orphans(), name)
    runs = dashboard.runtime.history(job=name, limit=PER_PAGE)
    if orphan is None and not runs:
        raise UnknownJobError(f"there is no job {name!r}")
    return dashboard.render(request, "orphan.html", name=name, runs=runs)


def _find_orphan(orphans: Iterable[Orphan], name: str) -> Orphan | None:
    return next((found for found in orphans if found.id == name), None)


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
    value: object
    by: str
    hidden: tuple[tuple[object, str], ...]


def _values(plan: Plan) -> Iterator[Value]:
    for name, sources in plan.sources.items():
        *hidden, last = sources
        over = tuple((masked(s.value, name), _set_by(s)) for s in reversed(hidden))
        yield Value(name, masked(last.value, name), _set_by(last), over)


def _set_by(source: Source) -> str:
    if source.place.file is None:
        return source.layer
    where = f"{source.place.file.name}:{source.place.line}"
    return f"@job at {where}" if source.layer == "job" else where


# --- one run ---


@dataclass(frozen=True, slots=True)
class Step:
    """A time in the life of a run, how long after the one before, and what it means."""

    name: str
    at: datetime
    after: timedelta | None
    meaning: str


def run(request: Request) -> Response:
    """Return the page of one run."""
    dashboard = dashboard_of(request)
    found = find_run(dashboard.runtime, request.path_params["run"])
    return dashboard.render(
        request,
        "run.html",
        run=found,
        mark=_words.mark(found),
        steps=[*_steps(found)],
        parameters=masked(found.parameters),
        traceback=dashboard.runtime.traceback(found) if found.error else "",
        line=_charts.line(found),
    )


def find_run(runtime: Runtime, number: int) -> Run:
    """Return a run by its number. Raises HTTPException where there is none."""
    if number < 2**62:
        for found in runtime.history(before=number + 1, limit=1):
            if found.id == number:
                return found
    raise HTTPException(HTTPStatus.NOT_FOUND, f"there is no run {number}; it may be pruned")


def _steps(run: Run) -> Iterator[Step]:
    steps = (
        ("tick", run.tick, "the scheduled instant"),
        ("last tick", run.last_tick, f"{run.count} ticks in all"),
        ("due", run.due, "may start: the tick plus its splay"),
        ("claimed", run.created, "recorded by a scheduler"),
        ("gate", run.started, "the function of the newest attempt starts"),
        ("end", run.finished, "it has ended"),
    )
    known = [(name, at, meaning) for name, at, meaning in steps if at is not None]
    last = None  # a tick is claimed up to a second ahead, so in the order of time
    for name, at, meaning in sorted(known, key=itemgetter(1)):
        yield Step(name, at, at - last if last else None, meaning)
        last = at


# --- everything in time, schedulers, and who did what ---


def timeline(request: Request) -> Response:
    """Return the page of the last and the next 24 hours."""
    dashboard, chosen, now = dashboard_of(request), Chosen.by(request), _words.now()
    runtime = dashboard.runtime
    found = [found for found in runtime.jobs() if chosen.has(found)]
    pages = max(1, -(-len(found) // _timeline.ROWS))
    page = min(max(chosen.page, 1), pages)
    shown = found[(page - 1) * _timeline.ROWS : page * _timeline.ROWS]
    since = now - timedelta(hours=24)
    runs = runtime.history(since=since, limit=_timeline.RUNS)
    return dashboard.render(
        request,
        "timeline.html",
        picture=_timeline.picture(shown, found, runs, now),
        herds=_timeline.herds(found, now),
        cut=len(runs) == _timeline.RUNS,
        chosen=chosen,
        total=len(found),
        page=page,
        pages=pages,
    )


def nodes(request: Request) -> Response:
    """Return the page of the schedulers and of what is wrong."""
    dashboard = dashboard_of(request)
    runtime = dashboard.runtime
    begin = _words.now()
    overview = runtime.status()
    asked = _words.now() - begin
    return dashboard.render(
        request,
        "nodes.html",
        overview=overview,
        nodes=runtime.nodes(),
        health=runtime.health(),
        revisions=runtime.revisions(),
        changes=runtime.changes(),
        asked=asked,
    )


def audit(request: Request) -> Response:
    """Return the page of who did what."""
    dashboard = dashboard_of(request)
    return dashboard.render(request, "audit.html", entries=dashboard.runtime.audit(limit=100))
