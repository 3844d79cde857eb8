"""Runs by hand for a running scheduler, and runs that are run once more."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select, update

from systemprompt_jobs import Runtime
from systemprompt_jobs._store.schema import audit
from systemprompt_jobs._store.schema import run as run_table
from systemprompt_jobs.errors import ParameterError, UnknownJobError, UsageError
from systemprompt_jobs.model import State, Trigger
from tests.support import START, before_statements
from tests.test_runtime import Watch

JOBS = """
from systemprompt_jobs import job

@job
def add(ctx, *, n: int = 1):
    if n < 0:
        raise ValueError("too few")
    ctx.log.info("adding", n=n)
    return f"n={n} enforce={ctx.enforce}"

@job(schedule="not a schedule")
def broken(): ...
"""


@pytest.fixture
def load(tmp_path):
    made = []

    def load(jobs=JOBS, plugins=(), workers=8):
        (tmp_path / "jobs.py").write_text(jobs)
        (tmp_path / "jobs.py").chmod(0o644)
        (tmp_path / "profile.yaml").write_text(
            f"scheduler: {{local_plugins: [jobs.py], workers: {workers}}}\n"
        )
        made.append(Runtime(tmp_path, plugins=plugins, environ={"SYSTEMPROMPT_PLUGINS": ""}))
        return made[-1]

    yield load
    for runtime in made:
        runtime.stop()


def audited(runtime):
    with runtime._store.read() as connection:
        rows = connection.execute(select(audit.c.who, audit.c.action, audit.c.subject))
        return [tuple(row) for row in rows]


def test_many_runs_need_no_more_statements_than_two(load):
    runtime = load()
    runtime.submit("add")
    told = []
    before_statements(runtime._store, told.append)
    needed = []
    for many in (20, 200):
        told.clear()
        runtime.submit(*["add"] * many, who="ada")
        needed.append(len(told))
    assert audited(runtime)[1:] == [("ada", "run", "jobs:add")] * 220
    assert needed[0] == needed[1]


def test_a_run_is_handed_to_the_scheduler_that_has_the_job(load):
    (run,) = load().submit("add", parameters={"n": 5}, enforce=True, who="ada")
    assert (run.state, run.trigger, run.node) == (State.PENDING, Trigger.MANUAL, "")
    watch = Watch()
    with load(plugins=[watch]) as scheduler:
        done = watch.until("run_succeeded").run
        assert (done.id, done.message) == (run.id, "n=5 enforce=True")
        assert audited(scheduler) == [("ada", "run", "jobs:add")]


WAITING = """
import threading
from systemprompt_jobs import job

began, release = threading.Event(), threading.Event()

@job(max_attempts=2, retry_delay="1h")
def fails(): raise OSError("no")

@job(max_attempts=2)
def waits():
    began.set()
    release.wait(30)
"""


def test_what_was_handed_to_a_scheduler_that_stops_is_left_to_others(load):
    load(WAITING).submit("fails", "waits", "waits")
    scheduler = load(WAITING, workers=1)
    scheduler.start()
    assert scheduler.find("waits").job.function.__globals__["began"].wait(30)
    scheduler.stop(timedelta(0))
    runs = load(WAITING).history()
    assert {run.state for run in runs} == {State.PENDING}
    assert sorted(run.attempt for run in runs if run.job == "waits") == [0, 1]
    assert [run.attempt for run in runs if run.job == "fails"] == [1]


@pytest.mark.parametrize(
    ("names", "parameters", "error"),
    [
        (("add", "nosuch"), {}, UnknownJobError),
        (("add", "broken"), {}, UsageError),
        (("add",), {"n": "x"}, ParameterError),
    ],
)
def test_nothing_is_handed_over_where_something_is_wrong(load, names, parameters, error):
    runtime = load()
    with pytest.raises(error):
        runtime.submit(*names, parameters=parameters)
    assert runtime.history() == []


def test_it_tells_which_live_schedulers_have_a_job(load):
    runtime = load()
    assert runtime.schedulers("jobs:add") == []
    with load():
        (node,) = runtime.schedulers("jobs:add")
        assert runtime.schedulers() == [node]
        assert runtime.schedulers("jobs:broken") == []  # degraded there
    assert runtime.schedulers() == []


def test_a_run_is_run_once_more_with_its_parameters_as_a_new_one(load):
    runtime = load()
    (first,) = runtime.run("add", parameters={"n": -1}, enforce=True)
    again = runtime.retry(first.id, who="ada")
    assert (again.state, again.error) == (State.FAILED, "ValueError: too few")
    assert (again.parent, dict(again.parameters), again.enforce) == (first.id, {"n": -1}, True)
    assert runtime.find_run(again.id).parent == first.id
    assert audited(runtime)[-1] == ("ada", "retry", "jobs:add")


def test_a_run_once_more_is_told_the_tick_of_the_old_one_and_stays_one_by_hand(load):
    runtime = load()
    midnight = datetime(2026, 3, 2, tzinfo=UTC)
    (first,) = runtime.run("add", at=midnight)
    again = runtime.retry(first.id)
    assert (again.tick, again.trigger, again.parent) == (midnight, Trigger.MANUAL, first.id)
    assert runtime.retry(again.id, detach=True).tick == midnight


def test_of_a_stretch_of_ticks_the_last_is_run_once_more(load):
    runtime = load()
    (run,) = runtime.run("add")
    stretch = {"state": "missed", "tick_at": START, "last_tick": START + timedelta(hours=3)}
    with runtime._store.write() as connection:
        connection.execute(update(run_table).where(run_table.c.id == run.id).values(stretch))
    assert runtime.retry(run.id).tick == START + timedelta(hours=3)


def test_one_that_has_not_ended_is_not_run_once_more(load):
    runtime = load()
    (run,) = runtime.submit("add")
    with pytest.raises(UsageError, match=f"run {run.id} of jobs:add is pending"):
        runtime.retry(run.id)


def test_one_that_never_was_is_named(load):
    runtime = load()
    with pytest.raises(UsageError, match="there is no run 7"):
        runtime.retry(7)
    runtime.run("add")
    with pytest.raises(UsageError, match="there is no run 7"):
        runtime.find_run(7)


def test_a_run_whose_job_is_gone_cannot_be_run(load):
    (run,) = load().run("add")
    with pytest.raises(UnknownJobError):
        load(JOBS.replace("def add", "def other")).retry(run.id)


def test_each_attempt_shows_what_it_logged_and_how_much_is_not_kept(load):
    jobs = JOBS.replace(
        "ctx.log.info(", "[ctx.log.info('x' * 8000) for _ in range(9)]\n    ctx.log.info("
    )
    runtime = load(jobs)
    (run,) = runtime.run("add", parameters={"n": 4})
    (attempt,) = runtime.attempts(run)
    assert attempt.log.endswith("adding n=4")
    assert (attempt.log_cut, len(attempt.log.split("\n"))) == (1, 9)
    assert (attempt.outcome, attempt.message) == (State.SUCCEEDED, "n=4 enforce=False")
