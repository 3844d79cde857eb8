"""What is wrong with an executor's settings is said before anything starts."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import click
import pytest
import yaml
from celery import Celery
from sqlalchemy.engine import make_url
from systemprompt_jobs_celery import make_executor, mount
from systemprompt_jobs_celery._app import Messages, new_app, queue_of
from systemprompt_jobs_celery._line import read_line

from systemprompt_jobs import Runtime
from systemprompt_jobs.builtin.cli._app import jobs
from systemprompt_jobs.errors import UsageError

BROKER = "amqp://jobs:secret@mq/jobs"


def read(**settings):
    return read_line({"broker": BROKER, **settings}, "/srv", {"URL": BROKER})


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"que": "x"}, "unknown key 'que' (did you mean 'queue'?)"),
        ({"broker": "mq"}, "broker: 'mq' is no URL such as amqp://user@host/vhost"),
        ({"broker": {"env": "NONE"}}, "the environment variable NONE is not set"),
        ({"deadline": "0.1s"}, "deadline: 0.1s is too short: a message needs at least 1s"),
        ({"deadline": "soon"}, "deadline: "),
        ({"priority": 10}, "priority: 10 is no whole number from 0 to 9"),
        ({"window": 0}, "window: 0 is no whole number of at least 1"),
        ({"size": True}, "size: True is no whole number of at least 1"),
        ({"options": []}, "options: [] is no mapping"),
        ({"worker": {"kind": "celery"}}, "worker: runs end somewhere"),
    ],
)
def test_a_mistake_is_named_with_its_value_and_what_would_be_right(settings, said):
    with pytest.raises(ValueError, match=f"^{re.escape(said)}"):
        read(**settings)


def test_a_broker_may_stand_elsewhere_and_its_password_is_never_shown():
    line = read(broker={"env": "URL"})
    assert (line.broker, line.shown) == (BROKER, "amqp://jobs:***@mq/jobs")


def test_each_setting_has_its_effect():
    line = read(
        queue="reports", priority=3, size=2, window=7, deadline="2m", worker={"kind": "threads"}
    )
    executor = make_executor(
        "celery",
        {"broker": BROKER, "window": 7, "deadline": "2m"},
        {"root": "/srv", "environ": {}},
    )
    assert (executor.size, executor.deadline) == (7, timedelta(minutes=2))
    assert line.executor == {"kind": "threads", "size": 2}
    queue = queue_of(line)
    assert (queue.name, queue.durable, queue.max_priority) == ("reports", True, 9)
    assert make_executor("threads", {}, {}) is None


def test_what_kills_says_so_and_what_does_not_does_not():
    origin = {"root": "/srv", "environ": {}}
    kinds = ("processes", "threads")
    made = [
        make_executor("celery", {"broker": BROKER, "worker": {"kind": k}}, origin) for k in kinds
    ]
    assert [executor.capabilities.kills for executor in made] == [True, False]
    assert {executor.capabilities.remote for executor in made} == {True}


def test_a_message_is_plain_json_with_nothing_but_run_and_fence():
    app = new_app(read())
    message = Messages(app).of(12, 3)
    assert json.loads(message["body"])[:2] == [[12, 3], {}]
    assert message["headers"]["ignore_result"] is True
    assert all(message["headers"].values())  # the broker would carry their names for nothing
    assert app.conf.accept_content == ["json"]
    assert (app.conf.task_acks_late, app.conf.result_backend) == (True, None)


def test_several_threads_may_be_the_first_to_need_celery():
    code = """if True:
        from concurrent.futures import ThreadPoolExecutor
        from threading import Barrier
        from systemprompt_jobs_celery._app import new_app
        from systemprompt_jobs_celery._line import Line
        together = Barrier(8)
        def make(_):
            together.wait()
            new_app(Line("memory://"))
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(make, range(8)))
    """
    subprocess.run([sys.executable, "-c", code], check=True)


def test_another_application_takes_our_task_in_without_loading_anything(tmp_path):
    app = Celery("theirs", broker="memory://", set_as_current=False)
    mount(app, str(tmp_path / "missing"))
    task = app.tasks["systemprompt_jobs.run"]
    assert (task.acks_late, task.ignore_result, task.max_retries) == (True, True, 0)


def test_a_project_without_such_an_executor_is_told_so_by_celery(tmp_path, monkeypatch):
    monkeypatch.setenv("SYSTEMPROMPT_ROOT", str(tmp_path))
    module = importlib.import_module("systemprompt_jobs_celery")
    with pytest.raises(ValueError, match="has none of kind celery"):
        _ = module.app


def test_only_a_worker_takes_what_was_sent(tmp_path):
    with pytest.raises(UsageError, match="no worker"):
        Runtime(tmp_path).take(1, 1, "default", lambda: None)


def test_the_compose_file_starts_our_commands_with_the_settings_of_the_page():
    docs = Path(__file__).parents[3] / "docs"
    services = yaml.safe_load((docs / "deploy" / "celery.compose.yaml").read_text("utf-8"))[
        "services"
    ]
    build = (docs / "deploy" / "Containerfile").read_text("utf-8")
    page = (docs / "how-to" / "run-on-celery.md").read_text("utf-8")
    (taken,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    wanted = set(re.findall(r"\{env: (\w+)\}", taken))
    known = jobs.list_commands(click.Context(jobs))
    for name, command in (("scheduler", "serve"), ("worker", "worker")):
        service = services[name]
        assert service["command"] == [command]
        assert command in known
        assert wanted == service["environment"].keys()
        assert set(service["depends_on"]) < services.keys()
        assert int(service["stop_grace_period"].removesuffix("s")) > 30, "shutdown_grace"
    environ = services["worker"]["environment"]
    database, broker = make_url(environ["JOBS_DATABASE_URL"]), environ["JOBS_BROKER_URL"]
    server = services["db"]["environment"]
    assert (database.host, database.username) == ("db", server["POSTGRES_USER"])
    secret = (server["POSTGRES_PASSWORD"], server["POSTGRES_DB"])
    assert (database.password, database.database) == secret
    user = "{RABBITMQ_DEFAULT_USER}:{RABBITMQ_DEFAULT_PASS}"
    assert broker == f"amqp://{user.format(**services['broker']['environment'])}@broker//"
    (entry,) = re.findall(r"^ENTRYPOINT (.*)$", build, re.MULTILINE)
    assert entry.endswith('"infra", "jobs"]')
    assert [name for name in wanted if f"{name}=" not in build] == [], "`check` needs them all"
