"""Due ticks → runs held by this node: many in one transaction, each tick once."""

from __future__ import annotations

import sys
from collections import deque
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from ._calendar import splay
from ._clock import boot_id
from ._doubt import Doubt
from ._replace import of_replaced, pause_of, settled
from ._rows import job_row, run_values
from ._schedule import Agenda, Decision, Policy, Stretch, decide
from ._store import control as control_rows
from ._store import jobs as job_rows
from ._store import plans as plan_rows
from ._store import runs as run_rows
from ._store.schema import micros
from ._whose import fingerprint, is_older, set_hash, whole_seconds
from .model import EMPTY, CatchUp, Problem, State, Trigger

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import Connection

    from ._store import Store, StoreClock
    from ._store.jobs import JobRow
    from ._store.plans import Standing
    from .interfaces import Schedule
    from .model import Node, Plan, Run

AHEAD = timedelta(milliseconds=250)
"""How far ahead of its time a tick is claimed, so that its function starts on the instant."""

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
    ended by themselves; `room` tells how many runs each pool of this node can make use of. What
    is beyond it is left to the other live schedulers, and what is for the `exhausted` pools,
    which start nothing, to whoever lives or comes.

    Where another plan is in force for a job, this node stands by: every third of a lease it
    looks whether a scheduler still has that plan. One whose lease has run out has it until it is
    buried, seen silent at two looks: when a database returns, none has a lease.
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
        room: Callable[[], Mapping[str, int]],
        lease_s: float,
        exhausted: Callable[[], Collection[str]] = tuple,
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
        self._exhausted = exhausted
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

    def _yields(self, standing: Standing | JobRow, holder: str | None) -> bool:
        plan = self._plans[standing.id].extension
        return (
            holder is not None
            and standing.distribution == plan.distribution
            and is_older(plan.version, standing.version)
        )

    def _prevails(self, standing: Standing | JobRow, holder: str | None) -> bool:
        """Return whether nobody else has the plan in force, or it is one of an older version.

        The latter, for this node's lease may have run out without its death.
        """
        plan = self._plans[standing.id].extension
        return holder is None or (
            standing.distribution == plan.distribution and is_older(standing.version, plan.version)
        )

    def _take_on(
        self,
        ids: Collection[str],
        stands_by: Callable[[JobRow, str | None], bool],
        *,
        unburied: bool = False,
    ) -> None:
        """Put the plans of these jobs in force, but for those where this node `stands_by`.

        The ticks that were due under another plan are settled under that plan first, in the
        same transaction. After a StoreError it may be called again.
        """
        ordered = sorted(ids)
        for start in range(0, len(ordered), _BATCH):
            self._take_on_some(ordered[start : start + _BATCH], stands_by, unburied=unburied)

    def _take_on_some(
        self,
        ids: Sequence[str],
        stands_by: Callable[[JobRow, str | None], bool],
        *,
        unburied: bool,
    ) -> None:
        self._settle_doubt()
        with self._doubt.write() as connection:
            now = self._clock.read(connection)
            rows = job_rows.lock(connection, ids, skip_locked=False)
            if new := [id_ for id_ in ids if id_ not in rows]:
                job_rows.add_missing(connection, [self.row(self._plans[id_]) for id_ in new])
                rows |= job_rows.lock(connection, new, skip_locked=False)
            rows |= self._inherit(connection, rows, now)
            changing = [row for row in rows.values() if not self._stands(row, now)]
            # Of now: nobody else decides meanwhile.
            holders = self._holders(connection, [row.id for row in changing], unburied=unburied)
            taken = {
                row.id: row
                for row in changing
                if not stands_by(row, holders.get((row.id, row.fingerprint)))
            }
            replaced = [row for row in taken.values() if not self._continues(row)]
            enabled = {id_ for id_ in taken if self._plans[id_].enabled}
            decisions = settled(replaced, enabled, self._parse, now)
            claimed = self._record(connection, decisions, now, self._share(ids), replaced=taken)
            next_ticks = {id_: self._next_tick(row, now) for id_, row in taken.items()}
            job_rows.install(
                connection,
                [
                    self.row(self._plans[id_])
                    | {"next_tick": next_tick, "revision": taken[id_].revision + 1}
                    for id_, next_tick in next_ticks.items()
                ],
            )
        for id_ in ids:  # not those of the rows, which are further copies
            row = rows[id_]
            in_force = id_ in taken or self._owns(row)
            odd = row.paused_at or _is_ahead(row, now + FAR)
            tick = now if odd else next_ticks.get(id_, row.next_tick)
            self._follow(id_, tick, in_force=in_force)
        self._took(claimed)

    def _stands(self, row: JobRow, now: datetime) -> bool:
        """Return whether a row has been written by this plan: then a start leaves it alone."""
        plan = self._plans[row.id]
        return (
            row.revision > 0
            and row.schedule == (plan.schedule.text if plan.schedule else "")
            and row.timezone == plan.timezone
            and (row.fingerprint, row.catch_up) == (self._fingerprints[row.id], plan.catch_up)
            and row.catchup_window == whole_seconds(plan.catchup_window)
            and row.distribution == plan.extension.distribution
            and row.version == plan.extension.version
            and row.next_tick == self._next_tick(row, now)
        )

    def _follow(self, id_: str, tick: datetime | None, *, in_force: bool) -> None:
        """Have a job on the agenda, or stand by while another plan is in force for it."""
        if in_force:
            self._superseded.discard(id_)
        else:
            self._superseded.add(id_)
        self._agenda.set(id_, tick if in_force else None)

    def _holders(
        self, connection: Connection, ids: Iterable[str], *, unburied: bool
    ) -> dict[tuple[str, str], str]:
        lease_now, me = self._clock.lease_now(), self._node.id
        return plan_rows.holders(connection, ids, lease_now, self._boot, me, unburied=unburied)

    def _review(self) -> None:
        """Look whether the holders of plans that replaced ours have gone, and take those on.

        Plans are compared anew only where schedulers have come or gone.
        """
        lease_now = self._clock.lease_now()
        with self._store.ask() as questions:
            schedulers = plan_rows.schedulers(questions, lease_now, self._boot)
        if schedulers == self._schedulers and not self._superseded:
            self._reviewed = self._clock.monotonic()
            return
        with self._store.read() as connection:
            if schedulers != self._schedulers:
                self._superseded |= plan_rows.replaced(connection, set_hash(self._fingerprints))
            found = plan_rows.standing(
                connection,
                self._superseded,
                self._clock.lease_now(),
                self._boot,
                but=self._node.id,
                unburied=True,
            )
        free = []
        for id_, standing in found.items():
            in_force = standing.fingerprint == self._fingerprints[id_]
            self._follow(id_, standing.next_tick, in_force=in_force)
            if not in_force and self._prevails(standing, standing.node):
                free.append(id_)
        self._take_on(free, lambda *other: not self._prevails(*other), unburied=True)
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
            rows[former[old.id]]._replace(
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
        try:
            return plan.schedule.next(max(now, row.last_tick or now))
        except Exception as error:  # noqa: BLE001  # a plugin's schedule concerns that job alone
            self._break(plan, error)
            return None

    def step(self) -> float | None:
        """Claim what is due; return the seconds until there may be more.

        Whoever notices that the clock was stepped calls again.
        """
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
            if (id_ := self._freed.popleft()) in self._plans:  # a reload may have taken it away
                self._agenda.set(id_, now)
        due = self._claimable(now)
        for start in range(0, len(due), _BATCH):
            self._took(self._claim(due[start : start + _BATCH]))
        return self._wait() if self._plans else None

    def _until_review(self) -> float:
        return self._reviewed + self._review_s - self._clock.monotonic()

    def _claimable(self, now: datetime) -> list[str]:
        """Return the jobs that are due and find room, or have waited for it long enough.

        Live schedulers begin at different ones, so that most of their claims are not in vain.
        """
        first = self._agenda.first()
        if first is None or first > now + AHEAD:
            return []
        live = self._live()
        if first > now - PATIENCE and len(live) != 1 and max(self._room().values(), default=0) <= 0:
            self._busy = True
            return []
        due = self._agenda.due(now + AHEAD)
        if self._node.id in live:
            begin = len(due) * live.index(self._node.id) // len(live)
            due = due[begin:] + due[:begin]
        left, patient = self._share(due), set(self._agenda.due(now - PATIENCE))
        found = [id_ for id_ in due if _take(left, self._plans[id_].executor) or id_ in patient]
        self._busy = len(found) < len(due)
        return found

    def _share(self, due: Iterable[str]) -> dict[str, int]:
        """Return how many of the ticks of these jobs to claim for each pool.

        As many as there is room for; all, where nobody shares, but for a pool that starts nothing.
        """
        if len(self._live()) != 1:
            return dict(self._room())
        pools = {self._plans[id_].executor for id_ in due}
        return dict.fromkeys(pools, sys.maxsize) | dict.fromkeys(self._exhausted(), 0)

    def _live(self) -> list[str]:
        return sorted(node for node, live in self._schedulers or () if live)

    def _wait(self) -> float:
        first, until = self._agenda.first(), self._until_review()
        if first is None:
            return max(until, 0.0)
        due = (first - AHEAD - self._clock.now()).total_seconds()
        return min(max(due, _BUSY_WAIT_S if self._busy else 0.0), max(until, 0.0))

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
            room = self._share(due)
            left = dict(room)
            for id_ in due:
                row, pool = awake.get(id_), self._plans[id_].executor
                horizon = now + AHEAD if left.get(pool, 0) > 0 else now - PATIENCE
                if row and id_ not in held_back and self._is_due(row, horizon):
                    decision = self._decide(row, now)
                    if decision is not None:
                        decisions[id_] = decision
                        _take(left, pool)
            ends = {id_: row.paused_until for id_, row in awake.items() if row.is_paused(now)}
            claimed = self._record(connection, list(decisions.items()), now, room, not_before=ends)
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
        far = now + FAR
        ahead = {id_: row for id_, row in rows.items() if _is_ahead(row, far)}
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
            pause = pause_of(row, now + AHEAD)
            return decide(plan.schedule, row.next_tick, now, _policy(plan), pause)
        except Exception as error:  # noqa: BLE001
            self._break(plan, error)
            return None

    def _break(self, plan: Plan, error: Exception) -> None:
        self._broken.add(plan.id)
        reason = f"its schedule raised {type(error).__name__}: {error}; it is not due any more"
        self._failed(Problem(plan.id, reason, plan.job.place))

    def _owns(self, row: JobRow) -> bool:
        return row.fingerprint == self._fingerprints[row.id]

    def _record(
        self,
        connection: Connection,
        decisions: Sequence[tuple[str, Decision]],
        now: datetime,
        room: Mapping[str, int],
        replaced: Mapping[str, JobRow] = EMPTY,
        not_before: Mapping[str, datetime | None] = EMPTY,
    ) -> list[Run]:
        """Write what was decided; of the runs, those for which there is `room` are ours.

        `replaced` are the rows of jobs as they were under the plans that decided. A late tick
        that is claimed just ahead of the end of its job's pause starts `not_before` that.
        """
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
        for row in due:
            if row["job_id"] in replaced:
                row.update(of_replaced(replaced[row["job_id"]], row["available_at"]))
            if end := not_before.get(row["job_id"]):
                row["available_at"] = max(row["available_at"], end)
        mine = {"state": State.CLAIMED, "node": self._node.id, "lease_until": self._lease_until()}
        left = dict(room)
        for row in due:
            if not row["reason"] and _take(left, row["pool"]):
                row.update(mine)
        runs = run_rows.add(connection, due)
        job_rows.advance(
            connection,
            [(decision.next, decision.last, id_) for id_, decision in dict(decisions).items()],
        )
        return self._doubt.wrote(runs + never_run)

    def _due(
        self, plan: Plan, tick: datetime, following: datetime | None, now: datetime
    ) -> dict[str, Any]:
        mark = self._fingerprints[plan.id]
        values = run_values(plan, f"t:{micros(tick)}", Trigger.SCHEDULE, now, mark)
        limit = min(plan.splay, following - tick) if following else plan.splay
        values |= {
            "state": State.PENDING,
            "tick_at": tick,
            "available_at": tick + splay(plan.id, tick, limit) if plan.splay else tick,
            "available_until": tick + plan.splay + plan.catchup_window,
        }
        return values

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


def _take(left: dict[str, int], pool: str) -> bool:
    """Return whether a pool has room for one more, and count it."""
    left[pool] = left.get(pool, 0) - 1
    return left[pool] >= 0


def _is_ahead(row: JobRow, far: datetime) -> bool:
    return row.last_tick is not None and row.last_tick > far


def _policy(plan: Plan) -> Policy:
    return Policy(plan.catch_up, plan.catchup_window)
