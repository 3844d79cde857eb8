"""A whole runtime in this process: real files, threads and database; no time is waited for."""

from __future__ import annotations

import threading
from datetime import timedelta
from queue import SimpleQueue
from types import SimpleNamespace

import pytest

from systemprompt_jobs import JobExtension, Runtime, hookimpl
from systemprompt_jobs.errors import (
    AmbiguousJobError,
    ConfigurationError,
    ParameterError,
    StoreUnusableError,
    UnknownJobError,
    UsageError,
)
from systemprompt_jobs.model import State, Trigger

PATIENCE_S = 90
"""How long a test waits for something that takes milliseconds before it fails."""

JOBS = """
import threading
from systemprompt_jobs import job

release = threading.Event()
began = threading.Event()

@job(schedule="0 0 0 1 1 *", run_on_startup=True)
def yearly(ctx, *, n: int = 1):
    return f"n={n} enforce={ctx.enforce}"

@job
def fails():
    raise ValueError("no luck")

@job
def waits():
    began.set()
    release.wait(30)

@job
def exits():
    raise SystemExit(3)

@job(enabled=False)
def off():
    return "ran"

@job(schedule="* * * * * *")
def secondly():
    return "tick"
"""

OFF = "{extension: jobs, job: secondly, enabled: false}"


class Watch(JobExtension):
    """Sees every lifecycle hook and keeps the calls."""

    def __init__(self):
        self.calls = []
        self.queue = SimpleQueue()

    def _see(self, hook, **arguments):
        self.calls.append((hook, SimpleNamespace(**arguments)))
        self.queue.put((hook, SimpleNamespace(**arguments)))

    @hookimpl
    def scheduler_started(self, node):
        self._see("scheduler_started", node=node)

    @hookimpl
    def scheduler_stopping(self, node):
        self._see("scheduler_stopping", node=node)

    @hookimpl
    def scheduler_stopped(self, node):
        self._see("scheduler_stopped", node=node)

    @hookimpl
    def run_started(self, run):
        self._see("run_started", run=run)

    @hookimpl
    def run_succeeded(self, run, report):
        self._see("run_succeeded", run=run, report=report)

    @hookimpl
    def run_failed(self, run, report):
        self._see("run_failed", run=run, report=report)

    @hookimpl
    def run_cancelled(self, run, report):
        self._see("run_cancelled", run=run, report=report)

    @hookimpl
    def run_timed_out(self, run, report):
        self._see("run_timed_out", run=run, report=report)

    @hookimpl
    def run_finished(self, run, report):
        self._see("run_finished", run=run, report=report)

    @hookimpl
    def tick_skipped(self, run):
        self._see("tick_skipped", run=run)

    @hookimpl
    def tick_missed(self, run):
        self._see("tick_missed", run=run)

    @hookimpl
    def plugin_failed(self, problem):
        self._see("plugin_failed", problem=problem)

    def until(self, hook):
        """Wait for a call of this hook and return its arguments."""
        while True:
            name, arguments = self.queue.get(timeout=PATIENCE_S)
            if name == hook:
                return arguments

    def names(self):
        return [name for name, _ in self.calls]


@pytest.fixture
def project(tmp_path):
    """Return a function that writes a project and returns its folder."""

    def write(entries=(OFF,), jobs=JOBS, more=""):
        folder = tmp_path / "services" / "scheduler"
        folder.mkdir(parents=True, exist_ok=True)
        lines = "".join(f"    - {entry}\n" for entry in entries)
        (folder / "config.yaml").write_text(
            f"scheduler:\n  local_plugins: [jobs.py]\n{more}  jobs:\n{lines}", encoding="utf-8"
        )
        (tmp_path / "jobs.py").write_text(jobs, encoding="utf-8")
        return tmp_path

    return write


@pytest.fixture
def load(project):
    """Return a function that loads a runtime of a project with only its local plugins."""
    loaded = []

    def load(*entries, watch=None, environ=(), **arguments):
        root = project(entries or (OFF,), **arguments)
        runtime = Runtime(
            root,
            plugins=[watch] if watch else [],
            environ={"SYSTEMPROMPT_PLUGINS": "", **dict(environ)},
        )
        loaded.append(runtime)
        return runtime

    yield load
    for runtime in loaded:
        runtime.stop(timedelta(0))


def events(runtime):
    """Return the module in which the project's jobs share their events."""
    return SimpleNamespace(**runtime.find("waits").job.function.__globals__)


# --- by hand ---


def test_a_run_by_hand_is_recorded_like_any_other(load):
    runtime = load()
    (run,) = runtime.run("yearly")
    assert (run.state, run.trigger, run.message) == (
        State.SUCCEEDED,
        Trigger.MANUAL,
        "n=1 enforce=False",
    )
    assert runtime.history() == [run]


def test_parameters_and_enforce_of_the_caller_win(load):
    (run,) = load().run("yearly", parameters={"n": "7"}, enforce=True)
    assert run.message == "n=7 enforce=True"


def test_a_failing_run_keeps_its_error_and_traceback(load):
    runtime = load()
    (run,) = runtime.run("fails")
    assert (run.state, run.error) == (State.FAILED, "ValueError: no luck")
    assert 'raise ValueError("no luck")' in runtime.traceback(run)


def test_sys_exit_in_a_job_ends_the_run_and_nothing_else(load):
    runtime = load()
    runs = runtime.run("exits", "yearly")
    assert [run.state for run in runs] == [State.FAILED, State.SUCCEEDED]
    assert "sys.exit(3)" in runs[0].error


def test_a_disabled_job_runs_by_hand(load):
    (run,) = load().run("off")
    assert run.message == "ran"


def test_a_run_that_overlaps_is_refused(load):
    watch = Watch()
    runtime = load(watch=watch)
    answers = []
    first = threading.Thread(target=lambda: answers.extend(runtime.run("waits")))
    first.start()
    events(runtime).began.wait(PATIENCE_S)
    (second,) = runtime.run("waits")
    events(runtime).release.set()
    first.join()
    assert (second.state, second.reason) == (State.SKIPPED, "overlap")
    assert answers[0].state is State.SUCCEEDED
    runtime.stop()
    assert watch.names().count("tick_skipped") == 1


def test_an_unknown_job_names_near_ones_and_nothing_runs(load):
    runtime = load()
    with pytest.raises(UnknownJobError, match=r"did you mean .*yearly"):
        runtime.run("yearly", "yeerly")
    assert runtime.history() == []


def test_wrong_parameters_are_refused_before_anything_runs(load):
    runtime = load()
    with pytest.raises(ParameterError, match=r"jobs:yearly: .*n"):
        runtime.run("yearly", parameters={"n": "many"})
    assert runtime.history() == []


def test_a_short_name_shared_by_two_extensions_lists_both(project):
    root = project((OFF,), more="")
    (root / "more.py").write_text("from systemprompt_jobs import job\n@job\ndef fails(): ...\n")
    config = root / "services/scheduler/config.yaml"
    config.write_text(config.read_text().replace("[jobs.py]", "[jobs.py, more.py]"))
    runtime = Runtime(root, environ={"SYSTEMPROMPT_PLUGINS": ""})
    with pytest.raises(AmbiguousJobError, match=r"jobs:fails, more:fails"):
        runtime.find("fails")
    assert runtime.find("more:fails").id == "more:fails"


def test_an_alias_finds_its_job(load):
    runtime = load(jobs=JOBS.replace("@job(enabled=False)", '@job(enabled=False, aliases=["old"])'))
    assert runtime.find("old").id == runtime.find("jobs:old").id == "jobs:off"


def test_a_degraded_job_cannot_be_run_and_says_why(load):
    runtime = load(jobs=JOBS.replace('"0 0 0 1 1 *"', '"0 0 1 1 *"'))
    with pytest.raises(UsageError, match=r"jobs:yearly is degraded: .*jobs\.py:\d+.*5 fields"):
        runtime.run("yearly")


# --- the two-layer start-up rule ---

YEARLY = "{extension: jobs, job: yearly, enabled: true}"


def started_by(load, *entries, profile=None, **arguments):
    watch = Watch()
    runtime = load(OFF, *entries, watch=watch, **arguments)
    if profile:
        (runtime.project.root / "profile.yaml").write_text(profile)
        runtime = Runtime(
            runtime.project.root, plugins=[watch], environ={"SYSTEMPROMPT_PLUGINS": ""}
        )
    runtime.start()  # returns when the start-up runs are on record
    runtime.stop()
    return [run.job for run in runtime.history() if run.trigger is Trigger.STARTUP]


def test_a_start_up_job_runs_when_config_yaml_lists_it_enabled(load):
    assert started_by(load, YEARLY) == ["yearly"]


def test_it_does_not_run_when_it_is_not_listed(load):
    assert started_by(load) == []


def test_it_does_not_run_when_it_is_listed_without_enabled(load):
    assert started_by(load, "{extension: jobs, job: yearly}") == []


def test_it_does_not_run_when_it_is_listed_disabled(load):
    assert started_by(load, "{extension: jobs, job: yearly, enabled: false}") == []


def test_a_listed_job_that_does_not_declare_it_does_not_run_at_start_up(load):
    assert started_by(load, "{extension: jobs, job: fails, enabled: true}") == []


def test_profile_yaml_alone_never_starts_one(load):
    profile = f"scheduler:\n  jobs:\n    - {YEARLY}\n"
    assert started_by(load, profile=profile) == []


def test_profile_yaml_can_keep_one_from_starting(load):
    profile = f"scheduler:\n  jobs:\n    - {YEARLY.replace('true', 'false')}\n"
    assert started_by(load, YEARLY, profile=profile) == []


def test_a_failing_start_up_job_does_not_stop_the_scheduler(load):
    jobs = JOBS.replace("@job\ndef fails", "@job(run_on_startup=True)\ndef fails")
    watch = Watch()
    runtime = load(
        OFF, "{extension: jobs, job: fails, enabled: true}", YEARLY, jobs=jobs, watch=watch
    )
    runtime.start()
    ended = {watch.until("run_finished").run.job for _ in range(2)}
    assert ended == {"fails", "yearly"}
    assert len(runtime.status().nodes) == 1


# --- the scheduler ---


def test_ticks_run_on_time_and_each_hook_sees_them_once(load):
    watch = Watch()
    runtime = load("{extension: jobs, job: secondly, enabled: true}", watch=watch)
    with runtime:
        first = watch.until("run_finished").run
        second = watch.until("run_finished").run
    assert second.tick - first.tick == timedelta(seconds=1)
    assert timedelta(0) <= second.started - second.tick < timedelta(seconds=1)
    own = [name for name, call in watch.calls if getattr(call, "run", None) == first]
    assert own == ["run_succeeded", "run_finished"]
    names = watch.names()
    assert names[0] == "scheduler_started"
    assert names[-1] == "scheduler_stopped"
    assert names.count("run_started") == names.count("run_finished")


def test_degraded_plugins_are_observed_at_the_start(load):
    watch = Watch()
    with load(jobs=JOBS.replace('"0 0 0 1 1 *"', '"nonsense"'), watch=watch):
        pass
    problems = [call.problem for name, call in watch.calls if name == "plugin_failed"]
    assert [problem.culprit for problem in problems] == ["jobs:yearly"]


def test_an_observer_that_raises_hurts_nobody_and_is_named_once(load):
    class Broken:
        @hookimpl
        def run_started(self, run):
            raise RuntimeError("I am an observer")

        @hookimpl
        def run_finished(self, run, report):
            raise SystemExit(1)

    watch = Watch()
    runtime = load(watch=watch)
    runtime = Runtime(
        runtime.project.root, plugins=[Broken(), watch], environ={"SYSTEMPROMPT_PLUGINS": ""}
    )
    runs = runtime.run("yearly", "yearly", "fails")
    runtime.stop()
    assert {run.state for run in runs} <= {State.SUCCEEDED, State.FAILED, State.SKIPPED}
    problems = [call.problem for name, call in watch.calls if name == "plugin_failed"]
    assert [problem.culprit for problem in problems] == ["broken"]
    assert "run_started() raised RuntimeError" in problems[0].reason


def test_stopping_lets_a_running_job_end(load):
    watch = Watch()
    runtime = load(*WAITS, watch=watch, jobs=JOBS.replace("@job\ndef waits", STARTS_UP))
    runtime.start()
    watch.until("run_started")
    stopping = threading.Thread(target=runtime.stop)
    stopping.start()
    watch.until("scheduler_stopping")
    events(runtime).release.set()
    stopping.join(PATIENCE_S)
    assert [run.state for run in runtime.history()] == [State.SUCCEEDED]


STARTS_UP = "@job(run_on_startup=True)\ndef waits"
WAITS = (OFF, "{extension: jobs, job: waits, enabled: true}")


def test_a_job_that_outlasts_the_grace_is_recorded_as_cancelled(load):
    watch = Watch()
    runtime = load(*WAITS, watch=watch, jobs=JOBS.replace("@job\ndef waits", STARTS_UP))
    runtime.start()
    watch.until("run_started")
    runtime.stop(timedelta(0))
    events(runtime).release.set()
    (run,) = runtime.history()
    assert run.state is State.CANCELLED
    assert "still running" in run.message
    assert "run_cancelled" in watch.names()


def test_a_second_scheduler_on_the_same_database_shares_the_ticks(load):
    entry = "{extension: jobs, job: secondly, enabled: true}"
    one_watch, two_watch = Watch(), Watch()
    one = load(entry, watch=one_watch)
    two = Runtime(one.project.root, plugins=[two_watch], environ={"SYSTEMPROMPT_PLUGINS": ""})
    with one, two:
        assert len(one.status().nodes) == 2
        one_watch.queue.get(timeout=PATIENCE_S)
        while sum(w.names().count("run_finished") for w in (one_watch, two_watch)) < 2:
            threading.Event().wait(0.05)
    ticks = [run.tick for run in one.history() if run.tick]
    assert len(ticks) == len(set(ticks))


def test_after_a_stop_the_node_is_not_listed_as_live(load):
    runtime = load()
    with runtime:
        assert len(runtime.status().nodes) == 1
    assert runtime.status().nodes == ()


def test_a_runtime_can_be_started_again(load):
    watch = Watch()
    runtime = load(OFF, YEARLY, watch=watch)
    for _ in range(2):
        runtime.start()
        watch.until("run_finished")
        runtime.stop()
    assert [run.state for run in runtime.history()] == [State.SUCCEEDED] * 2


def test_what_was_claimed_and_not_started_is_given_back_at_the_stop(load):
    watch = Watch()
    jobs = "from systemprompt_jobs import job\n" + "".join(
        f"@job(schedule='* * * * * *', name='s{n}')\ndef s{n}(): began.wait(0.4)\n"
        for n in range(30)
    )
    runtime = load("{extension: jobs, job: s1}", watch=watch, more="  workers: 1\n",
                   jobs=f"import threading\nbegan = threading.Event()\n{jobs}")  # fmt: skip
    runtime.start()
    watch.until("run_started")
    runtime.stop()
    states = {run.state for run in runtime.history(limit=1000)}
    assert State.PENDING in states
    assert states <= {State.PENDING, State.SUCCEEDED, State.SKIPPED, State.MISSED}


def test_a_start_that_fails_leaves_nothing_behind_and_can_be_tried_again(load, monkeypatch):
    from systemprompt_jobs._keep import Keeper
    from systemprompt_jobs.errors import StoreError

    def fail(*_):
        raise StoreError("not now")

    runtime = load()
    with monkeypatch.context() as patch:
        patch.setattr(Keeper, "join", fail)
        with pytest.raises(StoreError):
            runtime.start()
    with runtime:
        assert len(runtime.status().nodes) == 1


def test_a_renamed_job_keeps_its_history(load):
    runtime = load(jobs=JOBS.replace("def off", "def before"))
    runtime.run("before")
    jobs = JOBS.replace("@job(enabled=False)", '@job(enabled=False, aliases=["before"])')
    renamed = load(jobs=jobs)
    for name in ("jobs:off", "off", "before", "jobs:before"):
        assert [run.job for run in renamed.history(job=name)] == ["before"]
    for overviews in (renamed.jobs("jobs:off"), renamed.jobs()):
        assert [o.last_run.job for o in overviews if o.plan.id == "jobs:off"] == ["before"]


def test_the_history_of_a_job_that_nobody_knows_is_an_error_and_of_one_that_is_gone_is_not(load):
    runtime = load()
    with pytest.raises(UnknownJobError, match="there is no job 'of'; did you mean off"):
        runtime.history(job="of")
    runtime.run("off")
    gone = load(jobs=JOBS.replace("def off", "def other"))
    assert len(gone.history(job="jobs:off")) == 1
    with pytest.raises(UnknownJobError, match="there is no job 'jobs:of'"):
        gone.history(job="jobs:of")


def test_disabling_the_scheduler_keeps_ticks_and_start_up_runs_away_but_not_runs_by_hand(load):
    watch = Watch()
    runtime = load(YEARLY, more="  enabled: false\n", watch=watch)
    with runtime:
        (run,) = runtime.run("yearly")
    assert run.state is State.SUCCEEDED
    assert watch.names().count("run_started") == 1


# --- on PostgreSQL ---

SECONDLY = "{extension: jobs, job: secondly, enabled: true}"


def test_on_postgresql_runs_are_recorded_and_questions_answered(load, postgresql):
    runtime = load(more=f"  database: {postgresql}\n")
    assert runtime.history() == []
    runs = runtime.run("yearly", "fails")
    assert [run.state for run in runs] == [State.SUCCEEDED, State.FAILED]
    runtime.stop()
    assert sorted(run.id for run in runtime.history()) == [run.id for run in runs]
    assert runtime.status().counts == {"succeeded": 1, "failed": 1}
    assert 'raise ValueError("no luck")' in runtime.traceback(runs[1])
    assert runtime.jobs()[0].plan.id == "jobs:exits"


def test_on_postgresql_two_schedulers_share_the_ticks(load, postgresql):
    watches = Watch(), Watch()
    one = load(SECONDLY, watch=watches[0], more=f"  database: {postgresql}\n")
    two = Runtime(one.project.root, plugins=[watches[1]], environ={"SYSTEMPROMPT_PLUGINS": ""})
    with one, two:
        assert len(one.status().nodes) == 2
        while sum(watch.names().count("run_finished") for watch in watches) < 3:
            threading.Event().wait(0.05)
    second = timedelta(seconds=1)
    runs = [run for run in one.history(limit=1000) if run.tick]
    ticks = sorted(run.tick + n * second for run in runs for n in range(run.count))
    assert ticks == [ticks[0] + n * second for n in range(len(ticks))]


def test_on_postgresql_a_scheduler_survives_the_end_of_its_connections(
    load, postgresql, postgresql_server
):
    watch = Watch()
    with load(SECONDLY, watch=watch, more=f"  database: {postgresql}\n") as runtime:
        first = watch.until("run_finished").run
        ended = postgresql_server.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'systemprompt-jobs'"
        )
        assert ended
        last = watch.until("run_finished").run
        while last.tick <= first.tick + timedelta(seconds=2):
            last = watch.until("run_finished").run
    ticks = sorted(t for run in runtime.history() for t in (run.tick, run.last_tick) if t)
    assert ticks[0] == first.tick
    covered = sum(run.count for run in runtime.history())
    assert covered == (ticks[-1] - ticks[0]).total_seconds() + 1
    assert watch.names().count("run_started") == watch.names().count("run_finished")


# --- questions ---


def test_jobs_show_their_next_tick_and_last_run(load):
    runtime = load()
    runtime.run("fails")
    found = {overview.plan.job.name: overview for overview in runtime.jobs()}
    assert found["fails"].last_run.state is State.FAILED
    assert found["fails"].next_tick is None
    assert found["secondly"].next_tick is None  # disabled
    assert found["yearly"].next_tick.month == 1


def test_questions_do_not_make_a_database(load):
    runtime = load()
    assert runtime.history() == []
    assert runtime.status().running == ()
    assert not (runtime.project.root / "var").exists()


def test_status_tells_what_went_wrong_lately(load):
    runtime = load()
    runtime.run("fails")
    status = runtime.status()
    assert [run.job for run in status.troubled] == ["fails"]
    assert status.counts == {"failed": 1}


def test_history_filters_by_job_and_state(load):
    runtime = load()
    runtime.run("fails", "yearly")
    assert [run.job for run in runtime.history(job="jobs:fails")] == ["fails"]
    assert [run.job for run in runtime.history(states=["succeeded"])] == ["yearly"]
    assert len(runtime.history(limit=1)) == 1


def test_all_that_is_wrong_with_the_configuration_comes_at_once(load):
    runtime = load("{extension: jobs, job: fials}", "{extension: jobs, job: exits, shedule: x}")
    with pytest.raises(ConfigurationError) as caught:
        runtime.start()
    assert len(caught.value.problems) == 2


def test_a_database_path_that_is_a_folder_is_refused_by_name(load):
    runtime = load(more="  database: sqlite:///.\n")
    with pytest.raises(StoreUnusableError, match="is a folder"):
        runtime.start()


def test_services_of_a_plugin_reach_the_job_and_a_broken_one_does_not_harm_the_others(load):
    class Mailer: ...

    class Mail:
        @hookimpl
        def register_services(self, registry):
            registry.register_value(Mailer, Mailer())

    class Broken:
        @hookimpl
        def register_services(self, registry):
            raise RuntimeError("no")

    runtime = load(
        jobs="from systemprompt_jobs import job\n@job\ndef secondly(ctx): return str(ctx.config)\n"
    )
    root = runtime.project.root
    runtime = Runtime(root, plugins=[Broken(), Mail()], environ={"SYSTEMPROMPT_PLUGINS": ""})
    (run,) = runtime.run("secondly")
    assert run.state is State.SUCCEEDED
    assert runtime._resources.container().get(Mailer).__class__ is Mailer
    runtime.stop()
