"""Is a run that failed tried again, and when? Pure decisions on plain values.

What they need of a plan is frozen in the run at its claim, so that any node decides alike.
"""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass, fields, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from ._declare import GIVE_UP, error_type_name
from .model import RetryPolicy, State, Trigger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from datetime import datetime

    from .model import Plan, Report, Run

RETRY = "systemprompt_jobs.Retry"

_JITTER = 0.1

_LONGEST = timedelta(days=36_500)


def freeze(plan: Plan) -> dict[str, Any] | None:
    """Return the policies of a plan as a run keeps them: plain values, seconds; None for none."""
    policy: dict[str, Any] = {}
    if plan.retry.max_attempts > 1:
        retry = asdict(plan.retry)
        for name in ("delay", "max_delay"):
            retry[name] = retry[name].total_seconds()
        for name in ("retry_on", "give_up_on"):
            retry[name] = list(retry[name])
        del retry["max_attempts"]
        policy["retry"] = retry
        policy["window"] = plan.catchup_window.total_seconds()
    if plan.concurrency is not None:
        policy["concurrency"] = asdict(plan.concurrency)
    return policy or None


def _thaw(run: Run) -> RetryPolicy:
    found: Mapping[str, Any] = (run.policy or {}).get("retry", {})
    # A newer version may have frozen more than this one knows.
    values = {f.name: found[f.name] for f in fields(RetryPolicy) if f.name in found}
    for name in values.keys() & {"delay", "max_delay"}:
        values[name] = timedelta(seconds=values[name])
    return RetryPolicy(**{**values, "max_attempts": run.max_attempts})


@dataclass(frozen=True, slots=True)
class Failure:
    """A failed attempt, as far as it matters here.

    `types` names the error's class and its bases; `asked` is what `raise Retry(after=…)` asked
    for; `next_tick` the job's first tick after the failure, None if it has none.
    """

    run: int
    attempt: int
    types: tuple[str, ...]
    at: datetime
    asked: timedelta | None = None
    next_tick: datetime | None = None


def decide(policy: RetryPolicy, failure: Failure, advice: object = None) -> timedelta | str:
    """Return the delay until the next attempt, or why there is none.

    `advice` is what the hook `retry_delay` said: a timedelta, GIVE_UP or None.
    """
    if failure.attempt >= policy.max_attempts:
        return f"no attempt is left, max_attempts is {policy.max_attempts}"
    if advice is GIVE_UP:
        return "a plugin's retry_delay gave it up"
    if advice is None and RETRY not in failure.types:
        if named := _first(policy.give_up_on, failure.types):
            return f"give_up_on names {named}"
        if policy.retry_on and not _first(policy.retry_on, failure.types):
            return f"retry_on does not name {next(iter(failure.types), 'JobResult.failure()')}"
    delay = min(_delay(policy, failure, advice), _LONGEST)
    following = failure.next_tick
    if following and not policy.past_next_tick and failure.at + delay > following:
        return f"its next tick, {following:%Y-%m-%d %H:%M:%S} UTC, comes first"
    return delay


def _delay(policy: RetryPolicy, failure: Failure, advice: object) -> timedelta:
    if isinstance(advice, timedelta):
        return advice
    if failure.asked is not None:
        return failure.asked
    longest = policy.max_delay.total_seconds()
    try:
        seconds = policy.delay.total_seconds() * policy.factor ** (failure.attempt - 1)
    except OverflowError:
        seconds = longest
    return timedelta(seconds=min(min(seconds, longest) * _jitter(failure), longest))


def _jitter(failure: Failure) -> float:
    """Return a factor near 1, the same on every node for one run and attempt."""
    import hashlib

    seed = hashlib.blake2b(f"{failure.run}\0{failure.attempt}".encode(), digest_size=4).digest()
    return 1 + _JITTER * (2 * int.from_bytes(seed) / (2**32 - 1) - 1)


def _first(names: Iterable[str], types: Iterable[str]) -> str:
    """Return the first of the names that is, or leads to, one of the types; else empty."""
    return next((name for name in names if {name, _own_name(name)} & {*types}), "")


def _own_name(name: str) -> str:
    """Return what a class calls itself that others know by this name: many are re-exported."""
    module, _, attribute = name.rpartition(".")
    found = vars(sys.modules.get(module, object)).get(attribute)
    return error_type_name(found) if isinstance(found, type) else name


def settle(
    run: Run,
    report: Report,
    next_tick: Callable[[datetime], datetime | None],
    advise: Callable[[Run, Report], object],
    *,
    awaited: bool = False,
) -> Report:
    """Return the report with `retry_after` decided; the last of several says why it is.

    `next_tick` and `advise` (the hook) are asked only where they matter. Neither may raise.
    `awaited` says that somebody waits for the run in this process.
    """
    if report.outcome is State.CANCELLED and report.retry_after is not None:
        # Its node stops or has lost its lease, and nobody cancelled it. Like rescue, that moves no
        # start-up run; nor one that is awaited here.
        stays = run.trigger is Trigger.STARTUP or awaited
        left = run.attempt < run.max_attempts
        return report if left and not stays else replace(report, retry_after=None)
    asks = RETRY in report.error_types
    failed = report.outcome in {State.FAILED, State.TIMED_OUT}
    if not failed or (run.max_attempts == 1 and not asks):
        return report
    left = run.attempt < run.max_attempts
    if report.stray:
        return _last(report, "its function still runs", asks=False, left=left)
    failure = Failure(
        run=run.id,
        attempt=run.attempt,
        types=report.error_types,
        at=report.finished,
        asked=report.retry_after,
        next_tick=next_tick(report.finished) if left else None,
    )
    verdict = decide(_thaw(run), failure, advise(run, report) if left else None)
    if isinstance(verdict, timedelta):
        return replace(report, retry_after=verdict)
    return _last(report, verdict, asks=asks, left=left)


def _last(report: Report, why: str, *, asks: bool, left: bool) -> Report:
    """Return the report of a run that is not tried again; that it used its attempts is plain."""
    text = f"not tried again: {why}"
    if asks:
        return replace(report, retry_after=None, error=f"{report.error} ({text})")
    if left:
        message = f"{report.message}; {text}" if report.message else text
        return replace(report, retry_after=None, message=message)
    return replace(report, retry_after=None)
