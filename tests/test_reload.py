"""A running scheduler goes on by changed files; a broken file changes nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from systemprompt_jobs import Runtime
from systemprompt_jobs._calendar import parse
from systemprompt_jobs._claim import Claimer
from systemprompt_jobs._node import new_node
from systemprompt_jobs._store import queries
from systemprompt_jobs._store.control import RELOAD, changed_after, newest_audit
from systemprompt_jobs.errors import StoreError
from systemprompt_jobs.model import State
from tests.cli.conftest import CONFIG, make_project
from tests.support import START, ManualClock, make_plan


@pytest.fixture
def runtime(tmp_path):
    made = Runtime(make_project(tmp_path / "project"))
    yield made
    made.stop()


def write(runtime, text):
    (runtime.project.root / "services/scheduler/config.yaml").write_text(text)


HOURLY = CONFIG.replace("enabled: true}", 'enabled: true, schedule: "0 0 * * * *"}')


def test_a_changed_schedule_is_the_plan_from_then_on(runtime):
    write(runtime, HOURLY)
    assert runtime.reload() == ()
    assert runtime.find("greet").schedule.text == "0 0 * * * *"


def test_a_broken_file_is_refused_as_a_whole_and_shown_until_it_is_mended(runtime):
    plans = runtime.plans
    write(runtime, HOURLY + "  workers: many\n")
    (problem,) = runtime.reload()
    assert problem.culprit == "scheduler.workers"
    assert runtime.plans is plans
    assert runtime.degraded == (problem,)
    write(runtime, HOURLY)
    assert runtime.reload() == ()
    assert runtime.degraded == ()


def test_what_belongs_to_a_start_stays_as_it_is(runtime):
    write(runtime, HOURLY + "  workers: 3\n  timezone: Europe/Berlin\n")
    assert runtime.reload() == ()
    assert (runtime.settings.workers, runtime.settings.timezone) == (10, "Europe/Berlin")
    assert runtime.find("greet").timezone == "Europe/Berlin"


def test_a_job_cannot_move_to_an_executor_that_is_not_at_work(runtime):
    runtime.start()
    write(runtime, CONFIG.replace("enabled: true}", "enabled: true, executor: processes}"))
    (problem,) = runtime.reload()
    assert problem.culprit == "jobs:greet"
    assert "'processes' is not at work" in problem.reason
    assert problem.place.line == 5
    assert runtime.find("greet").executor == "default"
    (run,) = runtime.run("greet")
    assert run.state is State.SUCCEEDED


def test_a_job_that_a_reload_mends_can_be_run_before_its_plan_is_in_force(runtime, monkeypatch):
    def away(*_arguments):
        raise StoreError("not now")

    source = runtime.project.root / "jobs.py"
    source.write_text(f'{source.read_text()}\n\n@job(executor="nowhere")\ndef lost(): ...\n')
    runtime = Runtime(runtime.project.root)
    assert [problem.culprit for problem in runtime.degraded] == ["jobs:lost"]
    with runtime:
        monkeypatch.setattr(Claimer, "reload", away)
        write(runtime, CONFIG + "    - {extension: jobs, job: lost, executor: default}\n")
        assert runtime.reload() == ()
        (run,) = runtime.run("lost")
    assert run.state is State.SUCCEEDED


class Scheduler:
    """A claimer without its thread."""

    def __init__(self, store, plan):
        self.clock = ManualClock()
        self.store = store
        self.claimer = Claimer(
            *(store, [plan], new_node(), self.clock, lambda: 0, lambda _: None, print),
            room=lambda: {"default": 10},
            lease_s=30.0,
        )
        self.claimer.install(parse)

    def rows(self):
        with self.store.read() as connection:
            found = queries.history(connection)
        return [(r.state, (r.tick - START).total_seconds(), r.count) for r in reversed(found)]


def test_ticks_of_the_old_schedule_are_settled_by_it_and_the_new_one_begins_from_then(store):
    scheduler = Scheduler(store, make_plan(schedule="*/10 * * * * *"))
    scheduler.clock.advance(35)
    scheduler.claimer.reload([make_plan(schedule="0 * * * * *")])
    assert scheduler.rows() == [(State.MISSED, 10, 2), (State.CLAIMED, 30, 1)]
    scheduler.clock.advance(25)
    scheduler.claimer.step()
    assert scheduler.rows()[2:] == [(State.CLAIMED, 60, 1)]


def test_a_job_that_is_switched_off_has_no_more_ticks_and_goes_on_when_it_is_switched_on(store):
    plan = make_plan(schedule="*/10 * * * * *")
    scheduler = Scheduler(store, plan)
    scheduler.claimer.reload([replace(plan, enabled=False)])
    scheduler.clock.advance(60)
    scheduler.claimer.step()
    assert scheduler.rows() == []
    scheduler.claimer.reload([plan])
    scheduler.clock.advance(10)
    scheduler.claimer.step()
    assert scheduler.rows() == [(State.CLAIMED, 70, 1)]


def test_the_same_plan_changes_nothing(store):
    plan = make_plan(schedule="*/10 * * * * *")
    scheduler = Scheduler(store, plan)
    scheduler.clock.advance(10)
    scheduler.claimer.reload([plan])
    assert scheduler.rows() == []
    scheduler.claimer.step()
    assert scheduler.rows() == [(State.CLAIMED, 10, 1)]


def test_to_ask_for_a_reload_leaves_an_audit_row_that_schedulers_notice(runtime):
    runtime.upgrade()
    with runtime._store.read() as connection:
        seen = newest_audit(connection)
    runtime.ask_reload(note="new hours", who="ann")
    with runtime._store.read() as connection:
        assert changed_after(connection, seen)[1:] == (set(), True)
    (entry,) = runtime.audit(limit=1)
    assert (entry.who, entry.action, entry.note) == ("ann", RELOAD, "new hours")
