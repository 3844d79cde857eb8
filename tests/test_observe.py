"""Lifecycle hooks are called one by one, on one thread, where they can hurt nobody."""

# ruff: noqa: PLW0108 - pluggy reads the lambdas' argument names; built-in methods have none

from __future__ import annotations

import sys
import threading
from datetime import timedelta
from types import SimpleNamespace

import pytest
import structlog

from systemprompt_jobs import _observe, hookimpl
from systemprompt_jobs._node import new_node
from systemprompt_jobs._observe import SLOW_S, Hooks, Observer
from systemprompt_jobs.builtin import logs
from systemprompt_jobs.model import Observers
from tests.collect.conftest import line_of
from tests.support import captured

PATIENCE = 30
"""Seconds after which a test that hangs fails."""


@pytest.fixture
def manager():
    return Hooks()


@pytest.fixture
def logged():
    with captured() as entries:
        yield entries


class Plugin:
    """An object with these functions as attributes."""

    def __init__(self, **functions):
        vars(self).update(functions)


def plugin(**hooks):
    """Return a plugin with these functions as hooks."""
    return Plugin(**{name: hookimpl(function) for name, function in hooks.items()})


def observe(manager, *calls, capacity=100):
    """Make the calls, each a hook's name and its arguments, and return the ended observer."""
    observer = Observer(manager, capacity)
    for hook, arguments in calls:
        observer.put(hook, **arguments)
    observer.start()
    observer.drain(PATIENCE)
    return observer


STARTED = [("run_started", {"run": n}) for n in range(5)]


class TestOneByOne:
    def test_each_call_arrives_once_and_in_order(self, manager):
        seen = []
        manager.register(plugin(run_started=lambda run: seen.append(run)))
        observe(manager, *STARTED)
        assert seen == [0, 1, 2, 3, 4]

    def test_all_on_one_thread_that_is_not_the_callers(self, manager):
        threads = set()
        for _ in range(3):
            manager.register(plugin(run_started=lambda: threads.add(threading.current_thread())))
        observe(manager, *STARTED)
        (thread,) = threads
        assert thread.name == "jobs-observer"
        assert thread.daemon

    def test_every_plugin_sees_a_call_before_the_next_is_made(self, manager):
        seen = []
        manager.register(plugin(run_started=lambda run: seen.append(("a", run))))
        manager.register(plugin(run_started=lambda run: seen.append(("b", run))))
        observe(manager, *STARTED[:2])
        assert [run for _, run in seen] == [0, 0, 1, 1]

    def test_plugins_are_called_in_pluggys_order(self, manager):
        seen = []
        for name, options in [
            ("plain", {}),
            ("last", {"trylast": True}),
            ("first", {"tryfirst": True}),
        ]:

            def note(name=name):
                seen.append(name)

            manager.register(Plugin(run_started=hookimpl(note, **options)))
        observe(manager, STARTED[0])
        assert seen == ["first", "plain", "last"]

    def test_an_implementation_takes_only_the_arguments_it_names(self, manager):
        seen = []
        manager.register(plugin(run_failed=lambda report: seen.append(report)))
        observe(manager, ("run_failed", {"run": 1, "report": 2}))
        assert seen == [2]

    def test_runs_that_wait_to_be_started_go_first_but_not_for_long(self, manager, monkeypatch):
        monkeypatch.setattr(_observe, "YIELD_S", PATIENCE)
        answers, seen = [False, True, True], []
        manager.register(plugin(run_started=lambda run: seen.append((run, *answers))))
        observer = Observer(manager, busy=lambda: answers.pop())
        observer.put("run_started", run=1)
        observer.start()
        observer.drain(PATIENCE)
        assert seen == [(1,)]  # not before all was started

        monkeypatch.setattr(_observe, "YIELD_S", 0.01)
        observer = Observer(manager, busy=lambda: True)
        observer.put("run_started", run=2)
        observer.start()
        observer.drain(PATIENCE)
        assert seen == [(1,), (2,)]

    def test_two_implementations_in_one_plugin_see_each_call_once(self, manager):
        seen = []
        both = Plugin(
            run_started=hookimpl(lambda run: seen.append("one")),
            another=hookimpl(lambda run: seen.append("two"), specname="run_started"),
        )
        manager.register(both)
        observe(manager, STARTED[0])
        assert sorted(seen) == ["one", "two"]

    def test_tracing_sees_each_call(self, manager):
        calls = []
        manager.add_hookcall_monitoring(
            before=lambda name, implementations, arguments: calls.append(
                (name, [i.plugin_name for i in implementations], arguments)
            ),
            after=lambda *_: None,
        )
        manager.register(plugin(run_started=lambda: None), "a")
        manager.register(plugin(run_started=lambda: None), "b")
        observe(manager, STARTED[0])
        assert calls == [("run_started", ["b"], {"run": 0}), ("run_started", ["a"], {"run": 0})]

    def test_enable_tracing_prints_them(self, manager):
        lines = []
        manager.trace.root.setwriter(lines.append)
        manager.enable_tracing()
        manager.register(plugin(run_started=lambda: None))
        observe(manager, STARTED[0])
        assert "run_started" in "".join(lines)


def exits():
    sys.exit(4)


def raises():
    raise LookupError("no dashboard")


class Unspeakable(BaseException):
    def __str__(self):
        raise RuntimeError


def unspeakable():
    raise Unspeakable


@pytest.mark.usefixtures("logged")
class TestIsolated:
    @pytest.mark.parametrize("bad", [raises, exits, unspeakable])
    def test_the_others_see_everything(self, manager, bad):
        seen = []
        manager.register(plugin(run_started=lambda run: seen.append(run)))
        manager.register(plugin(run_started=bad))
        manager.register(plugin(run_started=lambda run: seen.append(run)))
        observe(manager, *STARTED)
        assert seen == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]

    @pytest.mark.parametrize(
        ("bad", "reason"),
        [
            (raises, "its observer run_started() raised LookupError: no dashboard"),
            (exits, "its observer run_started() raised SystemExit: it called sys.exit(4)"),
            (unspeakable, "Unspeakable: <exception str() failed>"),
        ],
    )
    def test_the_culprit_is_blamed_with_plugin_hook_and_place(self, manager, bad, reason):
        problems = []
        manager.register(plugin(plugin_failed=lambda problem: problems.append(problem)))
        manager.register(plugin(run_started=bad), "dashboard")
        observe(manager, STARTED[0])
        (problem,) = problems
        assert problem.culprit == "dashboard"
        assert reason in problem.reason
        assert problem.place.file.name == "test_observe.py"
        assert problem.place.line == bad.__code__.co_firstlineno + 1

    def test_it_is_blamed_in_its_own_file_not_in_a_library(self, manager, tmp_path):
        path = tmp_path / "dashboard.py"
        path.write_text("import json\n\ndef run_started():\n    json.loads('{')  # here\n")
        namespace = {}
        exec(compile(path.read_text(), path, "exec"), namespace)
        problems = []
        manager.register(plugin(plugin_failed=lambda problem: problems.append(problem)))
        manager.register(plugin(run_started=namespace["run_started"]))
        observe(manager, STARTED[0])
        assert [problem.place for problem in problems] == [line_of(path, "# here")]

    def test_it_is_blamed_once_however_often_and_wherever_it_raises(self, manager, logged):
        problems = []
        manager.register(plugin(plugin_failed=lambda problem: problems.append(problem)))
        manager.register(plugin(run_started=raises, run_failed=raises))
        observe(manager, *STARTED, ("run_failed", {"run": 1, "report": None}))
        assert len(problems) == 1
        assert [entry["event"] for entry in logged] == ["observer_failed"]

    def test_the_log_has_one_line_for_it(self, manager, logged):
        manager.register(logs, "core.logs")
        manager.register(plugin(node_left=raises))
        observe(manager, ("node_left", {"node": new_node()}))
        events = [entry["event"] for entry in logged]
        assert sorted(events) == ["node_left", "observer_failed"]

    @pytest.mark.parametrize("distribution", ["company-dashboard", ""])
    def test_the_log_names_plugin_distribution_and_hook_and_holds_the_exception(
        self, manager, logged, tmp_path, monkeypatch, distribution
    ):
        if distribution:
            info = tmp_path / "company_dashboard-1.0.dist-info"
            info.mkdir()
            (info / "METADATA").write_text(f"Name: {distribution}\nVersion: 1.0\n")
            (info / "entry_points.txt").write_text("[systemprompt_jobs]\npanel = panel\n")
            monkeypatch.syspath_prepend(tmp_path)
        manager.register(plugin(run_started=raises), "panel")
        observe(manager, STARTED[0])
        (entry,) = logged
        assert isinstance(entry.pop("exc_info"), LookupError)
        assert entry == {
            "event": "observer_failed",
            "log_level": "error",
            "plugin": "panel",
            "distribution": distribution,
            "hook": "run_started",
        }

    def test_each_culprit_has_a_blame_of_its_own(self, manager):
        problems = []
        manager.register(plugin(plugin_failed=lambda problem: problems.append(problem.culprit)))
        manager.register(plugin(run_started=raises), "a")
        manager.register(plugin(run_started=exits), "b")
        observe(manager, *STARTED)
        assert sorted(problems) == ["a", "b"]

    def test_one_that_raises_in_plugin_failed_too_ends_nothing(self, manager):
        seen = []
        manager.register(plugin(run_started=raises, plugin_failed=raises), "a")
        manager.register(plugin(run_started=exits, plugin_failed=exits), "b")
        manager.register(plugin(run_started=lambda run: seen.append(run)))
        observe(manager, *STARTED)
        assert seen == [0, 1, 2, 3, 4]

    def test_the_last_call_of_all_is_blamed_too(self, manager):
        problems = []
        manager.register(plugin(plugin_failed=lambda problem: problems.append(problem.culprit)))
        manager.register(plugin(scheduler_stopped=raises), "a")
        observe(manager, ("scheduler_stopped", {"node": None}))
        assert problems == ["a"]

    def test_a_log_that_cannot_be_written_silences_nobody(self, manager):
        def closed(*_):
            raise ValueError("I/O operation on closed file")

        seen = []
        manager.register(plugin(run_started=lambda run: seen.append(run)))
        manager.register(plugin(run_started=raises))
        before = structlog.get_config()
        structlog.configure(processors=[closed])
        try:
            observe(manager, *STARTED)
        finally:
            structlog.configure(**before)
        assert seen == [0, 1, 2, 3, 4]


class Slow:
    """A plugin that is stuck in its first call until it is freed."""

    def __init__(self, manager):
        self.stuck, self.free = threading.Event(), threading.Event()
        self.seen = []
        manager.register(plugin(run_started=lambda run: self.see(run)), "slow")

    def see(self, run):
        self.seen.append(run)
        self.stuck.set()
        self.free.wait(PATIENCE)


def test_a_hook_that_nobody_implements_is_not_queued(manager):
    observer = Observer(manager, capacity=1)
    for n in range(5):
        observer.put("run_started", run=n)
    assert observer.dropped == 0
    assert observer._queue.empty()


class TestBounded:
    def test_a_slow_one_holds_up_nobody_who_puts(self, manager, logged):
        slow = Slow(manager)
        observer = Observer(manager, capacity=2)
        observer.start()
        observer.put("run_started", run=0)
        assert slow.stuck.wait(PATIENCE)
        for n in range(1, 8):
            observer.put("run_started", run=n)
        assert observer.dropped == 5
        slow.free.set()
        observer.drain(PATIENCE)
        assert slow.seen == [0, 1, 2]
        assert {"event": "observers_overflowed", "log_level": "warning", "dropped": 5} in logged

    def test_what_waits_is_called_before_the_end(self, manager, logged):
        slow = Slow(manager)
        observer = Observer(manager)
        observer.start()
        for n in range(50):
            observer.put("run_started", run=n)
        assert slow.stuck.wait(PATIENCE)
        slow.free.set()
        observer.drain(PATIENCE)
        assert slow.seen == list(range(50))
        assert [e for e in logged if e["event"] != "observer_slow"] == []

    @pytest.mark.parametrize("capacity", [2, 100])
    def test_stopping_gives_up_on_one_that_never_returns(self, manager, logged, capacity):
        slow = Slow(manager)
        observer = Observer(manager, capacity)
        observer.start()
        observer.put("run_started", run=0)
        assert slow.stuck.wait(PATIENCE)
        for n in range(1, 3):
            observer.put("run_started", run=n)
        observer.drain(0.01)
        assert [entry["event"] for entry in logged] == ["observers_not_drained"]
        assert logged[0]["waiting"] >= 2
        assert logged[0]["calling"] == "slow: run_started()"
        slow.free.set()

    def test_how_far_it_is_can_be_asked_while_one_is_at_work(self, manager):
        slow = Slow(manager)
        observer = Observer(manager, capacity=2)
        assert observer.load() == Observers()
        observer.start()
        observer.put("run_started", run=0)
        assert slow.stuck.wait(PATIENCE)
        for n in range(1, 5):
            observer.put("run_started", run=n)
        load = observer.load()
        assert (load.waiting, load.dropped, load.calling) == (2, 2, "slow: run_started()")
        assert timedelta(0) < load.busy <= observer.load().busy
        slow.free.set()
        observer.drain(PATIENCE)
        assert observer.load() == Observers(dropped=2)

    def test_a_slow_one_is_named_once_for_each_hook(self, manager, logged, monkeypatch):
        now = [0.0]
        monkeypatch.setattr(_observe, "time", SimpleNamespace(monotonic=lambda: now[0]))

        def slow():
            now[0] += SLOW_S + 0.5

        manager.register(plugin(run_started=slow, run_finished=slow), "mailer")
        manager.register(plugin(run_started=lambda: None), "quick")
        observer = Observer(manager)
        for hook in ("run_started", "run_started", "run_finished"):
            observer._call(hook, {"run": 1, "report": None})
        assert [entry.pop("event") for entry in logged] == ["observer_slow"] * 2
        assert [entry["hook"] for entry in logged] == ["run_started", "run_finished"]
        assert logged[0] == {
            "log_level": "warning",
            "plugin": "mailer",
            "distribution": "",
            "hook": "run_started",
            "took_s": 1.5,
            "waiting": 0,
        }

    def test_one_that_was_never_started_can_be_drained(self, manager):
        Observer(manager).drain(0.01)
