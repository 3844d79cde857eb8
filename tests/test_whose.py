"""Nodes with different plans share a database: one plan of a job is in force, the others stand by."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import timedelta

import pytest
from packaging.version import Version
from sqlalchemy import select

from systemprompt_jobs import _claim, _whose
from systemprompt_jobs._calendar import cron, parse
from systemprompt_jobs._claim import Claimer
from systemprompt_jobs._keep import Keeper
from systemprompt_jobs._node import new_node
from systemprompt_jobs._store import jobs as job_rows
from systemprompt_jobs._store import plans as plan_rows
from systemprompt_jobs._store import queries
from systemprompt_jobs._store.schema import job as job_table
from systemprompt_jobs._store.schema import job_set
from systemprompt_jobs._whose import is_older
from systemprompt_jobs.model import Extension, State
from tests.support import START, Calls, ManualClock, NoAttempts, answer_lost, make_plan

LEASE_S = 30.0
HOURLY = "0 0 * * * *"
FIVE = "0 */5 * * * *"
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)


class Node:
    """A keeper and a claimer without threads; `taken` are the ticks that it claimed."""

    def __init__(self, store, clock, *plans, version="1.0", distribution="my-ext"):
        extension = Extension("ext", "ext", distribution, version)
        self.taken = []
        self.clock = clock
        self.store = store
        self.node = new_node()
        self.claimer = Claimer(
            store,
            [replace(plan, extension=extension) for plan in plans],
            self.node,
            clock,
            lambda: 0,
            self.taken.extend,
            None,
            room=lambda: {"default": 100},
            lease_s=LEASE_S,
        )
        self.keeper = Keeper(
            store,
            self.node,
            clock,
            LEASE_S,
            fingerprints=self.claimer.fingerprints,
            pools={},
            held=list,
            room=dict,
            took=self.taken.extend,
            drop=lambda _: None,
            observer=Calls(),
            interrupter=NoAttempts(),
        )

    def start(self):
        self.keeper.join("scheduler", {"default": 10})
        self.claimer.install(parse)
        return self

    def step(self):
        self.keeper.step()
        self.claimer.step()

    def ticks(self, name="cleanup"):
        return [run.tick for run in self.taken if run.job == name and run.state is State.CLAIMED]


def pass_time(clock, seconds, *nodes):
    """Let time pass in steps of a second, as loops would see it."""
    for _ in range(int(seconds)):
        clock.advance(1)
        for node in nodes:
            node.step()


@pytest.fixture
def clock():
    return ManualClock()


def each_second(**values):
    return make_plan(schedule="* * * * * *", **values)


def even_seconds(**values):
    return make_plan(schedule="*/2 * * * * *", **values)


@pytest.mark.parametrize("version", ["2.0", "1.0", "1.0.1", "", "new"])
def test_a_plan_that_comes_with_no_lower_version_replaces_another_and_that_stands_by(
    store, clock, version
):
    old = Node(store, clock, each_second()).start()
    new = Node(store, clock, even_seconds(), version=version).start()
    pass_time(clock, 20, old, new)
    assert old.ticks() == []
    assert new.ticks() == [START + n * SECOND for n in range(2, 21, 2)]


def test_a_plan_that_comes_with_a_lower_version_stands_by_when_it_starts(store, clock):
    new = Node(store, clock, even_seconds(), version="2.0").start()
    old = Node(store, clock, each_second(), version="2.0rc1").start()
    pass_time(clock, 20, old, new)
    assert old.ticks() == []
    assert len(new.ticks()) == 10


def test_a_lower_version_of_another_distribution_is_not_lower(store, clock):
    one = Node(store, clock, even_seconds(), version="2.0", distribution="one").start()
    other = Node(store, clock, each_second(), version="1.0", distribution="other").start()
    pass_time(clock, 4, one, other)
    assert (len(one.ticks()), len(other.ticks())) == (0, 4)


def test_who_stands_by_takes_the_job_within_a_third_of_a_lease_after_its_holder_left(store, clock):
    old = Node(store, clock, each_second()).start()
    new = Node(store, clock, even_seconds(), version="2.0").start()
    pass_time(clock, 20, old, new)
    new.keeper.leave()
    pass_time(clock, LEASE_S / 3 + 1, old)
    assert old.ticks()
    gone = LEASE_S / 3 + 1
    pass_time(clock, 10, old)
    assert old.ticks()[-10:] == [clock.now() - n * SECOND for n in reversed(range(10))]
    assert clock.now() == START + (20 + gone + 10) * SECOND


def test_who_stands_by_takes_the_job_when_its_holder_is_buried(store, clock):
    old = Node(store, clock, each_second()).start()
    new = Node(store, clock, even_seconds(), version="2.0").start()
    pass_time(clock, 20, old, new)
    pass_time(clock, LEASE_S, old)
    assert old.ticks() == []
    pass_time(clock, LEASE_S + 2, old)
    assert old.ticks()


def test_who_stands_by_goes_on_doing_so_after_an_outage_that_outlasted_all_leases(store, clock):
    """Of equal versions the later plan is in force; its holder is only slower to come back."""
    old = Node(store, clock, each_second()).start()
    new = Node(store, clock, even_seconds()).start()
    pass_time(clock, 20, old, new)
    clock.advance(2 * LEASE_S)
    pass_time(clock, LEASE_S / 3 - 1, old)
    pass_time(clock, 2 * LEASE_S, new, old)
    assert old.ticks() == []
    assert clock.now() - new.ticks()[-1] <= SECOND


def test_a_newer_version_that_was_taken_for_dead_has_its_jobs_back_when_it_wakes(store, clock):
    old = Node(store, clock, each_second()).start()
    new = Node(store, clock, even_seconds(), version="2.0").start()
    pass_time(clock, 2 * LEASE_S, old)
    assert old.ticks()
    pass_time(clock, LEASE_S, old, new)
    assert new.ticks()[-1] == clock.now()
    before = len(old.ticks())
    pass_time(clock, 10, old, new)
    assert len(old.ticks()) == before


def test_who_started_while_a_newer_plan_was_held_takes_the_job_too(store, clock):
    new = Node(store, clock, even_seconds(), version="2.0").start()
    old = Node(store, clock, each_second()).start()
    new.keeper.leave()
    pass_time(clock, LEASE_S / 3 + 2, old)
    assert old.ticks()


def test_a_lower_version_installs_its_plan_at_once_where_nobody_alive_has_the_other(store, clock):
    new = Node(store, clock, even_seconds(), version="2.0").start()
    new.keeper.leave()
    old = Node(store, clock, each_second()).start()
    pass_time(clock, 3, old)
    assert old.ticks() == [START + n * SECOND for n in range(1, 4)]


def test_two_who_stand_by_with_one_plan_share_its_ticks_again(store, clock):
    old = [Node(store, clock, each_second()).start() for _ in range(2)]
    new = Node(store, clock, even_seconds(), version="2.0").start()
    pass_time(clock, 5, *old, new)
    new.keeper.leave()
    pass_time(clock, LEASE_S, *old)
    before = [len(node.ticks()) for node in old]
    for turn in range(10):
        pass_time(clock, 1, *(old if turn % 2 else reversed(old)))
    assert [len(node.ticks()) for node in old] == [count + 5 for count in before]


def test_who_stands_by_shares_the_ticks_of_a_newcomer_with_its_own_plan(store, clock):
    old = Node(store, clock, each_second()).start()
    new = Node(store, clock, even_seconds(), version="1.0").start()
    pass_time(clock, 5, old, new)
    again = Node(store, clock, each_second()).start()
    pass_time(clock, LEASE_S / 3 + 1, again, new, old)
    before = len(old.ticks())
    pass_time(clock, 4, old, new, again)
    assert len(old.ticks()) == before + 4


def test_a_plan_replaced_by_one_who_came_and_went_between_two_looks_is_taken_back(store, clock):
    old = Node(store, clock, make_plan(schedule=HOURLY)).start()
    pass_time(clock, 12, old)
    new = Node(store, clock, make_plan(schedule=FIVE), version="2.0").start()
    new.keeper.leave()
    pass_time(clock, LEASE_S / 3 + 1, old)
    with store.read() as connection:
        assert connection.execute(select(job_table.c.next_tick)).scalar() == START + 60 * MINUTE


def test_a_same_plan_with_a_lower_version_leaves_the_higher_one_on_record(store, clock):
    Node(store, clock, each_second(), version="2.0").start()
    same = Node(store, clock, each_second(), version="1.0").start()
    pass_time(clock, 1, same)
    assert len(same.ticks()) == 1
    other = Node(store, clock, even_seconds(), version="1.5").start()
    pass_time(clock, 4, other)
    assert other.ticks() == []


def test_a_job_disabled_by_a_newer_version_has_no_ticks_though_an_older_one_has_them(store, clock):
    old = Node(store, clock, each_second()).start()
    new = Node(store, clock, each_second(enabled=False), version="2.0").start()
    pass_time(clock, LEASE_S, old, new)
    assert old.ticks() + new.ticks() == []
    new.keeper.leave()
    left = clock.now()
    pass_time(clock, LEASE_S / 3 + 2, old)
    assert old.ticks()
    assert min(old.ticks()) > left, "disabled time is not made up"


def test_nodes_with_different_jobs_leave_each_others_alone(store, clock):
    one = Node(store, clock, each_second(), make_plan("one")).start()
    two = Node(store, clock, even_seconds(), make_plan("two"), version="2.0").start()
    pass_time(clock, 4, one, two)
    assert {run.job for run in one.taken} == {"one"}
    assert {run.job for run in two.taken} == {"cleanup", "two"}
    two.keeper.leave()
    pass_time(clock, LEASE_S, one)
    assert {run.job for run in one.taken} == {"one", "cleanup"}


def test_other_time_zone_data_is_another_plan(store, clock, monkeypatch):
    old = Node(store, clock, each_second()).start()
    monkeypatch.setattr(_whose, "zone_data_version", lambda: "# version 2099z")
    new = Node(store, clock, each_second()).start()
    monkeypatch.undo()
    pass_time(clock, 10, old, new)
    assert (len(old.ticks()), len(new.ticks())) == (0, 10)
    new.keeper.leave()
    pass_time(clock, LEASE_S / 3 + 2, old)
    covered = sorted(run.tick for run in old.taken + new.taken if run.state is State.CLAIMED)
    missed = sum(run.count for run in old.taken if run.state is State.MISSED)
    assert len(set(covered)) == len(covered)
    assert len(covered) + missed == (clock.now() - START).total_seconds()


def test_from_an_hourly_to_a_five_minute_schedule_and_back(store, clock):
    """Each due tick is covered once, by the schedule that was in force when it was due."""
    hourly, five = make_plan(schedule=HOURLY), make_plan(schedule=FIVE)
    old = [Node(store, clock, hourly).start() for _ in range(2)]
    clock.advance(62 * 60 + 30)  # nobody was awake: 11:00 is late
    new = Node(store, clock, five, version="2.0").start()
    for _ in range(20):
        pass_time(clock, 1, *old, new)
        clock.advance(59)
        new.keeper.step()  # their leases are too short for such steps
    new.keeper.leave()
    pass_time(clock, LEASE_S, *old)
    clock.advance(3600)
    pass_time(clock, 1, *old)
    with store.read() as connection:
        rows = queries.history(connection, limit=100)
    assert [run.tick for run in rows if run.tick <= START + 62 * MINUTE] == [START + 60 * MINUTE]
    covered = [
        tick
        for run in reversed(rows)
        for tick in [run.tick, *cron(FIVE).between(run.tick, run.last_tick or run.tick)]
    ]
    assert covered == [START + n * MINUTE for n in (60, 65, 70, 75, 80, 120)]


def test_a_take_over_whose_answer_was_lost_is_read_back_and_goes_on(store, clock):
    old = Node(store, clock, each_second()).start()
    new = Node(store, clock, even_seconds(), version="2.0").start()
    pass_time(clock, 2, old, new)
    new.keeper.leave()
    clock.advance(LEASE_S / 3)
    with answer_lost(store), pytest.raises(Exception, match="database"):
        old.claimer.step()
    assert old.taken == []
    old.claimer.step()
    assert len(old.ticks()) == 1
    pass_time(clock, 1, old)
    assert len(old.ticks()) == 2


def test_the_job_set_of_a_node_says_which_plans_it_has(store, clock):
    node = Node(store, clock, each_second(), make_plan("other", HOURLY)).start()
    with store.read() as connection:
        rows = connection.execute(select(job_set.c.job_id, job_set.c.fingerprint)).all()
    assert dict(map(tuple, rows)) == node.claimer.fingerprints
    Node(store, clock, each_second(), make_plan("other", FIVE)).start()
    with store.read() as connection:
        assert len(connection.execute(select(job_set.c.hash).distinct()).all()) == 2


def test_standing_by_for_nothing_costs_one_statement_each_third_of_a_lease(store, clock):
    node = Node(store, clock, make_plan(schedule=HOURLY)).start()
    pass_time(clock, LEASE_S, node)
    asked = []
    with pytest.MonkeyPatch.context() as patch:
        for name in ("schedulers", "replaced"):
            function = getattr(plan_rows, name)
            patch.setattr(
                plan_rows, name, lambda *a, f=function, n=name: (asked.append(n), f(*a))[1]
            )
        pass_time(clock, LEASE_S, node)
    assert asked == ["schedulers"] * 3


def test_a_start_leaves_alone_what_it_has_written_before(store, clock):
    plans = [each_second(name="second"), make_plan("hour", HOURLY)]
    Node(store, clock, *plans).start()
    Node(store, clock, *plans).start()
    assert written(store) == {"ext:second": 1, "ext:hour": 1}
    Node(store, clock, plans[0], even_seconds(name="hour")).start()
    assert written(store) == {"ext:second": 1, "ext:hour": 2}
    Node(store, clock, plans[0], version="1.1").start()
    assert written(store) == {"ext:second": 2, "ext:hour": 2}


def written(store):
    with store.read() as connection:
        return {row.id: row.revision for row in job_rows.all_rows(connection).values()}


def test_more_jobs_than_one_transaction_takes_are_all_put_in_force(store, clock, monkeypatch):
    monkeypatch.setattr(_claim, "_BATCH", 2)
    names = ["e", "a", "d", "b", "c"]
    node = Node(store, clock, *(each_second(name=name) for name in names)).start()
    pass_time(clock, 2, node)
    assert [len(node.ticks(name)) for name in names] == [2] * 5


ORDERED = [
    *("0.9", "1.0.dev1", "1.0a1.dev2", "1.0a1", "1.0a2", "1.0b1", "1.0rc1", "1.0", "1.0.post1"),
    *("1.0.1", "1.2", "1.10", "2.0", "2.0.post1.dev3", "2.0.post1", "2024.1", "1!0.1"),
]


def test_versions_are_compared_as_pep_440_says():
    pairs = list(itertools.product(ORDERED, repeat=2))
    assert [is_older(*pair) for pair in pairs] == [Version(a) < Version(b) for a, b in pairs]


@pytest.mark.parametrize("other", ["", "unknown", "1.0-final", "v2", "1.0.0", "1.0+local.7"])
def test_equal_and_incomparable_versions_are_not_older(other):
    assert not is_older("1.0", other)
    assert not is_older(other, "1.0")
