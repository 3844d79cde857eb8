"""Missed ticks run after all, each covered by one row before and after, however many ask at once."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest
from sqlalchemy import select

from systemprompt_jobs._backfill import Wanted, backfill, choose, preview
from systemprompt_jobs._calendar import cron
from systemprompt_jobs._rows import job_row, run_values
from systemprompt_jobs._store import control as control_rows
from systemprompt_jobs._store import jobs as job_rows
from systemprompt_jobs._store import pending as pending_rows
from systemprompt_jobs._store import runs as run_rows
from systemprompt_jobs._store.backfills import Cover
from systemprompt_jobs._store.schema import audit as audit_table
from systemprompt_jobs._store.schema import job as job_table
from systemprompt_jobs._store.schema import micros
from systemprompt_jobs._store.schema import run as run_table
from systemprompt_jobs.errors import UsageError
from systemprompt_jobs.model import Overlap, State, Trigger
from tests.faults.checker import check, read_rows
from tests.support import START, ManualClock, job_set, make_plan
from tests.test_retrying import Rig

MINUTELY = "0 * * * * *"
MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)
NOW = START + timedelta(hours=1)


def minute(number):
    return START + number * MINUTE


class Site:
    """A database with the history of one job, each minute since START, and an operator."""

    def __init__(self, store, *rows, plan=None):
        self.store = store
        self.clock = ManualClock(NOW)
        self.plan = plan or make_plan(schedule=MINUTELY)
        with store.write() as connection:
            job_rows.add_missing(connection, [job_row(self.plan, "node")])
            last = max((row[1] for row in rows), default=0)
            job_rows.advance(connection, [(minute(last + 1), minute(last), self.plan.id)])
            for row in rows:
                self._add(connection, *row)

    def _add(self, connection, first, last, state):
        values = run_values(self.plan, f"t:{micros(minute(first))}", Trigger.SCHEDULE, minute(last))
        stretch = {"last_tick": minute(last), "count": last - first + 1} if last > first else {}
        own = {"state": state, "tick_at": minute(first), "finished": minute(last), "node": "n"}
        run_rows.add(connection, [values | own | stretch])

    def wanted(self, start=0, end=60, limit=100, ids=None):
        return Wanted(self.plan, ids or [self.plan.id], minute(start), minute(end), limit)

    def backfill(self, *window, who="ada", retention=DAY, **wanted):
        asked = self.wanted(*window, **wanted)
        return backfill(self.store, self.clock, asked, retention, who)

    def preview(self, *window, retention=DAY, **wanted):
        return preview(self.store, self.clock, self.wanted(*window, **wanted), retention)

    def rows(self):
        """Return (state, first tick, number of ticks), by the tick, in minutes from START."""
        ticks = run_table.c.tick_at
        statement = select(run_table).where(ticks.is_not(None)).order_by(ticks)
        with self.store.read() as connection:
            found = connection.execute(statement).all()
        return [(row.state, (row.tick_at - START) // MINUTE, row.count) for row in found]

    def is_sound(self, until):
        """Return whether each tick is in one row, as somebody says who knows nothing of this."""
        url = self.store.url.render_as_string(hide_password=False)
        jobs = {self.plan.id: MINUTELY}
        since, last = micros(START), micros(minute(until))
        found = check(jobs, read_rows(url), [], since=since, until=last)
        return {v.invariant for v in found} <= {"I4", "I5"}  # nobody starts anything here


@pytest.mark.parametrize(
    ("window", "left"),
    [
        ((4, 6), [(1, 3), (7, 4)]),
        ((0, 3), [(4, 7)]),
        ((9, 60), [(1, 8)]),
        ((0, 60), []),
        ((5, 5), [(1, 4), (6, 5)]),
    ],
)
def test_a_missed_stretch_is_split_around_the_ticks_that_run(store, window, left):
    site = Site(store, (1, 10, "missed"), (11, 11, "succeeded"))
    done = site.backfill(*window)
    rows = site.rows()
    assert [(first, number) for state, first, number in rows if state == "missed"] == left
    pending = [minute(first) for state, first, _ in rows if state == "pending"]
    assert pending == list(done.ticks) == [run.tick for run in done.runs]
    assert site.is_sound(until=11)


def test_what_ran_or_was_skipped_or_paused_stays_as_it_was(store):
    rows = [(1, 1, "succeeded"), (2, 4, "skipped"), (5, 5, "failed"), (6, 6, "missed")]
    site = Site(store, *rows, (7, 7, "running"))
    assert [run.tick for run in site.backfill(1).runs] == [minute(6)]
    assert site.rows()[:4] == [
        ("succeeded", 1, 1), ("skipped", 2, 3), ("failed", 5, 1), ("pending", 6, 1),
    ]  # fmt: skip


def test_ticks_that_no_row_covers_run_too(store):
    site = Site(store, (1, 2, "missed"), (5, 5, "succeeded"))
    assert [run.tick for run in site.backfill(1).runs] == [minute(n) for n in (1, 2, 3, 4)]
    assert site.is_sound(until=5)


def test_nothing_after_the_newest_settled_tick_is_touched(store):
    site = Site(store, (1, 3, "missed"))
    done = site.backfill(1, 30)
    assert (done.end, done.ticks[-1]) == (minute(3), minute(3))


def test_nothing_older_than_the_retention_is_touched(store):
    site = Site(store, (1, 30, "missed"))
    done = site.backfill(retention=40 * MINUTE)
    assert (done.start, done.ticks[0]) == (minute(20), minute(20))
    assert site.is_sound(until=30)


def test_a_limit_takes_the_oldest_and_the_next_time_goes_on(store):
    site = Site(store, (1, 10, "missed"))
    first = site.backfill(1, limit=4)
    assert (first.ticks, first.more) == (tuple(map(minute, (1, 2, 3, 4))), True)
    second = site.backfill(1, limit=6)
    assert (second.ticks[0], second.ticks[-1], second.more) == (minute(5), minute(10), False)
    assert site.backfill(1).runs == ()
    assert site.is_sound(until=10)


def test_a_preview_says_what_would_run_and_changes_nothing(store):
    site = Site(store, (1, 10, "missed"))
    said = site.preview(3, 5)
    assert (said.ticks, said.runs) == (tuple(map(minute, (3, 4, 5))), ())
    assert site.rows() == [("missed", 1, 10)]
    assert site.backfill(3, 5).ticks == said.ticks


def test_who_asked_is_recorded_and_nothing_where_nothing_was_found(store):
    site = Site(store, (1, 10, "missed"))
    for _ in range(2):
        site.backfill(3, 5)
    with store.read() as connection:
        (row,) = connection.execute(select(audit_table)).all()
    assert (row.who, row.action, row.subject) == ("ada", "backfill", "ext:cleanup")
    assert row.note.startswith("3 ticks from 2026-03-02T10:03:00")


def test_two_operators_at_once_make_up_each_tick_once(store):
    site = Site(store, (1, 200, "missed"))
    site.clock = ManualClock(minute(300))
    meet, done = threading.Barrier(2), []

    def ask():
        meet.wait()
        done.append(site.backfill(1, 150, limit=100))

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ticks = sorted(tick for one in done for tick in one.ticks)
    assert ticks == [minute(n) for n in range(1, 151)]
    assert site.rows()[-1] == ("missed", 151, 50)
    assert site.is_sound(until=200)


def test_a_stretch_that_another_schedule_has_counted_is_left_alone(store):
    site = Site(store, (1, 10, "missed"))
    with store.write() as connection:
        connection.execute(run_table.update().values(count=600))
    done = site.backfill(1)
    assert (done.runs, done.strange) == ((), 600)
    assert site.rows() == [("missed", 1, 600)]


def test_a_row_of_a_former_name_covers_its_ticks(store):
    site = Site(store, (1, 3, "missed"), (4, 4, "succeeded"))
    with store.write() as connection:
        connection.execute(run_table.update().values(job_id="ext:tidy"))
    done = site.backfill(1, ids=["ext:cleanup", "ext:tidy"])
    assert [run.tick for run in done.runs] == [minute(1), minute(2), minute(3)]
    assert site.rows()[-1] == ("succeeded", 4, 1)


def test_a_row_that_a_clock_reset_has_disowned_covers_nothing(store):
    site = Site(store, (1, 1, "succeeded"))
    with store.write() as connection:
        control_rows.disown(connection, [1])
    assert site.backfill(1).ticks == (minute(1),)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"last_tick": None}, "no tick of ext:cleanup has been due yet"),
        ({"schedule": "0 0 * * * *"}, "the schedulers follow another plan .* `reload`"),
        ({"paused_at": START}, "is paused, and its ticks would be skipped: `resume`"),
    ],
)
def test_a_job_whose_ticks_cannot_run_is_refused_and_nothing_changes(store, change, said):
    site = Site(store, (1, 10, "missed"))
    with store.write() as connection:
        connection.execute(job_table.update().values(change))
    for ask in (site.preview, site.backfill):
        with pytest.raises(UsageError, match=said):
            ask()
    assert site.rows() == [("missed", 1, 10)]


def test_where_runs_must_not_overlap_they_run_one_after_the_other_oldest_first(store):
    plan = make_plan(schedule=MINUTELY, overlap=Overlap.SKIP)
    site = Site(store, (1, 4, "missed"), plan=plan)
    site.backfill(1)
    rig = Rig(store, plan, clock=site.clock)
    for number in (1, 2, 3, 4):
        rig.take()
        rig.take()  # the one that runs is in the way
        run = rig.started[-1]
        assert (len(rig.started), run.tick) == (number, minute(number))
        rig.finish(run)
    assert site.rows() == [("succeeded", n, 1) for n in (1, 2, 3, 4)]


def test_one_that_meets_a_run_at_the_gate_waits_and_is_not_skipped(store):
    plan = make_plan(schedule=MINUTELY, overlap=Overlap.SKIP)
    site = Site(store, (1, 1, "missed"), plan=plan)
    site.backfill(1)
    rig = Rig(store, plan, clock=site.clock)
    with store.write() as connection:  # claimed before the other one started
        claimed = pending_rows.take_pending(
            *(
                connection,
                job_set(connection, [plan.id]),
                {plan.id: "default"},
                rig.claimer._node.id,
            ),
            *(site.clock.now(), 0, {"default": 9}),
        )
    other = rig.hold(Trigger.MANUAL)
    rig.recorder.offer(claimed)
    rig.recorder.step()
    assert site.rows()[0] == ("pending", 1, 1)
    rig.finish(other)
    rig.take()
    assert rig.started[-1].tick == minute(1)


def test_where_runs_may_overlap_they_run_together(store):
    plan = make_plan(schedule=MINUTELY, overlap=Overlap.ALLOW)
    site = Site(store, (1, 4, "missed"), plan=plan)
    site.backfill(1)
    rig = Rig(store, plan, clock=site.clock)
    rig.take()
    assert [run.tick for run in rig.started] == [minute(n) for n in (1, 2, 3, 4)]


def test_what_nobody_takes_in_time_is_missed_again_and_can_be_made_up_again(store):
    site = Site(store, (1, 2, "missed"))
    site.backfill(1)
    with store.write() as connection:
        pending_rows.give_up_pending(connection, NOW + 2 * DAY)
    assert site.rows() == [("missed", 1, 1), ("missed", 2, 1)]
    assert site.backfill(1).ticks == (minute(1), minute(2))
    assert site.is_sound(until=2)


def test_a_long_stretch_of_what_ran_is_not_walked():
    second = timedelta(seconds=1)
    year = Cover(1, START, START + 365 * DAY, 365 * 86400 + 1, State.SKIPPED)
    found = choose(cron("* * * * * *"), START, START + 365 * DAY + second, [year], 10)
    assert found.ticks == [START + 365 * DAY + second]
