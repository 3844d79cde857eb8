"""The page of all jobs: a table of some, above it what runs, below it the latest trouble."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from systemprompt_jobs.model import RETRYING, State

from . import _charts, _words
from ._catalogue import ONLY, Chosen
from ._guard import dashboard_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import timedelta

    from starlette.requests import Request
    from starlette.responses import Response

    from systemprompt_jobs import Run, Runtime
    from systemprompt_jobs.model import Glance, JobOverview, Orphan

PER_PAGE = 25
_STRIP, _RUNNING, _TROUBLED = 40, 25, 5
_TROUBLE = (State.FAILED, State.TIMED_OUT, State.LOST, State.MISSED, State.SKIPPED, State.CANCELLED)


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table of jobs. `strip` is runs of equal marks: style and symbols."""

    job: JobOverview
    strip: tuple[tuple[str, str], ...]
    said: str
    p50: timedelta | None
    p95: timedelta | None


@dataclass(frozen=True, slots=True)
class Figures:
    """What takes long to count and may be some seconds old."""

    counts: Mapping[str, int]
    orphaned: tuple[Orphan, ...]


def figures(runtime: Runtime) -> Figures:
    """Count them."""
    return Figures(runtime.counts(), tuple(runtime.orphans()))


def jobs(request: Request) -> Response:
    """Return the page of all jobs."""
    dashboard, chosen = dashboard_of(request), Chosen.by(request)
    runtime, catalogue = dashboard.runtime, dashboard.catalogue
    page = catalogue.page(chosen, PER_PAGE)
    return dashboard.render(
        request,
        "jobs.html",
        enabled=runtime.settings.enabled,
        degraded=runtime.degraded,
        nodes=runtime.schedulers(),
        figures=dashboard.figures.get(),
        running=runtime.history(states=[State.RUNNING, RETRYING], limit=_RUNNING),
        waiting=_waiting(runtime),
        troubled=_troubled(runtime),
        rows=_rows(runtime, page.ids),
        chosen=chosen,
        page=page,
        jobs=len(catalogue.plans()),
        tags=catalogue.tags,
        only=ONLY,
    )


def is_trouble(run: Run) -> bool:
    """Return whether `status` would show it: one whose job found nothing to do went as planned."""
    return run.state in _TROUBLE and run.reason != "job"


def _troubled(runtime: Runtime) -> list[Run]:
    found = runtime.history(states=_TROUBLE, limit=10 * _TROUBLED)
    return [*filter(is_trouble, found)][:_TROUBLED]


def _waiting(runtime: Runtime) -> list[Run]:
    """Return runs that no scheduler has taken yet; those that are tried again count as running."""
    pending = runtime.history(states=[State.PENDING], limit=_RUNNING)
    return [run for run in pending if not run.attempt]


def _rows(runtime: Runtime, ids: list[str]) -> list[Row]:
    if not ids:
        return []
    newest = runtime.glances(*ids, limit=_STRIP)
    return [_row(job, newest.get(job.plan.id, [])) for job in runtime.jobs(*ids)]


def _row(job: JobOverview, newest: list[Glance]) -> Row:
    p50, p95 = _charts.quantiles(map(_words.duration, newest))
    return Row(job, _strip(newest), _strip_words(newest), p50, p95)


def _strip(runs: Iterable[Glance]) -> tuple[tuple[str, str], ...]:
    looks = groupby(_words.look(run) for run in runs)
    return tuple((look, _words.MARKS.get(look, "·") * len([*same])) for look, same in looks)


def _strip_words(runs: list[Glance]) -> str:
    looks = [_words.look(run) for run in runs]
    counted = ", ".join(
        f"{looks.count(look)} {_words.spaced(look)}" for look in _words.MARKS if look in looks
    )
    return f"newest {len(runs)}: {counted}" if runs else "no runs yet"
