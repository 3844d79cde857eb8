"""Due ticks → runs held by this node: many in one transaction, each tick once."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.metadata
import uuid
import zoneinfo
from collections import deque
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._calendar import splay
from ._schedule import Agenda, Decision, Policy, Stretch, decide
from ._store import jobs as job_rows
from ._store import runs as run_rows
from ._store.schema import micros
from .model import CatchUp, Problem, State, Trigger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import Connection

    from ._store import Store, StoreClock
    from ._store.jobs import JobRow
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

_BATCH = 1000
"""Jobs per claiming transaction."""

_BUSY_WAIT_S = 0.05
"""Look again this soon at jobs whose rows another node has just locked."""


def fingerprint(plan: Plan) -> str:
    """Return what two plans share exactly when they have the same ticks and policies.

    A disabled job has no ticks, whatever its schedule.
    """
    schedule = plan.schedule.text if plan.enabled and plan.schedule else ""
    window = _whole_seconds(plan.catchup_window)
    parts = (
        *(schedule, plan.timezone, plan.overlap, plan.splay, plan.catch_up, window),
        _zone_data_version(),
    )
    return hashlib.sha256("|".join(map(str, parts)).encode()).hexdigest()[:16]


def _whole_seconds(duration: timedelta) -> int:
    return max(1, round(duration.total_seconds()))


@functools.cache
def _zone_data_version() -> str:
    """Return the version of the zone data that zoneinfo reads: the system's, else tzdata's."""
    for folder in zoneinfo.TZPATH:
        with contextlib.suppress(OSError):
            return Path(folder, "tzdata.zi").read_text("ascii").partition("\n")[0]
    return importlib.metadata.version("tzdata")


class Claimer:
    """Claims the due ticks of this node's plans.

    `lease_until` tells the end of a lease taken now; `took` receives the rows of one
    transaction: claimed runs, and missed stretches; `failed` a job whose schedule raises.
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
    ) -> None:
        self._store = store
        self._plans = {plan.id: plan for plan in plans if plan.problem is None}
        self._fingerprints = {plan.id: fingerprint(plan) for plan in self._plans.values()}
        self._node = node
        self._clock = clock
        self._lease_until = lease_until
        self._took = took
        self._failed = failed
        self._agenda = Agenda()
        self._broken: set[str] = set()
        self._busy = False
        self._held_back: set[str] = set()
        self._freed: deque[str] = deque()
        self._in_doubt = False

    def install(self, parse: Callable[[str, str], Schedule]) -> None:
        """Write this node's plans over those in the database and fill the agenda.

        The ticks that were due under another plan are settled under that plan first, in the
        same transaction; `parse` reads its schedule.
        """
        with self._store.write() as connection:
            now = self._clock.read(connection)
            job_rows.add_missing(connection, [self.row(plan) for plan in self._plans.values()])
            rows = job_rows.lock(connection, self._plans, skip_locked=False)
            settled = {
                id_: self._settle(row, parse, now)
                for id_, row in rows.items()
                if row.next_tick and row.next_tick <= now and not self._continues(row)
            }
            claimed = self._record(connection, settled, now)
            next_ticks = {id_: self._next_tick(row, now) for id_, row in rows.items()}
            job_rows.install(
                connection,
                [self.row(self._plans[id_]) | {"next_tick": n} for id_, n in next_ticks.items()],
            )
        for id_, tick in next_ticks.items():
            self._agenda.set(id_, tick)
        self._took(claimed)

    def row(self, plan: Plan) -> dict[str, Any]:
        """Return the job row of a plan that no scheduler has taken on yet."""
        return {
            "id": plan.id,
            "extension": plan.extension.name,
            "name": plan.job.name,
            "schedule": plan.schedule.text if plan.schedule else "",
            "timezone": plan.timezone,
            "fingerprint": self._fingerprints[plan.id],
            "owner": self._node.id,
            "distribution": plan.extension.distribution,
            "version": plan.extension.version,
            "catch_up": plan.catch_up,
            "catchup_window": _whole_seconds(plan.catchup_window),
            "next_tick": None,
        }

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

    def _settle(
        self, row: JobRow, parse: Callable[[str, str], Schedule], now: datetime
    ) -> Decision:
        """Decide on what was due under a plan that is being replaced."""
        assert row.next_tick is not None  # noqa: S101  # the caller asked
        try:
            # One at a time is over with the plan, so of `all` the newest tick runs.
            kept = CatchUp(row.catch_up) if row.catch_up != CatchUp.ALL else CatchUp.LATEST
            policy = Policy(kept, timedelta(seconds=row.catchup_window))
            decision = decide(parse(row.schedule, row.timezone), row.next_tick, now, policy)
        except ValueError:  # of a syntax or policy that nothing here knows any more
            decision = Decision(row.next_tick, None, row.next_tick, None)
        if self._plans[row.id].enabled or decision.run is None:
            return decision
        missed = decision.missed
        stretch = Stretch(row.next_tick, decision.last, 1 + (missed.count if missed else 0))
        return replace(decision, run=None, missed=stretch)

    def step(self) -> float | None:
        """Claim what is due; return the seconds until there may be more."""
        self._busy = False
        now = self._clock.now()
        if self._in_doubt:
            self._read_back()
        while self._freed:
            self._agenda.set(self._freed.popleft(), now)
        due = self._agenda.due(now + AHEAD)
        for start in range(0, len(due), _BATCH):
            self._in_doubt = True
            self._took(self._claim(due[start : start + _BATCH]))
            self._in_doubt = False
        first = self._agenda.first()
        if first is None:
            return None
        until = (first - AHEAD - self._clock.now()).total_seconds()
        return min(max(until, _BUSY_WAIT_S if self._busy else 0.0), _LONGEST_WAIT_S)

    def ended(self, run: Run) -> bool:
        """Note that a run has ended; return whether a tick waits for that. Any thread may call."""
        if run.job_id not in self._held_back:
            return False
        self._freed.append(run.job_id)
        return True

    def _read_back(self) -> None:
        """Take what a claim has got whose commit was never answered."""
        with self._store.write() as connection:
            claimed = run_rows.claimed_by(connection, self._node.id)
        self._took(claimed)
        self._in_doubt = False

    def _claim(self, due: Sequence[str]) -> list[Run]:
        decisions: dict[str, Decision] = {}
        with self._store.write() as connection:
            rows = job_rows.lock(connection, due, skip_locked=True)
            now = self._clock.read(connection)
            held_back = self._hold_back(connection, rows, now)
            for id_ in due:
                row = rows.get(id_)
                if row and id_ not in held_back and self._is_due(row, now):
                    decision = self._decide(row, now)
                    if decision is not None:
                        decisions[id_] = decision
            claimed = self._record(connection, decisions, now)
        self._busy |= len(rows) < len(due)
        for id_ in due:
            if id_ in decisions:
                self._agenda.set(id_, decisions[id_].next)
            elif id_ in rows:  # another node was faster, or the plan is not ours any more
                self._agenda.set(id_, self._look_at(rows[id_], now))
        return claimed

    def _is_due(self, row: JobRow, now: datetime) -> bool:
        return self._owns(row) and row.next_tick is not None and row.next_tick <= now + AHEAD

    def _look_at(self, row: JobRow, now: datetime) -> datetime | None:
        """Return when to look at a job that was not claimed."""
        if not self._owns(row) or row.id in self._broken:
            return None
        return now + AHEAD + _LOOK_AGAIN if row.id in self._held_back else row.next_tick

    def _hold_back(
        self, connection: Connection, rows: Mapping[str, JobRow], now: datetime
    ) -> set[str]:
        """Return the jobs that catch up one tick at a time and whose last run has not ended."""
        late = [
            row.id
            for row in rows.values()
            if self._plans[row.id].catch_up is CatchUp.ALL and self._is_due(row, now - _LATE)
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
            return decide(plan.schedule, row.next_tick, now, _policy(plan))
        except Exception as error:  # noqa: BLE001
            self._broken.add(row.id)
            reason = f"its schedule raised {type(error).__name__}: {error}; it is not due any more"
            self._failed(Problem(row.id, reason, plan.job.place))
            return None

    def _owns(self, row: JobRow) -> bool:
        return row.fingerprint == self._fingerprints[row.id]

    def _record(
        self, connection: Connection, decisions: Mapping[str, Decision], now: datetime
    ) -> list[Run]:
        missed = run_rows.add(
            connection,
            [
                self._missed(self._plans[id_], decision.missed, now)
                for id_, decision in decisions.items()
                if decision.missed is not None
            ],
        )
        runs = run_rows.add(
            connection,
            [
                self._claimed(self._plans[id_], decision.run, decision.next, now)
                for id_, decision in decisions.items()
                if decision.run is not None
            ],
        )
        job_rows.advance(
            connection,
            [
                {"key": id_, "new_next": decision.next, "new_last": decision.last}
                for id_, decision in decisions.items()
            ],
        )
        return runs + missed

    def _claimed(
        self, plan: Plan, tick: datetime, following: datetime | None, now: datetime
    ) -> dict[str, Any]:
        values = run_values(plan, f"t:{micros(tick)}", Trigger.SCHEDULE, now)
        limit = min(plan.splay, following - tick) if following else plan.splay
        return {
            **values,
            "tick_at": tick,
            "available_at": tick + splay(plan.id, tick, limit),
            "available_until": tick + plan.splay + plan.catchup_window,
            "node": self._node.id,
            "lease_until": self._lease_until(),
        }

    def _missed(self, plan: Plan, stretch: Stretch, now: datetime) -> dict[str, Any]:
        values = run_values(plan, f"t:{micros(stretch.first)}", Trigger.SCHEDULE, now)
        return {
            **values,
            "state": State.MISSED,
            "tick_at": stretch.first,
            "last_tick": stretch.last,
            "count": stretch.count,
            "finished": now,
        }


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
