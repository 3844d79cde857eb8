"""Due ticks → runs held by this node: many in one transaction, each tick once."""

from __future__ import annotations

import sys
import uuid
from collections import deque
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from ._calendar import splay
from ._clock import boot_id
from ._doubt import Doubt
from ._retry import freeze
from ._schedule import Agenda, Decision, Pause, Policy, Stretch, decide
from ._store import control as control_rows
from ._store import jobs as job_rows
from ._store import plans as plan_rows
from ._store import runs as run_rows
from ._store.schema import micros
from ._whose import fingerprint, is_older, set_hash, whole_seconds
from .model import CatchUp, Problem, State, Trigger

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import Connection

    from ._store import Store, StoreClock
    from ._store.jobs import JobRow
    from ._store.plans import Standing
    from .interfaces import Schedule
    from .model import Node, Plan, Run

AHEAD = timedelta(milliseconds=250)
"""How far ahead of its time a tick is claimed, so that its function starts on the instant."""

_LONGEST_WAIT_S = 1.0
"""Look at the wall clock this often: it may be stepped, and the machine may sleep."""

_LATE = timedelta(seconds=1)
"""A job that catches up on all its ticks waits with later ones until the run before has ended."""

_LOOK_AGAIN = timedelta(seconds=1)
"""How often to look whether it has, should another node run it."""

_PAUSED_LOOK = timedelta(minutes=10)
"""Look again this often at a paused job, though whoever resumes one is noticed at once."""

FAR = timedelta(hours=1)
"""A job whose newest settled tick is further ahead than this saw a clock that was wrong."""

_BATCH = 1000
"""Jobs per claiming transaction."""

_BUSY_WAIT_S = 0.05
"""Look again this soon at jobs whose rows another node has just locked, or without room."""

PATIENCE = timedelta(milliseconds=100)
"""A tick that is due for longer and finds no room here may be taken by any node."""


class Claimer:
    """Claims the due ticks of this node's plans, as far as they are in force.

    `lease_until` tells the end of a lease taken now; `took` receives the rows of one
    transaction: claimed and pending runs, and stretches that were missed or paused; `failed` a
    job whose schedule raises, or whose clock was wrong; `resumed` the jobs whose pauses have
    ended by themselves; `room` tells how many runs this node can make use of, `full` in which
    pools it cannot. Those and what is beyond it are left to the other live schedulers. `shut` are
    pools that can be reached from nowhere: their runs wait even where nobody shares.

    Where another plan is in force for a job, this node stands by: every third of a lease it
    looks whether a live scheduler still has that plan.
    """

    def __init__(
        self,
        store: Store,
        plans: Iterable[Plan],
        node: Node,
        clock: StoreClock,
        lease_until: Callable[[], int],
        took: Callable[[list[Run]], None],
        failed: Callable[[Problem], None],
        resumed: Callable[[list[JobRow]], None] = lambda _rows: None,
        *,
        room: Callable[[], int],
        lease_s: float,
        full: Callable[[], Collection[str]] = tuple,
        shut: Callable[[], Collection[str]] = tuple,
    ) -> None:
        self._store = store
        self._plans = {plan.id: plan for plan in plans if plan.problem is None}
        self._fingerprints = {plan.id: fingerprint(plan) for plan in self._plans.values()}
        self._node = node
        self._clock = clock
        self._lease_until = lease_until
        self._took = took
        self._failed = failed
        self._resumed = resumed
        self._newest = clock.now()
        self._ahead: set[str] = set()
        self._room = room
        self._full = full
        self._shut = shut
        self._review_s = lease_s / 3
        self._reviewed = float("-inf")
        self._boot = boot_id() if store.one_host else ""
        self._schedulers: frozenset[tuple[str, bool]] | None = None
        self._superseded: set[str] = set()
        self._agenda = Agenda()
        self._broken: set[str] = set()
        self._busy = False
        self._held_back: set[str] = set()
        self._freed: deque[str] = deque()
        self._doubt = Doubt(store)

    @property
    def fingerprints(self) -> Mapping[str, str]:
        """What tells this node's plans from those of others, by job id."""
        return self._fingerprints

    def install(self, parse: Callable[[str, str], Schedule]) -> None:
        """Put this node's plans in force and fill the agenda.

        A plan that a live scheduler has, and that came with a higher version of the same
        distribution, stays. `parse` reads the schedules of plans that are replaced.
        """
        self._parse = parse
        self._take_on(self._plans, self._yields)

    def reload(self, plans: Iterable[Plan]) -> None:
        """Put other plans of the same jobs in force. After a StoreError it may be called again."""
        self._plans = {plan.id: plan for plan in plans if plan.problem is None}
        gone = self._fingerprints.keys() - self._plans.keys()
        self._fingerprints = {plan.id: fingerprint(plan) for plan in self._plans.values()}
        for id_ in gone:  # its new configuration degrades it
            self._follow(id_, None, in_force=True)
        self._broken.clear()
        self._take_on(self._plans, self._yields)

    def _yields(self, standing: Standing) -> bool:
        plan = self._plans[standing.id].extension
        return (
            standing.node is not None
            and standing.distribution == plan.distribution
            and is_older(plan.version, standing.version)
        )

    def _prevails(self, standing: Standing) -> bool:
        """Return whether nobody alive has the plan in force, or one of an older version.

        The latter, for this node's lease may have run out without its death.
        """
        plan = self._plans[standing.id].extension
        return standing.node is None or (
            standing.distribution == plan.distribution and is_older(standing.version, plan.version)
        )

    def _take_on(self, ids: Collection[str], stands_by: Callable[[Standing], bool]) -> None:
        """Put the plans of these jobs in force, but for those where this node `stands_by`.

        The ticks that were due under another plan are settled under that plan first, in the
        same transaction. After a StoreError it may be called again.
        """
        self._settle_doubt()
        with self._doubt.write() as connection:
            now = self._clock.read(connection)
            job_rows.add_missing(connection, [self.row(self._plans[id_]) for id_ in ids])
            rows = job_rows.lock(connection, ids, skip_locked=False)
            rows |= self._inherit(connection, rows, now)
            standing = self._standing(connection, rows)  # of now: nobody else decides meanwhile
            taken = {id_: row for id_, row in rows.items() if not stands_by(standing[id_])}
            claimed = self._record(connection, self._settled(taken, now), now, self._share())
            next_ticks = {id_: self._next_tick(row, now) for id_, row in taken.items()}
            job_rows.install(
                connection,
                [self.row(self._plans[id_]) | {"next_tick": n} for id_, n in next_ticks.items()],
            )
        for id_, row in rows.items():
            in_force = id_ in taken or self._owns(row)
            odd = row.paused_at or _is_ahead(row, now)
            tick = now if odd else next_ticks.get(id_, row.next_tick)
            self._follow(id_, tick, in_force=in_force)
        self._took(claimed)

    def _settled(self, rows: Mapping[str, JobRow], now: datetime) -> list[tuple[str, Decision]]:
        return [
            (id_, decision)
            for id_, row in rows.items()
            if row.next_tick and row.next_tick <= now and not self._continues(row)
            for decision in self._settle(row, now)
        ]

    def _follow(self, id_: str, tick: datetime | None, *, in_force: bool) -> None:
        """Have a job on the agenda, or stand by while another plan is in force for it."""
        if in_force:
            self._superseded.discard(id_)
        else:
            self._superseded.add(id_)
        self._agenda.set(id_, tick if in_force else None)

    def _standing(self, connection: Connection, ids: Iterable[str]) -> dict[str, Standing]:
        lease_now, me = self._clock.lease_now(), self._node.id
        return plan_rows.standing(connection, ids, lease_now, self._boot, but=me)

    def _review(self) -> None:
        """Look whether the holders of plans that replaced ours have gone, and take those on.

        Plans are compared anew only where schedulers have come or gone.
        """
        with self._store.read() as connection:
            lease_now = self._clock.lease_now()
            schedulers = plan_rows.schedulers(connection, lease_now, self._boot)
            if schedulers != self._schedulers:
                self._superseded |= plan_rows.replaced(connection, set_hash(self._fingerprints))
            found = self._standing(connection, self._superseded)
        free = []
        for id_, standing in found.items():
            in_force = standing.fingerprint == self._fingerprints[id_]
            self._follow(id_, standing.next_tick, in_force=in_force)
            if not in_force and self._prevails(standing):
                free.append(id_)
        for start in range(0, len(free), _BATCH):
            self._take_on(free[start : start + _BATCH], lambda other: not self._prevails(other))
        self._schedulers = schedulers
        self._reviewed = self._clock.monotonic()

    def row(self, plan: Plan) -> dict[str, Any]:
        """Return the job row of a plan of this node that no scheduler has taken on yet."""
        return job_row(plan, self._node.id)

    def _inherit(
        self, connection: Connection, rows: Mapping[str, JobRow], now: datetime
    ) -> dict[str, JobRow]:
        """Pause new jobs whose former names are paused: a renaming is no resuming."""
        former = {
            f"{self._plans[id_].extension.name}:{alias}": id_
            for id_, row in rows.items()
            if not row.revision and not row.paused_at
            for alias in self._plans[id_].job.aliases
        }
        paused = [
            replace(
                rows[former[old.id]],
                paused_at=now,
                paused_until=old.paused_until,
                note=old.note,
                by=old.by,
            )
            for old in job_rows.lock(connection, former, skip_locked=False).values()
            if old.is_paused(now)
        ]
        control_rows.set_pauses(
            connection,
            [(now, row.paused_until, row.note or "", row.by or "", row.id) for row in paused],
        )
        return {row.id: row for row in paused}

    def _continues(self, row: JobRow) -> bool:
        """Return whether the ticks in the database are those of this node's plan."""
        plan = self._plans[row.id]
        return plan.enabled and plan.schedule is not None and self._owns(row)

    def _next_tick(self, row: JobRow, now: datetime) -> datetime | None:
        """Return the first tick that nothing has settled yet: the past is not made up."""
        plan = self._plans[row.id]
        if not plan.enabled or plan.schedule is None:
            return None
        if self._owns(row) and row.next_tick is not None:
            return row.next_tick
        return plan.schedule.next(max(now, row.last_tick or now))

    def _settle(self, row: JobRow, now: datetime) -> Iterator[Decision]:
        """Decide on what was due under a plan that is being replaced."""
        runs = self._plans[row.id].enabled and not row.is_paused(now)
        pause = _pause(row, now + timedelta.resolution)
        due = row.next_tick
        while due is not None and due <= now:
            try:
                # One at a time is over with the plan, so of `all` the newest tick runs.
                kept = CatchUp(row.catch_up) if row.catch_up != CatchUp.ALL else CatchUp.LATEST
                policy = Policy(kept, timedelta(seconds=row.catchup_window))
                schedule = self._parse(row.schedule, row.timezone)
                decision = decide(schedule, due, now, policy, pause)
            except ValueError:  # of a syntax or policy that nothing here knows any more
                decision = Decision(due, None, due, None)
                runs = runs and pause is None
            yield decision if runs else _not_run(decision, due)
            due = decision.next

    def step(self) -> float | None:
        """Claim what is due; return the seconds until there may be more."""
        self._busy = False
        now = self._clock.now()
        if now < self._newest - FAR:
            self.look(self._plans)
            self._newest = now
        self._newest = max(self._newest, now)
        self._settle_doubt()
        if self._plans and self._until_review() <= 0:
            self._review()
        while self._freed:
            self._agenda.set(self._freed.popleft(), now)
        due = self._claimable(now)
        for start in range(0, len(due), _BATCH):
            self._took(self._claim(due[start : start + _BATCH]))
        return self._wait() if self._plans else None

    def _until_review(self) -> float:
        return self._reviewed + self._review_s - self._clock.monotonic()

    def _claimable(self, now: datetime) -> list[str]:
        """Return the jobs that are due and find room, or have waited for it long enough."""
        due = self._agenda.due(now + AHEAD)
        if not due or len(due) <= (room := self._share()):
            return due
        number = max(room, len(self._agenda.due(now - PATIENCE)))
        self._busy = number < len(due)
        return due[:number]

    def _share(self) -> int:
        """Return how many ticks to claim: as many as there is room for, all where nobody shares."""
        live = sum(live for _, live in self._schedulers or ())
        return sys.maxsize if live == 1 else self._room()

    def _wait(self) -> float:
        first, until = self._agenda.first(), self._until_review()
        if first is None:
            return max(until, 0.0)
        due = (first - AHEAD - self._clock.now()).total_seconds()
        return min(max(due, _BUSY_WAIT_S if self._busy else 0.0), max(until, 0.0), _LONGEST_WAIT_S)

    def look(self, job_ids: Iterable[str]) -> None:
        """Look at these jobs at the next step: somebody has changed them. Any thread may call."""
        self._freed.extend(id_ for id_ in job_ids if id_ in self._plans)

    def ended(self, run: Run) -> bool:
        """Note that a run has ended; return whether a tick waits for that. Any thread may call."""
        if run.job_id not in self._held_back:
            return self._busy
        self._freed.append(run.job_id)
        return True

    def _settle_doubt(self) -> None:
        found = self._doubt.settle()
        if found:
            self._took(found)

    def _claim(self, due: Sequence[str]) -> list[Run]:
        decisions: dict[str, Decision] = {}
        with self._doubt.write() as connection:
            rows = job_rows.lock(connection, due, skip_locked=True)
            now = self._clock.read(connection)
            awake = {id_: row for id_, row in rows.items() if not row.is_paused(now + AHEAD)}
            held_back = self._hold_back(connection, awake, now)
            room = self._share()
            for id_ in due:
                row = awake.get(id_)
                horizon = now + AHEAD if len(decisions) < room else now - PATIENCE
                if row and id_ not in held_back and self._is_due(row, horizon):
                    decision = self._decide(row, now)
                    if decision is not None:
                        decisions[id_] = decision
            claimed = self._record(connection, list(decisions.items()), now, room)
            over = [row for row in awake.values() if self._is_over(row, decisions.get(row.id))]
            control_rows.forget_pauses(connection, [row.id for row in over])
        self._resumed([row for row in over if row.by is not None])
        self._warn_of_clocks(rows, now)
        self._busy |= len(decisions) < len(due)
        for id_ in due:
            if id_ in decisions:
                self._agenda.set(id_, decisions[id_].next)
            elif id_ in rows:  # another node was faster, or the plan is not ours any more
                tick = self._look_at(rows[id_], now)
                self._follow(id_, tick, in_force=self._owns(rows[id_]))
        return claimed

    def _is_due(self, row: JobRow, horizon: datetime) -> bool:
        return self._owns(row) and row.next_tick is not None and row.next_tick <= horizon

    def _is_over(self, row: JobRow, decision: Decision | None) -> bool:
        """Return whether all ticks up to the end of a job's pause are settled."""
        if row.paused_until is None or not self._owns(row):
            return False
        next_tick = decision.next if decision else row.next_tick
        return next_tick is None or next_tick >= row.paused_until

    def _warn_of_clocks(self, rows: Mapping[str, JobRow], now: datetime) -> None:
        """Say once of a job that it waits for a time which a wrong clock has shown."""
        ahead = {id_: row for id_, row in rows.items() if _is_ahead(row, now)}
        for id_ in ahead.keys() - self._ahead:
            reason = (
                f"its ticks are settled up to {ahead[id_].last_tick}: the clock was wrong then, or "
                "is wrong now; nothing runs until that time has come"
            )
            remedy = f"when the clock is right: systemprompt infra jobs reset-clock {id_}"
            self._failed(Problem(id_, reason, remedy=remedy))
        self._ahead.difference_update(rows)
        self._ahead |= ahead.keys()

    def _look_at(self, row: JobRow, now: datetime) -> datetime | None:
        """Return when to look at a job that was not claimed."""
        if row.id in self._broken:
            return None
        if row.is_paused(now + AHEAD):
            later = now + _PAUSED_LOOK
            return min(row.paused_until or later, later)
        return now + AHEAD + _LOOK_AGAIN if row.id in self._held_back else row.next_tick

    def _hold_back(
        self, connection: Connection, rows: Mapping[str, JobRow], now: datetime
    ) -> set[str]:
        """Return the jobs that catch up one tick at a time and whose last run has not ended."""
        late = [
            row.id
            for row in rows.values()
            if self._plans[row.id].catch_up is CatchUp.ALL
            and self._is_due(row, now + AHEAD - _LATE)
        ]
        found = run_rows.unfinished(connection, late)
        self._held_back.difference_update(rows)
        self._held_back |= found
        return found

    def _decide(self, row: JobRow, now: datetime) -> Decision | None:
        """Decide on a job's due ticks; a plugin's schedule that raises concerns that job alone."""
        plan = self._plans[row.id]
        assert plan.schedule is not None  # noqa: S101  # a plan without one has no tick
        assert row.next_tick is not None  # noqa: S101  # the caller asked
        try:
            pause = _pause(row, now + AHEAD)
            return decide(plan.schedule, row.next_tick, now, _policy(plan), pause)
        except Exception as error:  # noqa: BLE001
            self._broken.add(row.id)
            reason = f"its schedule raised {type(error).__name__}: {error}; it is not due any more"
            self._failed(Problem(row.id, reason, plan.job.place))
            return None

    def _owns(self, row: JobRow) -> bool:
        return row.fingerprint == self._fingerprints[row.id]

    def _record(
        self,
        connection: Connection,
        decisions: Sequence[tuple[str, Decision]],
        now: datetime,
        room: int,
    ) -> list[Run]:
        """Write what was decided; of the runs, those for which there is `room` are ours."""
        never_run = run_rows.add(
            connection,
            [
                self._stretch(self._plans[id_], stretch, now, state, reason)
                for id_, decision in decisions
                for stretch, state, reason in (
                    (decision.missed, State.MISSED, ""),
                    (decision.paused, State.SKIPPED, "paused"),
                )
                if stretch is not None
            ],
        )
        due = [
            self._due(self._plans[id_], decision.run, decision.next, now)
            for id_, decision in decisions
            if decision.run is not None
        ]
        mine = {"state": State.CLAIMED, "node": self._node.id, "lease_until": self._lease_until()}
        full = self._shut() if room == sys.maxsize else self._full()
        for row in [row for row in due if row["pool"] not in full][: max(0, room)]:
            row.update(mine)
        runs = run_rows.add(connection, due)
        job_rows.advance(
            connection,
            [
                {"key": id_, "new_next": decision.next, "new_last": decision.last}
                for id_, decision in dict(decisions).items()
            ],
        )
        return self._doubt.wrote(runs + never_run)

    def _due(
        self, plan: Plan, tick: datetime, following: datetime | None, now: datetime
    ) -> dict[str, Any]:
        values = run_values(plan, f"t:{micros(tick)}", Trigger.SCHEDULE, now)
        limit = min(plan.splay, following - tick) if following else plan.splay
        return {
            **values,
            "state": State.PENDING,
            "tick_at": tick,
            "available_at": tick + splay(plan.id, tick, limit),
            "available_until": tick + plan.splay + plan.catchup_window,
        }

    def _stretch(
        self, plan: Plan, stretch: Stretch, now: datetime, state: State, reason: str
    ) -> dict[str, Any]:
        values = run_values(plan, f"t:{micros(stretch.first)}", Trigger.SCHEDULE, now)
        return {
            **values,
            "state": state,
            "reason": reason,
            "node": self._node.id,
            "tick_at": stretch.first,
            "last_tick": stretch.last,
            "count": stretch.count,
            "finished": now,
        }


def job_row(plan: Plan, owner: str) -> dict[str, Any]:
    """Return the job row of a plan that no scheduler has taken on yet."""
    return {
        "id": plan.id,
        "extension": plan.extension.name,
        "name": plan.job.name,
        "schedule": plan.schedule.text if plan.schedule else "",
        "timezone": plan.timezone,
        "fingerprint": fingerprint(plan),
        "owner": owner,
        "distribution": plan.extension.distribution,
        "version": plan.extension.version,
        "catch_up": plan.catch_up,
        "catchup_window": whole_seconds(plan.catchup_window),
        "next_tick": None,
    }


def _pause(row: JobRow, horizon: datetime) -> Pause | None:
    """Return the pause of a job as far as it has come at `horizon`."""
    if row.paused_at is None:
        return None
    return Pause(row.paused_at, min(row.paused_until or horizon, horizon))


def _not_run(decision: Decision, due: datetime) -> Decision:
    """Return the decision with the tick that would run among the missed ones."""
    if decision.run is None:
        return decision
    missed = decision.missed
    stretch = Stretch(due, decision.last, 1 + (missed.count if missed else 0))
    return replace(decision, run=None, missed=stretch)


def _is_ahead(row: JobRow, now: datetime) -> bool:
    return row.last_tick is not None and row.last_tick > now + FAR


def _policy(plan: Plan) -> Policy:
    return Policy(plan.catch_up, plan.catchup_window)


def run_values(plan: Plan, key: str, trigger: Trigger, now: datetime) -> dict[str, Any]:
    """Return the columns of a new run of this plan, claimed by nobody yet.

    All rows of one INSERT need the same columns, so those that differ by state are here too.
    """
    return {
        "job_id": plan.id,
        "dedup_key": key,
        "trigger": trigger,
        "state": State.CLAIMED,
        "reason": "",
        "tick_at": None,
        "available_at": now,
        "last_tick": None,
        "count": 1,
        "node": "",
        "lease_until": None,
        "parameters": dict(plan.parameters),
        "enforce": plan.enforce,
        "overlap": plan.overlap,
        "max_attempts": plan.retry.max_attempts,
        "policy": freeze(plan),
        "pool": plan.executor,
        "fingerprint": fingerprint(plan),
        "distribution": plan.extension.distribution,
        "version": plan.extension.version,
        "available_until": now + plan.catchup_window,
        "created": now,
        "finished": None,
    }


def manual_key() -> str:
    """Return a dedup key that nobody else has: each manual trigger is a run of its own."""
    return f"m:{uuid.uuid4().hex}"
