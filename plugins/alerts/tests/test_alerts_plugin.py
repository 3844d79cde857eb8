"""The installed plugin in a real scheduler, with a real database and a real web server."""

from __future__ import annotations

import threading
import tomllib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import structlog
import yaml
from systemprompt_jobs_alerts import Alerts, _config, _history, _plugin, _worker

from systemprompt_jobs import Report, Run, Runtime, hookspecs
from systemprompt_jobs.builtin.cli import main
from systemprompt_jobs.errors import ConfigurationError
from systemprompt_jobs.model import Node, State, Trigger
from tests.support import START

FOLDER = Path(__file__).parents[1]
JOBS = """
from pathlib import Path

from systemprompt_jobs import job


@job(tags=["red"])
def flaky(*, note: str = ""):
    if Path(__file__).with_name("broken").exists():
        raise ValueError("it is <broken>")
"""


@pytest.fixture
def project(tmp_path):
    """Return a function that makes a project with a section of alerts."""
    (tmp_path / "jobs.py").write_text(JOBS)

    def make(**section):
        scheduler = {"local_plugins": ["jobs.py"], "extensions": {"alerts": section}}
        (tmp_path / "profile.yaml").write_text(yaml.safe_dump({"scheduler": scheduler}))
        return tmp_path

    return make


@pytest.fixture
def load(project, web):
    """Return a function that loads a runtime whose only installed plugin is this one."""

    def make(**section):
        channels = {"ops": {"type": "webhook", "url": {"env": "OPS"}}}
        root = project(name="here", channels=channels, **section)
        return Runtime(root, environ={"SYSTEMPROMPT_PLUGINS": "alerts", "OPS": web.url})

    return make


def broken(root, yes):
    mark = root / "broken"
    mark.touch() if yes else mark.unlink()


def lines(posted):
    return posted.json["text"].splitlines()


def test_a_failure_is_told_once_and_so_is_the_recovery(load, web):
    runtime = load()
    root = runtime.project.root
    with runtime:
        broken(root, yes=True)
        (run,) = runtime.run("jobs:flaky")
        runtime.run("jobs:flaky")
        broken(root, yes=False)
        runtime.run("jobs:flaky")
        runtime.run("jobs:flaky")
        assert lines(web.get()) == [
            "[here] jobs:flaky failed",
            "ValueError: it is &lt;broken&gt;",
            f"run {run.id}, by manual, attempt 1, on node {run.node}",
        ]
        subject, details = lines(web.get())
    assert subject == "[here] jobs:flaky succeeds again"
    assert details.startswith("2 times failed since 2")
    assert web.posted.empty()


def test_the_recovery_after_a_deployment_that_repairs_a_job_is_told(load, web, monkeypatch):
    runtime = load()
    broken(runtime.project.root, yes=True)
    with runtime:
        runtime.run("jobs:flaky")
        assert lines(web.get())[0] == "[here] jobs:flaky failed"
    broken(runtime.project.root, yes=False)
    learned = threading.Event()
    begin = _worker.Worker._begin
    monkeypatch.setattr(_worker.Worker, "_begin", lambda self: (begin(self), learned.set()))
    with load() as repaired:
        assert learned.wait(20)
        repaired.run("jobs:flaky")
        assert lines(web.get())[0] == "[here] jobs:flaky succeeds again"


def test_a_slow_channel_delays_no_run_and_what_waits_is_sent_at_the_end(load, web):
    web.gate.clear()
    runtime = load()
    broken(runtime.project.root, yes=True)
    with runtime:
        runtime.run("jobs:flaky")
        web.get()  # it has arrived, and is not answered
        broken(runtime.project.root, yes=False)
        assert runtime.run("jobs:flaky")[0].state == State.SUCCEEDED
        assert web.posted.empty()
        web.gate.set()
    assert lines(web.get())[0] == "[here] jobs:flaky succeeds again"


def test_a_channel_that_hangs_does_not_hold_up_the_end_and_the_log_counts(load, web, monkeypatch):
    monkeypatch.setattr(_plugin, "_DRAIN_S", 0.01)
    web.gate.clear()
    runtime = load()
    broken(runtime.project.root, yes=True)
    with structlog.testing.capture_logs() as log, runtime:
        runtime.run("jobs:flaky")
        web.get()
    waiting = [entry for entry in log if entry["event"] == "alerts_not_drained"]
    assert waiting == [{"event": "alerts_not_drained", "log_level": "warning", "waiting": 1}]


def test_a_run_by_hand_without_a_scheduler_tells_nobody(load, web):
    runtime = load()
    broken(runtime.project.root, yes=True)
    assert runtime.run("jobs:flaky")[0].state == State.FAILED
    runtime.stop()
    assert web.posted.empty()


def test_the_history_knows_successes_trouble_pauses_and_who_is_the_oldest(load):
    runtime = load(no_success={"jobs:flaky": "1h"})
    with runtime:
        (good,) = runtime.run("jobs:flaky")
        broken(runtime.project.root, yes=True)
        (bad,) = runtime.run("jobs:flaky")
        runtime.pause("jobs:flaky")
        (node,) = runtime.nodes()
        history = _history.History(runtime, node.id)
        assert history.last_success("jobs:flaky") == good.finished
        assert [(a.kind, a.run, a.at) for a in history.troubled(START)] == [
            ("failed", bad.id, bad.finished)
        ]
        assert history.paused() == {"jobs:flaky"}
        assert history.speaks()
        assert not _history.History(runtime, "another:1:b").speaks()
        section = runtime.settings.extensions["alerts"]
        assert history.deadlines(_config.read(section)) == {"jobs:flaky": timedelta(hours=1)}


def test_tags_decide_the_way(load, web):
    runtime = load(routes=[{"channels": ["ops"], "tags": ["blue"]}])
    broken(runtime.project.root, yes=True)
    with runtime:
        runtime.run("jobs:flaky")
    assert web.posted.empty()


def test_the_address_is_in_no_log_line_when_the_channel_is_dead(load, web):
    web.answers += [(404, {})]
    runtime = load()
    broken(runtime.project.root, yes=True)
    with structlog.testing.capture_logs() as log, runtime:
        runtime.run("jobs:flaky")
        web.get()
    assert {"alert_not_sent"} <= {entry["event"] for entry in log}
    assert "S3CRET" not in repr(log)


def test_mistakes_stop_the_start_with_file_and_line(project):
    root = project(chanels={}, repeat="never")
    runtime = Runtime(root, environ={"SYSTEMPROMPT_PLUGINS": "alerts"})
    with pytest.raises(ConfigurationError) as error:
        runtime.start()
    places = [problem.place for problem in error.value.problems]
    assert {problem.culprit for problem in error.value.problems} == {
        "scheduler.extensions.alerts.chanels",
        "scheduler.extensions.alerts.repeat",
    }
    assert {place.file for place in places} == {root / "profile.yaml"}


class TestTheHooks:
    RUN = Run(
        7, "e:a", Trigger.SCHEDULE, State.LOST, tick=START, attempt=2, node="h:1:b", finished=START
    )

    @pytest.fixture
    def told(self, clock):
        """Return the plugin as if it were at work, and what it tells."""
        plugin, told = Alerts(clock), []

        class Worker:
            def put(self, alerts):
                told.extend(alerts)

        plugin._worker = Worker()
        return plugin, told

    def test_a_lost_run_is_told(self, told):
        plugin, alerts = told
        plugin.run_lost(self.RUN)
        assert alerts[0].text.splitlines() == [
            "e:a was lost: its node died, and nobody knows how far it came",
            "run 7, tick 2026-03-02 10:00:00 UTC, attempt 2, on node h:1:b",
        ]

    def test_a_run_over_its_timeout_is_told_where_the_core_has_the_hook(self, told):
        plugin, alerts = told
        plugin.run_timed_out(self.RUN, Report(State.FAILED, START, START, error="E: late\x1b"))
        assert (alerts[0].kind, alerts[0].error) == (
            "timed_out",
            "E: late\N{REPLACEMENT CHARACTER}",
        )
        marked = hasattr(Alerts.run_timed_out, hookspecs.MARKER)
        assert marked is ("run_timed_out" in hookspecs.names())

    def test_missed_ticks_are_one_alert_for_the_stretch(self, told):
        plugin, alerts = told
        last = START + timedelta(hours=1)
        plugin.tick_missed(Run(1, "e:a", Trigger.SCHEDULE, State.MISSED, START, None, last, 61))
        assert alerts[0].text.splitlines() == [
            "e:a missed 61 ticks",
            "from 2026-03-02 10:00:00 to 2026-03-02 11:00:00 UTC",
        ]

    def test_an_outage_that_was_not_told_has_no_end_to_tell(self, told):
        plugin, alerts = told
        plugin.database_unavailable("locked")
        plugin.database_recovered(timedelta(seconds=5))
        assert alerts == []

    def test_without_channels_nothing_starts(self, told, load, project):
        runtime = Runtime(project(), environ={"SYSTEMPROMPT_PLUGINS": "alerts"})
        plugin = Alerts()
        plugin.configured({}, runtime)
        plugin.scheduler_started(Node("h:1:b", "h", 1, "b", "1.0"))
        assert plugin._worker is None


class TestTheCommand:
    @pytest.fixture
    def command(self, project, monkeypatch, capsys):
        def run(*arguments, **section):
            monkeypatch.setenv("SYSTEMPROMPT_PLUGINS", "alerts")
            root = project(name="here", **section)
            code = main(["--root", str(root), "infra", "jobs", "alerts", "test", *arguments])
            answer = capsys.readouterr()
            return code, answer.out, answer.err

        return run

    def test_it_sends_through_each_channel_and_says_how_it_went(self, command, web, post):
        mail = {"type": "smtp", "host": "localhost", "port": post.port, "security": "none"}
        mail |= {"sender": "a@b.c", "to": ["d@e.f"]}
        channels = {"ops": {"type": "webhook", "url": web.url}, "mail": mail}
        code, out, _ = command(channels=channels)
        assert code == 0
        assert [line.partition(": sent in ")[0] for line in out.splitlines()] == [
            "mail (smtp)",
            "ops (webhook)",
        ]
        assert lines(web.get())[0] == "[here] test: alerts arrive here"
        assert post.get()[1]["Subject"] == "[here] test: alerts arrive here"

    def test_one_that_does_not_work_is_named_with_the_reason(self, command, web):
        web.answers.append((403, {}))
        code, out, _ = command(channels={"ops": {"type": "webhook", "url": web.url}})
        assert (code, out) == (1, "ops (webhook): not sent: it answered 403\n")

    def test_json_for_programs(self, command, web):
        web.answers.append((403, {}))
        channels = {"ops": {"type": "webhook", "url": web.url}}
        code, out, _ = command("--json", "ops", channels=channels)
        (channel,) = yaml.safe_load(out)["channels"]
        assert code == 1
        assert channel.pop("seconds") >= 0
        assert channel == {
            "channel": "ops",
            "type": "webhook",
            "ok": False,
            "reason": "it answered 403",
        }

    def test_a_channel_that_does_not_exist_is_a_mistake(self, command, web):
        code, _, err = command("nope", channels={"ops": {"type": "webhook", "url": web.url}})
        assert (code, err) == (2, "error: there is no channel 'nope'; there is ops\n")

    def test_without_channels_it_says_where_they_go(self, command):
        code, _, err = command()
        assert code == 2
        assert "add one under scheduler.extensions.alerts.channels" in err

    def test_mistakes_are_named_with_file_and_line(self, command):
        code, _, err = command(chanels={})
        assert code == 2
        assert "profile.yaml:" in err
        assert "scheduler.extensions.alerts.chanels: unknown key" in err


def test_the_entry_points_name_the_plugin_and_the_command():
    points = tomllib.loads((FOLDER / "pyproject.toml").read_text())["project"]["entry-points"]
    assert points["systemprompt_jobs"] == {
        "alerts": f"{Alerts.__module__.partition('.')[0]}:Alerts"
    }
    assert points["systemprompt_jobs.commands"].keys() == {"alerts"}


def test_times_are_utc():
    assert Alerts()._clock.now().tzinfo is UTC
    assert abs(Alerts()._clock.now() - datetime.now(UTC)) < timedelta(seconds=5)
