"""Will a job run, and why did it not? From its plan and the record, in sentences. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from .model import Overlap, State

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ._store.jobs import JobRow
    from .model import Plan, Run, Source

_NEAR = timedelta(minutes=1)
"""A time that is no tick stands for the last tick within the minute before it."""

_LATE = timedelta(seconds=1)
_INSTANT = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the database knows. Nodes are (id, whether it has the job).

    `row` is the job's row (None: no scheduler has taken the job on). For a tick of the past:
    `run` is the row that covers it, `nodes` were up then, `other` is the run that was under way,
    `paused` the audit row of the pause, `oldest` when the oldest row kept was made.
    """

    row: JobRow | None = None
    live: Sequence[tuple[str, bool]] = ()
    run: Run | None = None
    nodes: Sequence[tuple[str, bool]] = ()
    other: Run | None = None
    paused: Any = None
    oldest: datetime | None = None


# --- will it run? ---


def prospect(plan: Plan, known: Evidence, fingerprint: str, now: datetime) -> Iterator[str]:
    """Say whether, when and where a job will run next, and if not, why."""
    obstacle = _never(plan, now)
    if obstacle:
        yield obstacle
    else:
        yield from _coming(plan, known, fingerprint, now)
    if known.other is not None:
        meanwhile = "" if obstacle else _WHILE[plan.overlap]
        yield _under_way(known.other, plan, meanwhile)
    yield from _start_up(plan)
    if not plan.enforce and plan.problem is None:
        yield "ctx.enforce is false: a job that asks for it only says what it would destroy."


def _never(plan: Plan, now: datetime) -> str:
    if plan.problem is not None:
        return f"It will not run: it is degraded: {plan.problem}"
    if not plan.enabled:
        return f"It will not run on schedule: it is disabled by {_by(plan.sources['enabled'])}."
    if plan.schedule is None:
        return "It has no schedule: it runs by hand, or at start-up."
    if plan.schedule.next(now) is None:
        return f"It will not run: {plan.schedule.text!r} has no tick in the future."
    return ""


def _by(sources: Sequence[Source]) -> str:
    source = sources[-1]
    return f"{source.layer} ({source.place})" if source.place.file else source.layer


def _coming(plan: Plan, known: Evidence, fingerprint: str, now: datetime) -> Iterator[str]:
    assert plan.schedule is not None  # noqa: S101  # `_never` has looked
    having = [id_ for id_, has in known.live if has]
    tick = plan.schedule.next(now)
    row = known.row
    if row is not None and row.is_paused(now):
        yield _paused(row)
    elif not known.live:
        yield (
            f"It is due {_local(tick, plan)}, but no scheduler is live: start one with "
            "`systemprompt infra jobs serve`."
        )
    elif not having:
        names = ", ".join(id_ for id_, _ in known.live)
        yield f"It will not run: no live scheduler has it: the plugins of {names} lack it."
    elif row is None or row.fingerprint == fingerprint:
        yield f"It will run next {_local(tick, plan)}, on {_one_of(having)}."
    else:
        due = _local(row.next_tick, plan) if row.next_tick else "never"
        yield (
            f"The schedulers follow another plan than this one: {row.schedule!r} in "
            f"{row.timezone}, {row.distribution} {row.version}".rstrip()
            + f"; by that it is due "
            f"{due}. It changes when a scheduler with this plan starts or reloads."
        )


def _under_way(run: Run, plan: Plan, meanwhile: str) -> str:
    if run.state is State.RUNNING:
        return f"It is running now: run {run.id} on {run.node}.{meanwhile}"
    if run.state is State.DISPATCHED:
        what = "for the workers of its pool: none has begun it yet"
    else:
        what = _WAITS.get(run.reason, f"for a free worker of its pool {run.pool!r}")
    return f"Run {run.id} was due {_local(run.due, plan)} and waits on {run.node} {what}."


_WAITS = {
    "overlap": "for the job's run before it",
    "concurrency": "for others that its concurrency limit counts",
    "paused": "for the end of the job's pause",
}


_WHILE = {
    Overlap.SKIP: " Ticks that come before it ends are skipped.",
    Overlap.QUEUE: " One tick that comes before it ends waits, others are skipped.",
    Overlap.ALLOW: "",
}


def _paused(row: JobRow) -> str:
    end = f" until {_utc(row.paused_until)}" if row.paused_until else ""
    return f"It is paused{_by_whom(row.by)} since {_utc(row.paused_at)}{end}{_colon(row.note)}."


def _by_whom(who: str | None) -> str:
    return f" by {who}" if who else ""


def _one_of(nodes: Sequence[str]) -> str:
    return nodes[0] if len(nodes) == 1 else f"whichever of {', '.join(nodes)} claims it first"


def _start_up(plan: Plan) -> Iterator[str]:
    if plan.starts_up and plan.problem is None:
        yield "It also runs once at each start of a scheduler."
    elif plan.job.run_on_startup and plan.enabled:
        yield (
            "It does not run at start-up, though its author asks for it: that needs an entry with "
            "`enabled: true` in services/scheduler/config.yaml."
        )


# --- why did it not? ---


def tick_at(plan: Plan, at: datetime) -> datetime | None:
    """Return the tick that a time means: that very instant, else the last in its minute."""
    if plan.schedule is None:
        return None
    tick = plan.schedule.previous(at + _INSTANT)
    return tick if tick is not None and at - tick < _NEAR else None


def account(plan: Plan, known: Evidence, at: datetime, now: datetime) -> Iterator[str]:
    """Say what became of the tick at a time, and why."""
    run = known.run
    if run is not None:
        yield from _recorded(plan, known, run)
        return
    tick = tick_at(plan, at)
    if tick is None:
        yield from _no_tick(plan, at)
    elif tick > now:
        yield f"It is due then: the tick {_local(tick, plan)} lies ahead."
    elif (row := known.row) is None:
        yield f"The tick {_local(tick, plan)} is not recorded: no scheduler knew the job."
    elif row.last_tick is None or tick > row.last_tick:
        next_ = row.next_tick
        if next_ is not None and tick < next_:
            first = _local(next_, plan)
            yield f"No scheduler had this schedule yet at {_local(tick, plan)}: its ticks count from {first} on."
        else:
            yield from _unclaimed(plan, row, known.live, tick)
    elif known.oldest is None or tick < known.oldest:
        yield f"The tick {_local(tick, plan)} is older than the history that is kept."
    else:
        yield (
            f"Nothing is found for {_local(tick, plan)}: by the schedule that held then there was "
            "no tick, the job was disabled, or its row was pruned."
        )


def _recorded(plan: Plan, known: Evidence, run: Run) -> Iterator[str]:
    tick = _local(run.tick, plan)
    reason = run.reason or str(run.state)
    if run.count > 1:
        last = _local(run.last_tick, plan)
        yield f"It lies in a stretch of {run.count} ticks from {tick} to {last}: {run.state}."
    else:
        yield f"The tick {tick} is run {run.id}: {run.state}{_colon(run.reason)}."
    if reason in _WHY:
        yield _WHY[reason]
    if run.state is State.SKIPPED and run.reason == "overlap" and known.other is not None:
        yield f"The one before, run {known.other.id}, had begun {_utc(known.other.started)}."
    if run.state is State.PENDING and run.message:
        yield f"It was handed back: {run.message}."
    if run.reason == "paused" and known.paused is not None:
        yield f"Paused{_by_whom(known.paused.who)}{_colon(known.paused.note)}."
    if run.state is State.MISSED:
        yield _who_was_up(known)
    yield from _execution(run)


_WHY = {
    "overlap": "The job's previous run was still running, and its overlap policy skips then.",
    "paused": "The job was paused: paused time is not caught up.",
    "catch-up": "A tick that was caught up ran instead.",
    "job": "The job itself said that there was nothing to do.",
    "clock": "A clock had been wrong: `last_tick` lay more than an hour ahead.",
    "dispatched": "It was sent to the workers of its pool, and none has begun it yet.",
    "missed": "It came and went while it could not be run; catch_up and catchup_window did not "
    "make up for it.",
    "lost": "Its node died or was cut off while the function ran: nobody knows how far it came.",
}


def _who_was_up(known: Evidence) -> str:
    if not known.nodes:
        return "No scheduler is known to have been up at that time."
    if not any(has for _, has in known.nodes):
        return f"The schedulers that were up lacked the job: {_names(known.nodes)}."
    return f"Up were {_names(known.nodes)}: busy, cut off from the database, or too late."


def _names(nodes: Sequence[tuple[str, bool]]) -> str:
    return ", ".join(id_ for id_, _ in nodes)


def _execution(run: Run) -> Iterator[str]:
    if run.started is None:
        return
    due = run.due or run.tick or run.started
    late = run.started - due
    delay = f", {_seconds(late)} late" if late > _LATE else ""
    yield f"It began {_utc(run.started)}{delay} on {run.node}, as attempt {run.attempt}."
    if late > _LATE and run.created and run.created - due > _LATE:
        yield f"It was claimed only {_utc(run.created)}: no scheduler was free or up before."
    if run.finished is not None and run.duration is not None:
        yield f"It ended {_utc(run.finished)}, after {_seconds(run.duration)}."
    if run.error or run.message:
        yield f"It said: {run.error or run.message}"


def _unclaimed(
    plan: Plan, row: JobRow, live: Sequence[tuple[str, bool]], tick: datetime
) -> Iterator[str]:
    yield f"The tick {_local(tick, plan)} has not been claimed yet."
    if row.is_paused(tick):
        yield _paused(row)
    elif not plan.enabled:
        yield f"The job is disabled by {_by(plan.sources['enabled'])}: it has no due ticks."
    elif not live:
        yield "No scheduler is live; when one starts, catch_up decides."
    elif not any(has for _, has in live):
        yield f"The live schedulers lack the job: {_names(live)}."


def _no_tick(plan: Plan, at: datetime) -> Iterator[str]:
    if plan.schedule is None:
        yield "The job has no schedule, so it has no ticks: it runs by hand or at start-up."
        return
    before, after = plan.schedule.previous(at), plan.schedule.next(at)
    near = " and ".join(_local(tick, plan) for tick in (before, after) if tick)
    yield f"{plan.schedule.describe()} has no tick then; the nearest are {near}."
    zone = ZoneInfo(plan.schedule.timezone or plan.timezone)
    offsets = {(at + hours).astimezone(zone).utcoffset() for hours in _AROUND}
    if len(offsets) > 1:
        yield f"The clocks in {zone.key} were changed around that time."


_AROUND = (timedelta(hours=-3), timedelta(hours=3))


# --- words ---


def _colon(reason: str | None) -> str:
    return f": {reason}" if reason else ""


def _utc(instant: datetime | None) -> str:
    return f"{instant:%Y-%m-%d %H:%M:%S} UTC" if instant else "never"


def _local(instant: datetime | None, plan: Plan) -> str:
    """Return an instant as the job's zone has it, and in UTC where that differs."""
    zone = (plan.schedule.timezone if plan.schedule else None) or plan.timezone
    if instant is None or zone == "UTC":
        return _utc(instant)
    local = instant.astimezone(ZoneInfo(zone))
    return f"{local:%Y-%m-%d %H:%M:%S} {zone} ({instant:%H:%M:%S} UTC)"


def _seconds(duration: timedelta) -> str:
    return f"{duration.total_seconds():,.1f} s"
