"""Who may run: the pure decision for any holdings, and any order of events with crashes between."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from systemprompt_jobs._rows import manual_key, run_values
from systemprompt_jobs._store import Store, cancels, queries, slots
from systemprompt_jobs._store import pending as pending_rows
from systemprompt_jobs._store import runs as run_rows
from systemprompt_jobs._store.schema import slot
from systemprompt_jobs._store.slots import Verdict
from systemprompt_jobs.model import Concurrency, Overlap, Report, RetryPolicy, Run, State, Trigger
from tests.support import START, before_statements, job_set, make_plan

# --- the pure decision ---


def a_run(number, job, overlap, limit):
    policy = limit and {"concurrency": {"key": "api", "limit": limit}}
    return Run(
        number, f"ext:{job}", Trigger.SCHEDULE, State.CLAIMED, overlap=overlap, policy=policy
    )


GROUPS = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from(Overlap), st.sampled_from([None, 1, 2, 3])),
    max_size=8,
)


@settings(deadline=None, max_examples=300)
@given(first=GROUPS, second=GROUPS)
def test_slots_are_given_once_and_within_their_bounds_whatever_was_held(first, second):
    held = {f"overlap:ext:{job}": {} for job in "abc"} | {"concurrency:api": {}}
    for offset, group in ((0, first), (100, second)):
        runs = [a_run(offset + n, *values) for n, values in enumerate(group)]
        claims = slots.assign(runs, held)
        for claim in claims:
            mine = {(key, n) for key in held for n, r in held[key].items() if r == claim.run.id}
            assert_has_what_it_needs(claim, mine)
        again = slots.assign([c.run for c in claims if c.verdict is Verdict.START], held)
        assert all(c == (c.run, Verdict.START, (), ()) for c in again)
    for key, holders in held.items():
        assert len(set(holders.values())) == len(holders)
        assert key == "concurrency:api" or set(holders) <= {0, 1}


def assert_has_what_it_needs(claim, mine):
    key = f"overlap:{claim.run.job_id}"
    if claim.verdict is Verdict.SKIP:
        assert mine == set()
    if claim.verdict is Verdict.WAIT_OVERLAP:
        assert mine == {(key, 1)}
    if claim.verdict is Verdict.START:
        assert ((key, 0) in mine) == (claim.run.overlap is not Overlap.ALLOW)
        limit = claim.run.policy and claim.run.policy["concurrency"]["limit"]
        numbers = [n for name, n in mine if name == "concurrency:api"]
        assert len(numbers) == (limit is not None)
        assert all(n < limit for n in numbers)


def test_two_nodes_that_want_the_last_slot_at_once_get_it_once(make_store, monkeypatch):
    store = make_store("postgresql")
    plan = make_plan(concurrency=Concurrency("api", 2), overlap=Overlap.ALLOW)
    with store.write() as connection:
        rows = [values_of(plan) for _ in range(3)]
        one, two, three = run_rows.add(connection, rows)
    read, looked = slots.read, []

    def read_stale(connection, runs):
        """Have another node take the first slot right after this one has looked."""
        found = read(connection, runs)
        if not looked:
            looked.append(True)
            with store.write() as other:
                assert run_rows.gate(other, [one], START, 0)[0]
        return found

    monkeypatch.setattr(slots, "read", read_stale)
    with store.write() as connection:
        started, others = run_rows.gate(connection, [two, three], START, 0)
    assert {run.id for run in started + others} == {two.id, three.id}
    assert [run.reason for run in others] == ["concurrency"]


def values_of(plan, trigger=Trigger.SCHEDULE, node="n0"):
    values = run_values(plan, manual_key(), trigger, START)
    return values | {"node": node, "lease_until": 0}


def test_whoever_waits_for_a_free_slot_is_found_behind_thousands_that_wait_for_another(store):
    busy = [
        make_plan("queued", overlap=Overlap.QUEUE),
        make_plan("limited", overlap=Overlap.ALLOW, concurrency=Concurrency("api", 1)),
        make_plan("elsewhere", overlap=Overlap.QUEUE, executor="full"),
    ]
    free = [
        make_plan("next", overlap=Overlap.QUEUE),
        make_plan("other", overlap=Overlap.ALLOW, concurrency=Concurrency("db", 1)),
    ]
    with store.write() as connection:
        running = run_rows.add(connection, [values_of(plan) for plan in busy[:2]])
        assert len(run_rows.gate(connection, running, START, 0)[0]) == 2
        for plan in busy:
            reason = "concurrency" if plan.concurrency else "overlap"
            rows = [values_of(plan) | waiting(reason, n) for n in range(1100)]
            run_rows.add(connection, rows)
        run_rows.add(connection, [values_of(free[0]) | waiting("overlap", 2000)])
        run_rows.add(connection, [values_of(free[1]) | waiting("concurrency", 2000)])
        pools = {plan.id: plan.executor for plan in busy + free}
        digest = job_set(connection, pools)
        now, room = START + timedelta(hours=1), {"default": 5, "full": 0}
        taken = pending_rows.take_pending(connection, digest, pools, "n1", now, 0, room)
    assert [run.job_id for run in taken] == [plan.id for plan in free]


def waiting(reason, after_s):
    due = START + timedelta(seconds=after_s)
    return {"state": State.PENDING, "reason": reason, "available_at": due, "node": ""}


# --- the machine ---

PLANS = (
    make_plan("skip", retry=RetryPolicy(2)),
    make_plan("queue", overlap=Overlap.QUEUE, retry=RetryPolicy(2)),
    make_plan("limited", overlap=Overlap.ALLOW, concurrency=Concurrency("api", 2)),
    make_plan("both", overlap=Overlap.QUEUE, concurrency=Concurrency("api", 2), retry=RetryPolicy(3)),
)  # fmt: skip
IDS = [plan.id for plan in PLANS]
POOLS = dict.fromkeys(IDS, "default")


class Crash(BaseException):
    """The process is no more."""


@dataclass
class World:
    """Two nodes by their statements alone; `fuse` is after how many of them one crashes."""

    store: Store
    fuse: int | None = None
    now: object = START
    held: dict[int, Run] = field(default_factory=dict)  # claimed, by its node
    running: dict[int, Run] = field(default_factory=dict)
    threads: set[tuple[int, int]] = field(default_factory=set)  # that outlived their attempts

    def __post_init__(self):
        before_statements(self.store, self._burn)

    def _burn(self, *_):
        if self.fuse is not None:
            self.fuse -= 1
            if self.fuse < 0:
                self.fuse = None
                raise Crash

    def do(self, kind, pick):
        self.now += timedelta(seconds=5)
        ran = {(run.id, run.fence) for run in list(self.running.values())[: 1 + pick]}
        with self.store.write() as connection:
            changed = getattr(self, kind)(connection, pick)
        if kind in {"outlast", "cut_off"}:
            self.threads |= ran
        if kind == "release":
            self.threads.clear()
        for run in changed:  # only what was committed
            self.held.pop(run.id, None)
            self.running.pop(run.id, None)
            if run.state in (State.CLAIMED, State.RUNNING):
                (self.running if run.state is State.RUNNING else self.held)[run.id] = run

    def claim(self, connection, pick):
        trigger = Trigger.MANUAL if pick % 3 == 0 else Trigger.SCHEDULE
        return run_rows.add(connection, [values_of(PLANS[pick % len(PLANS)], trigger)])

    def gate(self, connection, pick):
        ready = [run for run in self.held.values() if run.due is None or run.due <= self.now]
        started, others = run_rows.gate(connection, ready[: 1 + pick], self.now, 0)
        return [*started, *others]

    def finish(self, connection, pick, outcome=State.SUCCEEDED, retry_after=None, **values):
        runs = list(self.running.values())[: 1 + pick]
        said = [
            Report(
                outcome,
                self.now,
                self.now,
                retry_after=retry_after if run.attempt < run.max_attempts else None,
                **values,
            )
            for run in runs
        ]
        ended = run_rows.finish(connection, list(zip(runs, said, strict=True)), self.now, 0)
        assert len(ended) == len(runs)
        return ended.values()

    def fail(self, connection, pick):
        return self.finish(connection, pick, State.FAILED, timedelta(seconds=pick))

    def outlast(self, connection, pick):
        return self.finish(connection, pick, State.TIMED_OUT, stray=True)

    def cut_off(self, connection, pick):
        return self.finish(connection, pick, State.CANCELLED, timedelta(), stray=True)

    def release(self, connection, pick):
        cancels.free_slots(connection, self.threads)
        return ()

    def cancel(self, connection, pick):
        ids = [run.id for run in queries.history(connection)][pick : pick + 1]
        cancels.cancel(connection, ids, "cancelled by ada", self.now)
        return run_rows.lock(connection, ids).values()

    def take(self, connection, pick):
        return pending_rows.take_pending(
            *(connection, job_set(connection, IDS), POOLS, "n1", self.now, 0),
            {"default": 1 + pick},
        )

    def give_back(self, connection, pick):
        runs = [r for r in self.held.values() if r.trigger is Trigger.SCHEDULE][: 1 + pick]
        run_rows.give_back(connection, [(r.id, r.fence) for r in runs], self.now)
        return run_rows.lock(connection, [r.id for r in runs]).values()

    def die(self, connection, pick):
        """Lose the node of some runs, and have another one settle them."""
        lost = [*self.held.values(), *self.running.values()][: 1 + pick]
        run_rows.rescue(connection, {(r.id, r.fence, 0) for r in lost}, self.now)
        return run_rows.lock(connection, [r.id for r in lost]).values()

    def give_up(self, connection, pick):
        return pending_rows.give_up_pending(connection, self.now)

    def check(self):
        with self.store.read() as connection:
            runs = {run.id: run for run in queries.history(connection, limit=10_000)}
            rows = [tuple(row) for row in connection.execute(select(slot))]
        running = [
            run
            for run in runs.values()
            if run.state is State.RUNNING or (run.id, run.fence) in self.threads
        ]
        for plan in PLANS:
            own = [run for run in running if run.job_id == plan.id]
            assert plan.overlap is Overlap.ALLOW or len(own) <= 1
        assert sum(bool(r.policy and "concurrency" in r.policy) for r in running) <= 2
        for _, _, run_id, fence in rows:
            assert runs[run_id].fence == fence
            open_ = runs[run_id].state in {State.PENDING, State.CLAIMED, State.RUNNING}
            assert open_ or (run_id, fence) in self.threads
        owners = {run_id for _, _, run_id, _ in rows}
        assert all(r.id in owners or r.overlap is Overlap.ALLOW for r in running)
        assert all(run.attempt <= run.max_attempts for run in runs.values())
        return rows

    def settle(self):
        """Do the rest as it should be: everything ends and every slot is free."""
        self.do("release", 0)
        for _ in range(60):
            for kind in ("take", "gate", "finish"):
                self.do(kind, 9)
            self.check()
        with self.store.read() as connection:
            states = {run.state for run in queries.history(connection, limit=10_000)}
        assert not states & {State.PENDING, State.CLAIMED, State.RUNNING}
        assert self.check() == []


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                *("claim", "claim", "claim", "gate", "gate", "gate", "finish", "fail"),
                *("take", "give_back", "die", "give_up", "outlast", "cut_off", "release", "cancel"),
            ]
        ),
        st.integers(0, 4),
        st.none() | st.none() | st.integers(0, 9),
    ),
    min_size=5,
    max_size=40,
)  # fmt: skip


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    path = tmp_path_factory.mktemp("template") / "jobs.db"
    store = Store(f"sqlite:///{path}")
    store.prepare()
    store.close()
    return path


@settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
@given(events=EVENTS)
def test_any_order_of_events_and_crashes_keeps_the_bounds_and_frees_every_slot(template, events):
    with tempfile.TemporaryDirectory() as folder:
        shutil.copyfile(template, Path(folder, "jobs.db"))
        store = Store(f"sqlite:///{folder}/jobs.db")
        play(World(store), events)
        store.close()


def test_the_same_holds_on_postgresql(make_store):
    kinds = ["claim", "gate", "claim", "gate", "fail", "take", "gate", "die", "claim", "give_back"]
    events = [(kind, n % 5, n % 11 if n % 4 == 3 else None) for n, kind in enumerate(kinds * 12)]
    play(World(make_store("postgresql")), events)


def test_strays_and_cancelled_runs_fit_in_on_postgresql_too(make_store):
    kinds = ["claim", "gate", "cancel", "outlast", "claim", "gate", "cut_off", "take", "release"]
    events = [(kind, n % 5, n % 11 if n % 4 == 3 else None) for n, kind in enumerate(kinds * 12)]
    play(World(make_store("postgresql")), events)


def play(world, events):
    for kind, pick, fuse in events:
        world.fuse = fuse
        try:
            world.do(kind, pick)
        except Crash:
            pass  # nothing of it was committed, and whoever did it may try again
        finally:
            world.fuse = None
        world.check()
    world.settle()
