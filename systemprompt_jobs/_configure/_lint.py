"""What is valid and yet probably a mistake, over all plans together. Pure: `now` is given.

Each rule has a code by which a job's entry or its author can silence it (`silence: [herd]`).
"""

from __future__ import annotations

import inspect
from collections import defaultdict
from datetime import timedelta
from itertools import islice, pairwise
from typing import TYPE_CHECKING

from .. import _durations
from .._calendar import Cron
from ..model import Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from datetime import datetime

    from ..model import LintCode, Place, Plan

_HERD = 10
"""This many jobs on one second, or more than there are workers, are a herd."""

_DAY = timedelta(days=1)
_YEAR = timedelta(days=366)
_GAPS = 100
"""How many ticks to come are looked at for the shortest time between two."""

_TICKS = 300
"""How many ticks of a schedule are looked at for herds: a day of every five minutes."""


def lint(plans: Iterable[Plan], workers: int, now: datetime) -> list[Problem]:
    """Return what looks like a mistake in jobs that would run, each with its code."""
    active = [plan for plan in plans if plan.enabled and plan.problem is None]
    found = [
        _problem(code, plan, *said)
        for plan in active
        for code, rule in _RULES.items()
        if code not in plan.silence
        for said in rule(plan, now)
    ]
    return found + list(_herds([p for p in active if "herd" not in p.silence], workers, now))


def _problem(
    code: LintCode, plan: Plan, reason: str, remedy: str = "", place: Place | None = None
) -> Problem:
    return Problem(plan.id, reason, place or plan.sources["schedule"][-1].place, remedy, code)


_Said = tuple[str, str] | tuple[str, str, "Place"]


def _never_fires(plan: Plan, now: datetime) -> Iterator[_Said]:
    if plan.schedule is not None and plan.schedule.next(now) is None:
        yield "its schedule has no tick in the future", "change the schedule or disable the job"


def _every_second(plan: Plan, now: datetime) -> Iterator[_Said]:
    if plan.schedule is not None and plan.schedule.count(now, now + _DAY) >= _DAY.total_seconds():
        yield (
            "it is due every second",
            "the first field is the second: `0 * * * * *` is each minute",
        )


def _five_fields(plan: Plan, now: datetime) -> Iterator[_Said]:  # noqa: ARG001
    """Look for a crontab line that got its sixth field at the wrong end."""
    if not isinstance(plan.schedule, Cron):
        return
    texts = plan.schedule.fields
    seconds, *_, weekday = texts
    if seconds.isdecimal() or weekday != "*" or texts == ("*",) * 6:
        return
    reason = (
        f"{plan.schedule.text!r} looks like a crontab line of five fields; the first of six is "
        f"the second, so it is due {plan.schedule.describe()}"
    )
    yield reason, f'if minutes were meant, write "0 {" ".join(texts[:5])}"'


def _daylight_saving(plan: Plan, now: datetime) -> Iterator[_Said]:
    if isinstance(plan.schedule, Cron) and (changes := plan.schedule.clock_changes(now)):
        reason = f"its schedule {'; '.join(changes)}"
        yield reason, "choose another hour, or a zone whose clocks do not change"


def _long_timeout(plan: Plan, now: datetime) -> Iterator[_Said]:
    if plan.timeout is None or plan.schedule is None:
        return
    ticks = islice(plan.schedule.between(now, now + _YEAR), _GAPS)
    shortest = min((later - tick for tick, later in pairwise(ticks)), default=plan.timeout)
    if plan.timeout > shortest:
        reason = (
            f"its timeout, {_durations.text(plan.timeout)}, is longer than the "
            f"{_durations.text(shortest)} from one tick to the next: "
            "a run that hangs is in the way of the ticks after it"
        )
        remedy = "set a shorter `timeout`, or a schedule with more time between its ticks"
        yield reason, remedy, plan.sources["timeout"][-1].place


def _retries(plan: Plan, now: datetime) -> Iterator[_Said]:  # noqa: ARG001
    said = plan.sources.get("repeatable")
    if plan.retry.max_attempts > 1 and not (said and said[-1].value):
        reason = (
            f"a run of it is started up to {plan.retry.max_attempts} times, and nobody says that "
            "its function tolerates repetition"
        )
        remedy = "if it does, write `repeatable: true` in its entry or `repeatable=True` in @job"
        yield reason, remedy, plan.sources["max_attempts"][-1].place


def _dry_run(plan: Plan, now: datetime) -> Iterator[_Said]:  # noqa: ARG001
    """Look for jobs that an operator wants; one that only came with its plugin does no harm."""
    code = getattr(inspect.unwrap(plan.job.function), "__code__", None)
    asks = code is not None and "enforce" in code.co_names
    if asks and plan.listed and not plan.enforce:
        yield (
            "its function asks for `ctx.enforce`, which is false: it only says what it would do",
            "set `enforce: true` in its entry once that is what you want",
            plan.sources["enforce"][-1].place,
        )


def _no_effect(plan: Plan, now: datetime) -> Iterator[_Said]:  # noqa: ARG001
    """Look for values of files that say what holds without them; `enabled` is worth saying."""
    for name, sources in plan.sources.items():
        for below, source in pairwise(sources):
            written = source.layer.endswith(".yaml") and source.place.file is not None
            if name not in {"enabled", "timezone"} and written and source.value == below.value:
                reason = f"{name} is set to what holds without it"
                yield reason, f"remove it from {source.layer}", source.place


_RULES: dict[LintCode, Callable[[Plan, datetime], Iterator[_Said]]] = {
    "never-fires": _never_fires,
    "every-second": _every_second,
    "five-fields": _five_fields,
    "daylight-saving": _daylight_saving,
    "long-timeout": _long_timeout,
    "retries": _retries,
    "dry-run": _dry_run,
    "no-effect": _no_effect,
}


def _herds(plans: Sequence[Plan], workers: int, now: datetime) -> Iterator[Problem]:
    """Look for the most crowded second of the coming day."""
    by_schedule = defaultdict(list)
    for plan in plans:
        if plan.schedule is not None and not plan.splay:
            by_schedule[plan.schedule].append(plan)
    due: dict[datetime, list[Plan]] = defaultdict(list)
    for schedule, members in by_schedule.items():
        for tick in islice(schedule.between(now, now + _DAY), _TICKS):
            due[tick] += members
    instant, herd = max(due.items(), key=lambda item: len(item[1]), default=(now, []))
    if len(herd) < _HERD or len(herd) <= workers:
        return
    names = ", ".join(plan.id for plan in herd[:3])
    yield Problem(
        "herd",
        f"{len(herd)} jobs are due at the same second, {instant:%Y-%m-%d %H:%M:%S} UTC: "
        f"{names} and {len(herd) - 3} more, for {workers} workers",
        remedy="give them a `splay`, e.g. `splay: 5m`, or other seconds",
        code="herd",
    )
