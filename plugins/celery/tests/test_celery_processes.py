"""Real schedulers, workers and brokers are killed; the checker of the fault tests judges."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest
from systemprompt_jobs_celery._sender import Sender

from systemprompt_jobs import Runtime
from systemprompt_jobs.model import EMPTY, State
from tests.faults.cluster import PATIENCE_S, Cluster, wait_for

HARD = {"timeout": "1s", "schedule": "*/20 * * * * *"}
"""Not more often: after each kill a process starts anew."""

LEASE = "3s"
"""Longer than in the other fault tests: a broker, several workers and their processes start here."""


@pytest.fixture
def new_cluster(tmp_path):
    made = []

    def new(url, pools=EMPTY, jobs=(), **executor):
        default = {"kind": "celery", "queue": tmp_path.name, "size": 4, "deadline": "2s"}
        default |= {"worker": {"kind": "threads"}} | executor
        executors = {"default": default}
        for name, own in pools.items():
            executors[name] = default | {"queue": f"{tmp_path.name}-{name}"} | own
        root = tmp_path / "project"
        root.mkdir()
        made.append(Cluster(root, url, executors=executors, jobs=list(jobs), lease=LEASE))
        return made[-1]

    yield new
    for cluster in made:
        cluster.close()


def worker(cluster, **environ):
    node = cluster.launch("worker", SYSTEMPROMPT_PLUGINS="celery", **environ)
    node.wait_for("worker_listens")
    return node


def scheduler(cluster):
    return cluster.start(SYSTEMPROMPT_PLUGINS="celery")


def test_no_tick_is_lost_or_run_twice_by_bad_mail_hard_timeouts_and_nodes_that_lack_plugins(
    new_cluster, postgresql, redis
):
    cluster = new_cluster(
        postgresql,
        broker=redis.url,
        pools={"hard": {"size": 1, "worker": {"kind": "processes"}}},
        jobs=[{"extension": "plugin", "job": "long", "executor": "hard"} | HARD],
    )
    cluster.jobs["plugin:long"] = HARD["schedule"]
    lacking = ("fails", "slow")  # each is there once among the schedulers, once among the workers
    common = {"SYSTEMPROMPT_PLUGINS": "celery", "FAULTS_MAIL": "bad"}
    cluster.ready(*[cluster.launch(**common, FAULTS_WITHOUT=job) for job in lacking])
    killed, stopped = (worker(cluster, FAULTS_WITHOUT=job) for job in lacking)
    wait_for(lambda: cluster.states()["timed_out"], "a function is killed, its time is up")
    said = lambda: {*killed.events(), *stopped.events()}  # noqa: E731
    wait_for(lambda: "run_handed_back" in said(), "a plugin is missed")
    worker(cluster)  # has all plugins
    cluster.wait_for_starts(1)
    killed.end(signal.SIGKILL)
    assert stopped.end(signal.SIGTERM) == 0
    cluster.wait_for_starts(5)
    assert cluster.verdict() == []


def test_no_tick_is_lost_or_run_twice_when_workers_schedulers_and_the_broker_die(
    new_cluster, postgresql, rabbitmq
):
    cluster = new_cluster(postgresql, broker=rabbitmq.url)
    victim = worker(cluster, FAULTS_AT="mid_run:3:SIGKILL")
    stopped = worker(cluster)
    first, _ = scheduler(cluster), scheduler(cluster)
    wait_for(lambda: not victim.alive, "a worker dies in the middle of a run")
    cluster.wait_for_starts(3)
    rabbitmq.stop()
    first.end(signal.SIGKILL)
    rabbitmq.start()
    cluster.wait_for_starts(3)
    worker(cluster)
    assert stopped.end(signal.SIGTERM) == 0
    cluster.wait_for_starts(5)
    assert cluster.verdict() == []
    assert cluster.states()["succeeded"] > 10


@contextmanager
def celery(root, *options):
    """Run `celery -A systemprompt_jobs_celery worker`."""
    environ = {
        **{k: v for k, v in os.environ.items() if not k.startswith("SYSTEMPROMPT_")},
        "SYSTEMPROMPT_PLUGINS": "celery",
        "SYSTEMPROMPT_ROOT": str(root),
    }
    command = ("-m", "celery", "-A", "systemprompt_jobs_celery", "worker", *options)
    with (root / "celery.log").open("wb") as log:
        process = subprocess.Popen([sys.executable, *command], env=environ, stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


@pytest.mark.parametrize("broker", ["rabbitmq", "redis"])
def test_a_plain_celery_worker_runs_what_is_sent_once_and_kills_what_hangs(
    tmp_path, request, broker
):
    url = request.getfixturevalue(broker).url
    executor = {"kind": "celery", "broker": url, "queue": tmp_path.name, "size": 1}
    executor |= {"worker": {"kind": "processes"}, "deadline": "60s"}
    entries = [{"extension": "jobs", "job": "say", "overlap": "allow"}]
    scheduler = {"executors": {"default": executor}, "jobs": entries}
    scheduler |= {"local_plugins": ["jobs.py"]}
    (tmp_path / "services" / "scheduler").mkdir(parents=True)
    config = tmp_path / "services" / "scheduler" / "config.yaml"
    config.write_text(json.dumps({"scheduler": scheduler}))
    (tmp_path / "jobs.py").write_text(
        "import time\nfrom systemprompt_jobs import job\n"
        "@job\ndef say(*, text: str) -> str: return text\n"
        "@job(timeout='1s')\ndef hangs() -> None: time.sleep(600)\n"
    )
    (tmp_path / "jobs.py").chmod(0o644)
    with (
        Runtime(tmp_path, environ={"SYSTEMPROMPT_PLUGINS": "celery"}) as runtime,
        celery(tmp_path, "--concurrency", "2"),
    ):
        (run,) = runtime.submit("say", parameters={"text": "here"})

        def said():
            return (tmp_path / "celery.log").read_text()[-3_000:]

        wait_for(lambda: runtime.find_run(run.id).finished, "it has run: " + said())
        found = runtime.find_run(run.id)
        assert (found.state, found.message) == (State.SUCCEEDED, "here")
        from systemprompt_jobs_celery._line import lines_of

        sender = Sender(lines_of(runtime, {})["default"])
        sender.send([(run.id, found.fence)])
        sender.close()
        (again,) = runtime.submit("say", parameters={"text": "again"})
        wait_for(lambda: runtime.find_run(again.id).finished, "the next one has run")
        assert len(runtime.attempts(found)) == 1
        (held,) = runtime.submit("hangs")
        wait_for(lambda: runtime.find_run(held.id).finished, "its time is up")
        ended = runtime.find_run(held.id)
        assert (ended.state, "was killed by SIG" in ended.message) == (State.TIMED_OUT, True)
        assert [node.kind for node in runtime.nodes()] == ["scheduler", "worker"]
