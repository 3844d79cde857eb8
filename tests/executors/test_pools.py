"""Named pools: who runs where, each pool with its own room, and what is wrong with them."""

from __future__ import annotations

import queue
from datetime import timedelta

import pytest
from sqlalchemy import select

from systemprompt_jobs import Runtime, hookimpl
from systemprompt_jobs._store.schema import node as node_table
from systemprompt_jobs.builtin.threads import Threads
from systemprompt_jobs.errors import ConfigurationError
from systemprompt_jobs.interfaces import Capabilities
from systemprompt_jobs.model import State
from tests.test_runtime import Watch

JOBS = """
import os, threading
from systemprompt_jobs import job

@job
def plain():
    return threading.current_thread().name

@job
async def coroutine():
    return threading.current_thread().name

@job(executor="processes")
def elsewhere():
    return str(os.getpid())

@job(executor="nowhere")
def lost():
    ...
"""


class Elsewhere:
    """A plugin with executors of its own, which notes what they are made from."""

    def __init__(self):
        self.made = []

    @hookimpl
    def make_executor(self, kind, settings):
        if kind != "special":
            return None
        if "wrong" in settings:
            raise ValueError(f"wrong is {settings['wrong']!r}, which is wrong")
        self.made.append(dict(settings))
        return Threads(settings["size"])


@pytest.fixture
def load(tmp_path):
    """Return a function that loads a runtime with executors and entries."""
    loaded = []

    def load(executors="", *entries, plugins=(), jobs=JOBS):
        folder = tmp_path / "services" / "scheduler"
        folder.mkdir(parents=True, exist_ok=True)
        lines = "".join(f"    - {{extension: jobs, {entry}}}\n" for entry in entries)
        (folder / "config.yaml").write_text(
            f"scheduler:\n  local_plugins: [jobs.py]\n  executors: {{{executors}}}\n"
            + (f"  jobs:\n{lines}" if lines else ""),
            encoding="utf-8",
        )
        (tmp_path / "jobs.py").write_text(jobs, encoding="utf-8")
        runtime = Runtime(tmp_path, plugins=plugins, environ={"SYSTEMPROMPT_PLUGINS": ""})
        loaded.append(runtime)
        return runtime

    yield load
    for runtime in loaded:
        runtime.stop(timedelta(0))


def refusal(runtime):
    with pytest.raises(ConfigurationError) as caught:
        runtime.start()
    return [str(problem).rpartition("config.yaml:")[2] for problem in caught.value.problems]


def test_async_functions_run_in_the_loop_and_others_in_threads(load):
    plain, coroutine = load().run("plain", "coroutine")
    assert (plain.pool, plain.message) == ("default", "jobs-worker-1")
    assert (coroutine.pool, coroutine.message) == ("asyncio", "jobs-asyncio")


def test_an_entry_decides_before_the_author(load):
    runtime = load("mine: {kind: threads, size: 1}", "job: elsewhere, executor: mine")
    plan = runtime.find("elsewhere")
    assert plan.executor == "mine"
    assert [source.value for source in plan.sources["executor"]] == ["processes", "mine"]
    (run,) = runtime.run("elsewhere")
    assert run.pool == "mine"


def test_the_history_knows_the_pool(load):
    runtime = load()
    runtime.run("coroutine")
    (run,) = runtime.history()
    assert run.pool == "asyncio"


def test_an_async_function_may_be_sent_to_threads(load):
    (run,) = load("", "job: coroutine, executor: default").run("coroutine")
    assert run.message == "jobs-worker-1"


def test_a_job_runs_in_a_process_of_the_projects_plugins(load):
    (run,) = load("processes: {size: 1}").run("elsewhere")
    assert run.state == State.SUCCEEDED
    assert run.message.isdigit()


def test_an_author_who_names_an_unknown_pool_degrades_that_job_alone(load):
    runtime = load("nowher: {kind: threads}")
    (problem,) = runtime.degraded
    assert problem.culprit == "jobs:lost"
    assert 'no pool "nowhere"' in problem.reason
    assert "did you mean 'nowher'?" in problem.reason


def test_the_size_of_a_pool_may_come_from_another_file(load, tmp_path):
    (tmp_path / "profile.yaml").write_text("scheduler: {executors: {mine: {size: 7}}}", "utf-8")
    runtime = load("mine: {kind: threads}")
    assert runtime.settings.executors["mine"] == {"kind": "threads", "size": 7}


def test_a_plugin_gets_the_settings_of_pools_that_a_job_uses_and_of_no_others(load):
    plugin = Elsewhere()
    runtime = load(
        "mine: {kind: special, size: 2, more: [1]}, unused: {kind: special, size: 3}",
        "job: plain, executor: mine",
        plugins=[plugin],
    )
    runtime.run("plain")
    assert plugin.made == [{"size": 2, "more": [1]}]


def test_an_executor_that_raises_fails_the_attempt_and_stops_nothing(load):
    class Full(Threads):
        def submit(self, attempt):
            if attempt.run.enforce:
                raise OSError("no more processes")
            super().submit(attempt)

    class Plugin:
        @hookimpl
        def make_executor(self, kind, settings):
            return Full(settings["size"]) if kind == "special" else None

    runtime = load(
        "mine: {kind: special, size: 1}", "job: plain, executor: mine", plugins=[Plugin()]
    )
    (refused,) = runtime.run("plain", enforce=True)
    assert refused.state is State.FAILED
    assert refused.error == "the executor 'mine' could not take it: OSError: no more processes"
    (run,) = runtime.run("plain")
    assert run.state is State.SUCCEEDED


def test_an_executor_that_raises_when_it_is_closed_keeps_nothing_else_from_stopping(load):
    class Stuck(Threads):
        def close(self):
            super().close()
            raise OSError("it does not stop")

    class Plugin:
        stopped = False

        @hookimpl
        def make_executor(self, kind, settings):
            return Stuck(settings["size"]) if kind == "special" else None

        @hookimpl
        def scheduler_stopped(self):
            self.stopped = True

    plugin = Plugin()
    pools = "mine: {kind: special, size: 1}"
    with load(pools, "job: plain, executor: mine", plugins=[plugin]) as runtime:
        pass
    assert plugin.stopped
    runtime.start()  # all that a start needs was put away
    runtime.stop()


def test_a_remote_executor_that_raises_gives_that_run_back_and_the_others_are_sent(load):
    class Line:
        capabilities = Capabilities(remote=True)
        size, deadline, problem = 100, timedelta(minutes=1), ""

        def __init__(self):
            self.sent = queue.SimpleQueue()

        def submit(self, attempt):
            if attempt.run.enforce:
                raise OSError("no more connections")
            self.sent.put(attempt.run.id)

        def close(self):
            pass

    class Plugin:
        @hookimpl
        def make_executor(self, kind, settings):
            return line if kind == "special" else None

    line = Line()
    runtime = load("mine: {kind: special}", "job: plain, executor: mine", plugins=[Plugin()])
    why = "the executor 'mine' could not take it: OSError: no more connections"
    (waits,) = runtime.run("plain", enforce=True)
    assert (waits.state, waits.message) == (State.PENDING, why)
    runtime.stop()
    with runtime:
        (run,) = runtime.submit("plain")
        assert line.sent.get(timeout=90) == run.id
    waiting = runtime.find_run(waits.id)
    assert (waiting.state, waiting.reason, waiting.message) == (State.PENDING, "not sent", why)


def test_wrong_kinds_and_settings_are_all_told_with_their_place_and_nothing_starts(load, tmp_path):
    runtime = load(
        "a: {kind: proceses}, b: {kind: special, wrong: 5}, c: {kind: threads, sise: 2}",
        "job: plain, executor: a",
        "job: coroutine, executor: b",
        "job: elsewhere, executor: c",
        plugins=[Elsewhere()],
    )
    assert refusal(runtime) == [
        "3: scheduler.executors.a: no plugin provides executors of kind 'proceses' (built in are threads, processes and asyncio)",
        "3: scheduler.executors.b: wrong is 5, which is wrong",
        "3: scheduler.executors.c: unknown key 'sise' (did you mean 'size'?)",
    ]
    assert not (tmp_path / "var").exists()


def test_a_grace_that_is_no_duration_is_refused(load):
    runtime = load("processes: {grace: soon}")
    (problem,) = refusal(runtime)
    assert problem.startswith("3: scheduler.executors.processes: grace: 'soon' is no duration")


def test_a_plugin_given_as_an_object_cannot_run_in_processes(load):
    from systemprompt_jobs import JobExtension, job

    @job(executor="processes")
    def mine(): ...

    class Given(JobExtension):
        def jobs(self):
            return [mine]

    (problem,) = refusal(load(plugins=[Given()]))
    assert "given:mine: runs in the pool 'processes', in another process" in problem
    assert "give the name of its module" in problem


SAYING = """
from systemprompt_jobs import job

def say(ctx):
    ctx.progress(3, 4, "three")
    ctx.log.info("said", n=1)

@job
def thread(ctx):
    say(ctx)

@job
async def coroutine(ctx):
    say(ctx)

@job(executor="processes")
def process(ctx):
    say(ctx)
"""


def test_what_a_run_says_is_on_record_whatever_its_pool(load):
    runtime = load("processes: {size: 1}", jobs=SAYING)
    runs = runtime.run("thread", "coroutine", "process")
    for run in runs:
        (attempt,) = runtime.attempts(run)
        assert attempt.log.endswith("info said n=1"), run.pool
    assert [(run.pool, run.progress.done) for run in runs] == [
        ("default", 3),
        ("asyncio", 3),
        ("processes", 3),
    ]


def test_runs_that_are_handed_over_or_repeated_go_through_their_pool_too(load):
    watch = Watch()
    load().submit("coroutine")
    with load(plugins=[watch]) as scheduler:
        run = watch.until("run_succeeded").run
        assert (run.pool, run.message) == ("asyncio", "jobs-asyncio")
        again = scheduler.retry(run.id)
    assert (again.parent, again.pool, again.message) == (run.id, "asyncio", "jobs-asyncio")


def test_the_node_says_which_pools_it_has(load):
    runtime = load("processes: {size: 3}")
    runtime.start()
    with runtime._store.read() as connection:
        row = connection.execute(select(node_table)).one()
    assert row.pools == {"default": 10, "asyncio": 100, "processes": 3}
    assert row.workers == 113


ASKING = """
from systemprompt_jobs import Retry, Skip, job

def ask(ctx):
    if ctx.run.attempt == 1:
        raise Retry("the service is busy", after="0.01s")
    return f"attempt {ctx.run.attempt}"

def skip():
    raise Skip("nothing new")

ask_thread = job(name="ask-thread", max_attempts=2)(ask)
ask_process = job(name="ask-process", max_attempts=2, executor="processes")(ask)
skip_thread = job(name="skip-thread")(skip)
skip_process = job(name="skip-process", executor="processes")(skip)

@job(name="ask-coroutine", max_attempts=2)
async def ask_coroutine(ctx):
    return ask(ctx)

@job(name="skip-coroutine")
async def skip_coroutine():
    skip()
"""


def test_a_run_asks_for_a_retry_or_skips_itself_whatever_its_pool(load):
    runtime = load("processes: {size: 1}", jobs=ASKING)
    kinds = ("thread", "coroutine", "process")
    runs = runtime.run(*(f"{what}-{kind}" for what in ("ask", "skip") for kind in kinds))
    asked, skipped = runs[:3], runs[3:]
    assert [(run.state, run.message) for run in asked] == [(State.SUCCEEDED, "attempt 2")] * 3
    for run in asked:
        first, second = runtime.attempts(run)
        assert first.error == "systemprompt_jobs.Retry: the service is busy"
        assert second.started - first.finished < timedelta(seconds=9), "not its retry_delay"
    assert [(run.state, run.reason, run.message, run.error) for run in skipped] == [
        (State.SKIPPED, "job", "nothing new", "")
    ] * 3


CONFIGURED = """
import os
from systemprompt_jobs import job

@job(executor="processes")
def configured(ctx):
    return f"{os.getpid()} {ctx.config.get('to')}"
"""


def test_a_warm_process_sees_its_extensions_section_as_the_last_reload_has_it(load, tmp_path):
    runtime = load("processes: {size: 1}", jobs=CONFIGURED)
    runtime.start()
    pid, before = runtime.run("configured")[0].message.split()
    with (tmp_path / "services/scheduler/config.yaml").open("a", encoding="utf-8") as file:
        file.write("  extensions: {jobs: {to: ann}}\n")
    assert runtime.reload() == ()
    seen = [before]
    while seen[-1] == "None":  # a reload is in force when the scheduler has come to it
        same, to = runtime.run("configured")[0].message.split()
        assert same == pid
        seen.append(to)
    assert (seen[0], seen[-1]) == ("None", "ann")


MENDED = """
import os
from systemprompt_jobs import job

@job(executor="processes", schedule="no schedule")
def broken():
    return str(os.getpid())

@job(executor="processes")
def sound():
    return str(os.getpid())
"""


def test_a_warm_process_runs_a_job_that_a_reload_has_mended(load, tmp_path):
    runtime = load("processes: {size: 1}", jobs=MENDED)
    runtime.start()
    warm = runtime.run("sound")[0].message
    with (tmp_path / "services/scheduler/config.yaml").open("a", encoding="utf-8") as file:
        file.write("  jobs: [{extension: jobs, job: broken, schedule: '@yearly'}]\n")
    assert runtime.reload() == ()
    assert runtime.run("broken")[0].message == warm


STUCK = """
import asyncio, threading
from systemprompt_jobs import job

release = threading.Event()

@job(executor="one", run_on_startup=True, timeout="0.05s")
{define} hangs():
    while not release.is_set():
        {wait}

@job(executor="one", schedule="* * * * * *")
{define} behind():
    ...

@job(schedule="* * * * * *")
def beside():
    ...
"""
DEAF = """try: await asyncio.sleep(0.01)
        except asyncio.CancelledError: pass"""


@pytest.mark.parametrize(
    ("kind", "define", "wait"),
    [("threads", "def", "release.wait(60)"), ("asyncio", "async def", DEAF)],
)
def test_a_pool_of_strays_holds_up_no_other_and_goes_on_when_they_end(load, kind, define, wait):
    watch = Watch()
    one, starts = f"one: {{kind: {kind}, size: 1}}", "job: hangs, enabled: true"
    jobs = STUCK.format(define=define, wait=wait)
    runtime = load(one, starts, plugins=[watch], jobs=jobs)
    runtime.start()
    try:
        watch.until("run_timed_out")
        watch.until("run_finished")
        (reason,) = runtime.health().reasons
        assert "pool 'one' have outlived their timeouts" in reason
        for _ in range(3):
            while watch.until("run_finished").run.job != "beside":
                pass  # a tick of `behind` may have been faster than the start-up run
        behind = {run.state for run in runtime.history(job="jobs:behind")}
        assert State.PENDING in behind, "any other node may take them"
        assert behind <= {State.PENDING, State.CLAIMED, State.SUCCEEDED}
    finally:
        runtime.find("hangs").job.function.__globals__["release"].set()
    while watch.until("run_finished").run.job != "behind":
        pass
    assert runtime.health().ready


ENDLESS = """
import asyncio, threading, time
from systemprompt_jobs import job

@job
def thread(ctx):
    ctx.interrupted.wait(60)
    ctx.check_cancelled()

@job
async def coroutine():
    await asyncio.sleep(60)

@job(executor="processes")
def process():
    time.sleep(60)
"""


def test_a_timeout_is_what_the_pool_can_make_of_it(load):
    jobs = ENDLESS.replace("@job\n", "@job(timeout='0.05s')\n")
    jobs = jobs.replace('"processes"', '"processes", timeout="0.05s"')
    runtime = load("processes: {size: 1, grace: 0.1s}", jobs=jobs)
    runs = runtime.run("thread", "coroutine", "process")
    assert [run.state for run in runs] == [State.TIMED_OUT] * 3
    assert [run.error.partition(";")[0] for run in runs] == [
        "still ran after 0.05 s, its timeout, and goes on as a stray thread",
        "ended after 0.05 s, its timeout",
        "ended after 0.05 s, its timeout",
    ]
    thread, coroutine, _ = map(runtime.traceback, runs)
    assert ("interrupted.wait(60)" in thread, "asyncio.sleep(60)" in coroutine) == (True, True)


def test_an_async_function_that_its_timeout_has_ended_is_tried_again(load):
    jobs = """
import asyncio
from systemprompt_jobs import job

@job(timeout="0.05s", max_attempts=2, retry_delay="0s", repeatable=True)
async def slow(ctx):
    if ctx.run.attempt == 1:
        await asyncio.sleep(60)
    return "at last"
"""
    (run,) = load(jobs=jobs).run("slow")
    assert (run.state, run.attempt, run.message) == (State.SUCCEEDED, 2, "at last")


def test_a_cancelled_run_ends_whatever_its_pool(load):
    watch = Watch()
    runtime = load("processes: {size: 1, grace: 0.1s}", jobs=ENDLESS, plugins=[watch])
    runtime.start()
    runs = runtime.submit("thread", "coroutine", "process")
    for _ in runs:
        watch.until("run_started")
    for run in runs:
        runtime.cancel(run.id, who="ann")
    ended = [watch.until("run_cancelled").run for _ in runs]
    assert sorted(run.pool for run in ended) == ["asyncio", "default", "processes"]
    assert {run.message for run in ended} == {"cancelled by ann"}
