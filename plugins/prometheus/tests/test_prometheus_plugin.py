"""What a scraper reads of real runs, of hooks called by hand, and of several processes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import tomllib
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest
from systemprompt_jobs_prometheus import Metrics, _plugin, _series

from plugins.prometheus.tests.support import NODE, NOON, read, run, scrape
from systemprompt_jobs import Report, Runtime, hookimpl
from systemprompt_jobs.model import State

FOLDER = Path(__file__).parents[1]


@pytest.fixture
def metrics():
    return Metrics(CollectorRegistry())


@pytest.fixture
def seen(metrics):
    """Return a function that reads what hooks have moved."""
    return lambda: read(("", generate_latest(metrics._registry)))


def finish(metrics, state=State.SUCCEEDED, **values):
    ended = run(state=state, finished=NOON + timedelta(seconds=3), **values)
    report = Report(state, NOON, NOON + timedelta(seconds=3))
    metrics.run_finished(ended, None if state is State.LOST else report)


# --- a real runtime ---


def test_runs_are_counted_by_job_and_outcome_and_timed(load):
    runtime = load()
    done = runtime.run("works", "fails")
    runtime.run("works")
    runtime.stop()
    page = scrape(runtime)
    assert page.kind == CONTENT_TYPE_LATEST
    assert page.value("runs_total", job_id="jobs:works", outcome="succeeded") == 2
    assert page.value("runs_total", job_id="jobs:fails", outcome="failed") == 1
    assert page.value("run_duration_seconds_count", job_id="jobs:works") == 2
    assert page.value("run_lateness_seconds_count", job_id="jobs:works") is None  # by hand: no tick
    assert page.value("running", job_id="jobs:works") == 0
    failed_at = page.value("last_failure_timestamp_seconds", job_id="jobs:fails")
    assert failed_at == done[1].finished.timestamp()
    assert page.value("last_success_timestamp_seconds", job_id="jobs:fails") is None


def test_after_a_restart_the_last_success_and_failure_are_known_from_the_history(load):
    runtime = load()
    (good,) = runtime.run("starts_up")
    (bad,) = runtime.run("starts_up", parameters={"well": False})
    runtime.stop()
    page = scrape(load())
    label = {"job_id": "jobs:starts_up"}
    assert page.value("last_success_timestamp_seconds", **label) == good.finished.timestamp()
    assert page.value("last_failure_timestamp_seconds", **label) == bad.finished.timestamp()
    assert page.value("runs_total", outcome="failed", **label) is None


def test_a_failure_is_known_after_a_restart_though_a_skipped_run_came_after_it(load):
    runtime = load()
    (bad,) = runtime.run("starts_up", parameters={"well": False})
    runtime.pause("starts_up")
    runtime.stop()
    runtime.start()  # its start-up run is skipped
    runtime.stop()
    page = scrape(load())
    label = {"job_id": "jobs:starts_up"}
    assert page.value("last_failure_timestamp_seconds", **label) == bad.finished.timestamp()


def test_a_renamed_job_keeps_its_last_success(load, project):
    runtime = load()
    (good,) = runtime.run("works")
    runtime.stop()
    jobs = project / "jobs.py"
    renamed = '@job(aliases=["works"])\ndef labours'
    jobs.write_text(jobs.read_text().replace("@job\ndef works", renamed))
    page = scrape(load())
    last = page.value("last_success_timestamp_seconds", job_id="jobs:labours")
    assert last == good.finished.timestamp()


def test_a_success_of_another_process_is_seen_and_an_older_one_changes_nothing(load):
    metrics = Metrics()
    here, elsewhere = load(metrics), load()
    here.run("works")
    here.stop()
    (later,) = elsewhere.run("works")
    elsewhere.stop()
    label = {"job_id": "jobs:works"}
    newest = later.finished.timestamp()
    assert scrape(here).value("last_success_timestamp_seconds", **label) == newest
    finish(metrics, job_id="jobs:works")
    page = scrape(here)
    assert page.value("last_success_timestamp_seconds", **label) == newest
    assert page.value("runs_total", outcome="succeeded", **label) == 2


def test_a_paused_job_shows_and_what_it_skips_is_counted_by_reason(load):
    runtime = load()
    runtime.pause("starts_up")
    with runtime:
        live = scrape(runtime)
    page = scrape(runtime)
    assert page.value("ticks_skipped_total", job_id="jobs:starts_up", reason="paused") == 1
    assert page.value("paused", job_id="jobs:starts_up") == 1
    assert page.value("next_tick_timestamp_seconds", job_id="jobs:starts_up") is None
    assert (live.value("ready"), live.value("nodes"), live.value("strays")) == (1, 1, 0)
    assert (page.value("ready"), page.value("nodes")) == (0, 0)


def test_every_missed_tick_counts_and_the_next_one_is_told(load):
    with load(now=NOON):
        pass
    runtime = load(now=NOON + timedelta(hours=4))
    with runtime:
        pass
    page = scrape(runtime)
    assert page.value("ticks_missed_total", job_id="jobs:hourly") == 3
    assert page.value("ticks_claimed_total", job_id="jobs:hourly") == 1
    then = NOON.replace(hour=17, minute=0, second=0)
    assert page.value("next_tick_timestamp_seconds", job_id="jobs:hourly") == then.timestamp()


def test_on_postgresql_the_clocks_offset_and_the_history_are_on_the_page(load, postgresql):
    runtime = load(SYSTEMPROMPT_JOBS__DATABASE=postgresql)
    with runtime:
        (bad,) = runtime.run("fails")
        page = scrape(runtime)
    assert abs(page.value("clock_offset_seconds")) < 60
    assert page.value("nodes") == 1
    failed_at = page.value("last_failure_timestamp_seconds", job_id="jobs:fails")
    assert failed_at == bad.finished.timestamp()


def test_a_database_that_cannot_be_read_leaves_the_rest_of_the_page_whole(load, project):
    (project / "var").mkdir(exist_ok=True)
    runtime = load()
    Path(runtime.settings.database.removeprefix("sqlite:///")).write_text("no database " * 999)
    page = scrape(runtime)
    assert page.value("ready") == 0
    assert page.value("plugin_errors_total") == 0
    assert page.value("nodes") is None


def test_other_paths_are_left_to_other_plugins(load):
    assert load().page("/metrics/") is None


# --- what runs ---


def test_running_counts_what_this_process_has_started_and_not_ended(metrics, seen):
    metrics.run_started(run(1))
    metrics.run_started(run(2))
    metrics.run_started(run(3))
    metrics.run_started(run(1))  # told twice
    assert seen().value("running", job_id="ext:job") == 3
    finish(metrics, State.LOST, id_=1, node="there:9:cd")  # the run of another scheduler
    assert seen().value("running", job_id="ext:job") == 3
    finish(metrics, id_=1)
    metrics.run_fenced(run(2))
    failed, lost = (Report(state, NOON, NOON) for state in (State.FAILED, State.LOST))
    metrics.run_retrying(run(3, state=State.PENDING, node=""), lost)  # that of another scheduler
    assert seen().value("running", job_id="ext:job") == 1
    metrics.run_retrying(run(3, state=State.PENDING, node=""), failed)
    assert seen().value("running", job_id="ext:job") == 0
    assert seen().value("runs_fenced_total", job_id="ext:job") == 1
    assert seen().value("runs_retried_total", job_id="ext:job") == 2


def test_a_scheduler_that_stopped_runs_nothing_even_if_no_end_was_recorded(metrics, seen):
    metrics.run_started(run(1))
    metrics.run_started(run(1, node="here:1:other"))
    metrics.scheduler_stopped(NODE)
    assert seen().value("running", job_id="ext:job") == 1


def test_lateness_is_that_of_first_attempts_of_ticks(metrics, seen):
    late = run(started=NOON + timedelta(seconds=2))
    metrics.run_started(late)
    metrics.run_started(replace(late, id=2, attempt=2))
    metrics.run_started(replace(late, id=3, tick=None))
    metrics.run_started(replace(late, id=4, started=NOON - timedelta(seconds=1)))
    page = seen()
    assert page.value("run_lateness_seconds_count", job_id="ext:job") == 2
    assert page.value("run_lateness_seconds_sum", job_id="ext:job") == 2
    assert page.value("run_lateness_seconds_bucket", job_id="ext:job", le="1.0") == 1


def test_a_run_cancelled_before_it_began_counts_once_as_does_one_cut_off(metrics, seen):
    metrics.run_cancelled(run(1, state=State.CANCELLED, attempt=0))
    cut = run(2, state=State.CANCELLED)
    metrics.run_cancelled(cut)
    finish(metrics, State.CANCELLED, id_=2)
    assert seen().value("runs_total", job_id="ext:job", outcome="cancelled") == 2


def test_lost_runs_are_failures_and_rescued_ones_are_not(metrics, seen):
    finish(metrics, State.LOST)
    metrics.run_rescued(run(2))
    page = seen()
    assert page.value("runs_total", job_id="ext:job", outcome="lost") == 1
    assert page.value("last_failure_timestamp_seconds", job_id="ext:job") == NOON.timestamp() + 3
    assert page.value("runs_rescued_total", job_id="ext:job") == 1
    assert page.value("run_duration_seconds_count", job_id="ext:job") is None


def test_a_stretch_counts_each_of_its_ticks(metrics, seen):
    metrics.tick_missed(run(count=40))
    metrics.tick_skipped(run(count=7, reason="paused"))
    assert seen().value("ticks_missed_total", job_id="ext:job") == 40
    assert seen().value("ticks_skipped_total", job_id="ext:job", reason="paused") == 7


# --- the database, plugins, history ---


def test_an_outage_is_shown_while_it_lasts_and_the_database_is_not_asked(load):
    metrics = Metrics()
    runtime = load(metrics)
    runtime.run("works")
    metrics.database_unavailable()
    page = scrape(runtime)
    assert page.value("database_unavailable") == 1
    assert page.value("database_look_seconds") is None
    metrics.database_recovered(timedelta(seconds=90))
    page = scrape(runtime)
    assert page.value("database_unavailable") == 0
    assert page.value("database_look_seconds") > 0
    assert page.value("database_outages_total") == 1
    assert page.value("database_outage_seconds_total") == 90


def test_a_scheduler_that_starts_again_has_its_database(metrics, seen):
    metrics.database_unavailable()
    metrics.scheduler_started()
    assert seen().value("database_unavailable") == 0


def test_pruned_rows_and_plugin_errors_are_counted(metrics, seen):
    metrics.history_pruned(5, 1, 0)
    metrics.history_pruned(2, 0, 0)
    metrics.plugin_failed()
    assert seen().value("pruned_rows_total", kind="runs") == 7
    assert seen().value("pruned_rows_total", kind="nodes") == 1
    assert seen().value("plugin_errors_total") == 1


# --- what waits ---


def test_what_waits_and_since_when_is_told_also_of_what_other_schedulers_do(load):
    runtime = load()
    (first, _) = [*runtime.submit("works"), *runtime.submit("works")]
    page = scrape(load())
    assert page.value("waiting", job_id="jobs:works", state="pending") == 2
    since = page.value("waiting_since_timestamp_seconds", job_id="jobs:works")
    assert since == first.due.timestamp()
    assert page.value("leases", state="held") == page.value("leases", state="expired") == 0


class Stuck:
    """A plugin whose observer does not return until it may."""

    def __init__(self):
        self.begun, self.free = threading.Event(), threading.Event()

    @hookimpl
    def run_started(self):
        self.begun.set()
        self.free.wait(30)


def test_a_plugin_that_holds_the_observers_up_is_seen_while_it_does(project):
    stuck = Stuck()
    runtime = Runtime(project, plugins=[Metrics(), stuck], environ={"SYSTEMPROMPT_PLUGINS": ""})
    try:
        runtime.run("works")
        assert stuck.begun.wait(30)
        page = scrape(runtime)
        assert page.value("observers_busy_seconds") > 0
        assert page.value("observers_waiting") >= 1
        assert page.value("observers_dropped_total") == 0
    finally:
        stuck.free.set()
        runtime.stop()
    assert scrape(runtime).value("observers_busy_seconds") == 0


# --- how much there may be ---


def test_jobs_beyond_the_limit_share_a_label_and_have_no_last_success(seen, metrics):
    metrics._max_jobs = 2
    for number in range(5):
        finish(metrics, id_=number, job_id=f"ext:job{number}")
    finish(metrics, id_=9, job_id="ext:job0")
    page = seen()
    assert page.labels("runs_total", "job_id") == {"ext:job0", "ext:job1", "other"}
    assert page.value("runs_total", job_id="other", outcome="succeeded") == 3
    assert page.value("runs_total", job_id="ext:job0", outcome="succeeded") == 2
    assert page.labels("last_success_timestamp_seconds", "job_id") == {"ext:job0", "ext:job1"}


def test_what_is_asked_of_the_database_keeps_the_limit_too(load):
    runtime = load(Metrics(max_jobs=1))
    runtime.run("works")
    runtime.run("fails")
    runtime.stop()
    page = scrape(runtime)
    for name in ("runs_total", "next_tick_timestamp_seconds", "last_success_timestamp_seconds"):
        assert page.labels(name, "job_id") <= {"jobs:works", "other"}
    assert page.value("next_tick_timestamp_seconds", job_id="other") > 0


# --- settings ---


def installed(project):
    return Runtime(project, environ={"SYSTEMPROMPT_PLUGINS": "prometheus"})


def test_installed_it_is_loaded_by_itself_and_imports_nothing_heavy_until_needed(project):
    code = (
        "import sys; from systemprompt_jobs import Runtime\n"
        f"r = Runtime({str(project)!r}, environ={{'SYSTEMPROMPT_PLUGINS': 'prometheus'}})\n"
        "assert 'prometheus_client' not in sys.modules\n"
        "assert b'systemprompt_jobs_ready' in r.page('/metrics')[1]"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_the_limit_can_be_set(monkeypatch, seen):
    monkeypatch.setenv(_plugin.MAX_JOBS, "1")
    metrics = Metrics(CollectorRegistry())
    for job_id in ("a:a", "b:b"):
        finish(metrics, job_id=job_id)
    page = read(("", generate_latest(metrics._registry)))
    assert page.labels("runs_total", "job_id") == {"a:a", "other"}


@pytest.mark.parametrize(
    ("variable", "value"),
    [(_plugin.MAX_JOBS, "many"), (_plugin.MAX_JOBS, "-1"), (_plugin.WHICH_REGISTRY, "mine")],
)
def test_a_setting_that_makes_no_sense_degrades_the_plugin_and_is_named(
    project, monkeypatch, variable, value
):
    monkeypatch.setenv(variable, value)
    (problem,) = installed(project).degraded
    assert problem.culprit == "prometheus"
    assert f"{variable}={value!r}: write " in problem.reason


def test_the_global_registry_can_be_used_and_shared_by_runtimes(load, monkeypatch):
    monkeypatch.setattr(_series, "_shared", {})
    monkeypatch.setenv(_plugin.WHICH_REGISTRY, "global")
    before = set(REGISTRY._collector_to_names)
    try:
        for _ in range(2):
            runtime = load()
            runtime.run("works")
            runtime.stop()
        page = read(("", generate_latest()))
        assert page.value("runs_total", job_id="jobs:works", outcome="succeeded") == 2
        assert "python_info" in scrape(runtime).families
    finally:
        for collector in set(REGISTRY._collector_to_names) - before:
            REGISTRY.unregister(collector)


def test_each_runtime_has_metrics_of_its_own_by_default(load):
    first, second = load(), load()
    first.run("works")
    first.stop()
    assert scrape(second).value("runs_total", job_id="jobs:works", outcome="succeeded") is None


# --- several processes ---

WORK = """
import os, pathlib, sys
from systemprompt_jobs import Runtime, Run
from systemprompt_jobs.model import Node, State, Trigger

runtime = Runtime(sys.argv[1], environ={"SYSTEMPROMPT_PLUGINS": "prometheus"})
hook = runtime._manager.hook
if sys.argv[2] == "die":
    run = Run(1, "jobs:works", Trigger.MANUAL, State.RUNNING, attempt=1, node="n")
    hook.run_started(run=run)
    print(os.getpid(), flush=True)
    os._exit(9)
if sys.argv[2] == "work":
    runtime.run("works")
    runtime.stop()
if sys.argv[2] == "bury":
    hook.node_left(node=Node("n", sys.argv[4], int(sys.argv[3]), "", ""))
pathlib.Path("page").write_bytes(runtime.page("/metrics")[1])
"""


def test_in_multi_process_mode_one_page_is_that_of_all_processes(project, tmp_path):
    shared = tmp_path / "shared"
    shared.mkdir()
    environ = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(shared)}

    def process(*arguments):
        command = [sys.executable, "-c", WORK, str(project), *arguments]
        return subprocess.run(
            command, env=environ, cwd=tmp_path, stdout=subprocess.PIPE, timeout=60, check=False
        ).stdout

    def page_of(*arguments):
        page = tmp_path / "page"
        page.unlink(missing_ok=True)
        process(*arguments)
        return read(("", page.read_bytes()))

    page_of("work")
    dead = process("die").split()[-1].decode()
    page = page_of("work")
    label = {"job_id": "jobs:works"}
    assert page.value("runs_total", outcome="succeeded", **label) == 2
    assert page.value("running", **label) == 1
    last = page.value("last_success_timestamp_seconds", **label)
    assert page_of("bury", dead, "another.host").value("running", **label) == 1
    page = page_of("bury", dead, socket.gethostname())
    assert page.value("running", **label) in {0, None}
    assert page.value("runs_total", outcome="succeeded", **label) == 2
    assert page.value("last_success_timestamp_seconds", **label) == last


def test_the_entry_points_name_the_plugin_and_its_command():
    points = tomllib.loads((FOLDER / "pyproject.toml").read_text())["project"]["entry-points"]
    assert points["systemprompt_jobs"] == {"prometheus": "systemprompt_jobs_prometheus:Metrics"}
    assert list(points["systemprompt_jobs.commands"]) == ["prometheus"]
