"""Whatever becomes of messages and brokers, each run is begun once and comes to its end."""

from __future__ import annotations

import json
import os
import socket
import time
from collections import Counter
from contextlib import ExitStack

import pytest
from kombu.messaging import Consumer
from systemprompt_jobs_celery._app import TASK, new_app, queue_of
from systemprompt_jobs_celery._intake import Hand
from systemprompt_jobs_celery._line import Line, lines_of
from systemprompt_jobs_celery._sender import Sender
from systemprompt_jobs_celery._worker import Worker

from systemprompt_jobs import Runtime
from systemprompt_jobs.model import State

PATIENCE_S = 90.0
JOBS = """
import os, time
from systemprompt_jobs import job

def note(ctx):
    with open("{log}", "a") as log:
        log.write(f"{{ctx.run.id}}\\n")

@job(overlap="allow")
def quick(ctx):
    note(ctx)
    return f"pid {{os.getpid()}}"

@job(schedule="* * * * * *", enabled=False, overlap="allow")
def tickly(ctx):
    note(ctx)

@job(timeout="1s")
def hangs(ctx):
    while True:
        time.sleep(60)
"""


def until(condition, why):
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"it did not happen: {why}"
        time.sleep(0.05)


class Site:
    """One database and one queue, with a project for each plugin set."""

    def __init__(self, folder, broker):
        self.folder, self.broker = folder, broker
        self.log = folder / "starts"
        self._open = ExitStack()

    def project(self, name="full", plugins=True, jobs=(), **executor):
        root = self.folder / name
        values = {"worker": {"kind": "threads"}, "size": 4, "deadline": "1s", **executor}
        default = {"kind": "celery", "broker": self.broker, "queue": self.folder.name, **values}
        scheduler = {
            "database": f"sqlite:///{self.folder}/jobs.db",
            "lease": "1s",
            "shutdown_grace": "0s",
            "local_plugins": ["jobs.py"] if plugins else [],
            "executors": {"default": default},
            "jobs": list(jobs),
        }
        config = root / "services" / "scheduler" / "config.yaml"
        config.parent.mkdir(parents=True, exist_ok=True)
        config.write_text(json.dumps({"scheduler": scheduler}))
        (root / "jobs.py").write_text(JOBS.format(log=self.log))
        (root / "jobs.py").chmod(0o644)
        return root

    def runtime(self, root):
        runtime = Runtime(root, environ={"SYSTEMPROMPT_PLUGINS": "celery"})
        self._open.callback(runtime.stop)
        return runtime

    def scheduler(self, root):
        runtime = self.runtime(root)
        runtime.start()
        return runtime

    def worker(self, root):
        runtime = self.runtime(root)
        worker = Worker(runtime, lines_of(runtime, {}))
        self._open.callback(worker.stop)
        worker.start()
        return worker

    def starts(self):
        return Counter(self.log.read_text().split()) if self.log.exists() else Counter()

    def close(self):
        self._open.close()


@pytest.fixture
def site(tmp_path, redis):
    site = Site(tmp_path, redis.url)
    yield site
    site.close()


def ended(runtime, runs):
    return all(runtime.find_run(run.id).finished for run in runs)


def test_with_every_message_sent_twice_and_one_in_ten_lost_each_run_starts_once(site, monkeypatch):
    publish, calls = Sender._publish, []

    def badly(sender, run_id, fence):
        calls.append(run_id)
        for _ in range(0 if len(calls) % 10 == 1 else 2):
            publish(sender, run_id, fence)

    monkeypatch.setattr(Sender, "_publish", badly)
    root = site.project()
    site.worker(root)
    runtime = site.scheduler(root)
    runs = [run for _ in range(40) for run in runtime.submit("quick")]
    until(lambda: ended(runtime, runs), "all runs end")
    found = [runtime.find_run(run.id) for run in runs]
    assert {run.state for run in found} == {State.SUCCEEDED}
    assert site.starts() == {str(run.id): 1 for run in runs}
    assert max(run.fence for run in found) > 1, "what was lost was sent again"


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"\x80\x04N.", "application/json"),
        (b"\x80\x04N.", "application/x-python-serialize"),
        (b"[" * 100_000, "application/json"),
    ],
    ids=["no JSON", "a pickle", "nested deeply"],
)
def test_a_message_that_names_no_run_is_refused_and_those_behind_it_are_taken(
    site, body, content_type, capsys, caplog
):
    root = site.project()
    scheduler = site.scheduler(root)
    (line,) = lines_of(scheduler, {}).values()
    with new_app(line).connection_for_write() as connection:
        connection.Producer().publish(
            body,
            routing_key=line.queue,
            headers={"task": TASK},
            content_type=content_type,
            content_encoding="binary",
        )
    runs = scheduler.submit("quick")
    site.worker(root)
    until(lambda: ended(scheduler, runs), "the run behind the message has ended")
    said = capsys.readouterr().out + caplog.text  # as the tests before have left structlog
    assert line.queue in line_with("message_refused", said)


def line_with(word, text):
    return next(line for line in text.splitlines() if word in line)


def test_messages_that_came_in_together_are_read_together(rabbitmq, tmp_path):
    line = Line(broker=rabbitmq.url, queue=tmp_path.name)
    sender, reads, heard = Sender(line), 0, []
    sender.send([(run, 1) for run in range(100)])
    sender.close()
    with new_app(line).connection_for_read() as connection:
        transport = connection.connection.transport
        receive = transport._quick_recv

        def counted(size):
            nonlocal reads
            reads += 1
            return receive(size)

        transport._quick_recv = counted
        with Hand(connection) as hand:
            channel = connection.channel()
            consumer = Consumer(channel, [queue_of(line)], prefetch_count=200, no_ack=True)
            consumer.on_message = heard.append
            with consumer:
                until(lambda: hand.listen() or len(heard) == 100, "all are heard")
    assert reads < 500  # py-amqp by itself makes 900


def test_a_batch_is_written_at_one_go_and_confirmed_before_it_counts_as_sent(rabbitmq, tmp_path):
    line = Line(broker=rabbitmq.url, queue=tmp_path.name)
    sender, writes = Sender(line), []
    transport = sender._connection.connection.transport
    write = transport._write
    transport._write = lambda data: (writes.append(len(data)), write(data))
    sender.send([(run, 1) for run in range(100)])
    assert len(writes) == 1
    with new_app(line).connection_for_read() as connection:
        found = queue_of(line)(connection.channel()).queue_declare(passive=True)
        assert found.message_count == 100
    sender.close()


def test_what_was_read_ahead_is_handed_on_without_waiting_for_more():
    quiet, _other = socket.socketpair()
    with quiet, _other, Hand(Ahead(quiet)) as hand:
        hand.listen()
        assert hand._connection.drained == 1


class Ahead:
    """A connection whose transport has read a message, and whose socket stays quiet."""

    def __init__(self, sock):
        self.sock, self.connection, self.transport = sock, self, self
        self._read_buffer = b"a message"
        self.drained = 0

    def drain_events(self, timeout):
        self._read_buffer = b""
        self.drained += 1


def test_a_worker_without_the_plugin_gives_the_run_back_and_another_takes_it(site):
    root = site.project()
    bare = site.worker(site.project("bare", plugins=False))
    runtime = site.scheduler(root)
    (run,) = runtime.submit("quick")
    until(lambda: runtime.find_run(run.id).message, "it is handed back")
    waiting = runtime.find_run(run.id)
    assert waiting.reason in {"no plugin", ""}
    bare.stop()  # who gets it is a matter of luck while both ask for messages
    site.worker(root)
    until(lambda: ended(runtime, [run]), "the other worker takes it")
    assert runtime.find_run(run.id).state is State.SUCCEEDED
    assert site.starts() == {str(run.id): 1}


def test_a_run_that_no_worker_has_the_plugin_of_says_so_where_it_is_asked(site):
    root = site.project(jobs=[{"extension": "jobs", "job": "tickly", "enabled": True}])
    site.worker(site.project("bare", plugins=False))
    runtime = site.scheduler(root)
    until(lambda: runtime.history(states=[State.PENDING], text="does not have"), "handed back")
    (run, *_) = runtime.history(states=[State.PENDING], text="does not have")
    said = runtime.explain("tickly", run.tick).sentences
    assert [line for line in said if "does not have jobs:tickly" in line]


def test_while_the_broker_is_down_ticks_are_recorded_and_wait_and_then_all_of_them_run(site, redis):
    root = site.project(jobs=[{"extension": "jobs", "job": "tickly", "enabled": True}])
    site.worker(root)
    runtime = site.scheduler(root)
    until(lambda: runtime.history(states=[State.SUCCEEDED]), "ticks run")
    redis.stop()
    try:
        until(lambda: len(runtime.history(states=[State.PENDING])) > 2, "ticks wait as pending")
        assert [r for r in runtime.health().reasons if "redis://" in r]
    finally:
        redis.start()
    waiting = runtime.history(states=[State.PENDING], limit=100)
    until(lambda: ended(runtime, waiting), "what waited has run")
    found = runtime.history(limit=500)
    assert {run.state for run in found if run.finished} == {State.SUCCEEDED}
    assert set(site.starts().values()) == {1}
    ticks = sorted(run.tick for run in found)
    assert (ticks[-1] - ticks[0]).total_seconds() == len(ticks) - 1, "each second is in one row"


def test_a_timeout_kills_what_runs_on_the_worker(site):
    root = site.project(worker={"kind": "processes"}, size=1)
    site.worker(root)
    runtime = site.scheduler(root)
    quick = runtime.submit("quick")
    until(lambda: ended(runtime, quick), "there is a process to kill")
    (run,) = runtime.submit("hangs")
    until(lambda: ended(runtime, [run]), "its time is up")
    found = runtime.find_run(run.id)
    assert (found.state, found.attempt) == (State.TIMED_OUT, 1)
    assert "was killed by SIG" in found.message


def test_a_run_by_hand_waits_for_its_end_on_the_worker(site):
    root = site.project()
    site.worker(root)
    (run,) = site.runtime(root).run("quick", who="ada")
    assert (run.state, run.message) == (State.SUCCEEDED, f"pid {os.getpid()}")


def test_what_runs_on_a_worker_that_is_told_to_stop_is_cut_off_and_what_waits_goes_back(site):
    root = site.project(worker={"kind": "processes"}, size=1, deadline="60s")
    worker = site.worker(root)
    runtime = site.scheduler(root)
    (held,) = runtime.submit("hangs")
    until(lambda: runtime.find_run(held.id).state is State.RUNNING, "it runs")
    (run,) = runtime.submit("quick")
    until(lambda: runtime.find_run(run.id).state is State.DISPATCHED, "it was sent")
    worker.stop()
    until(lambda: ended(runtime, [held]), "it was cut off")
    site.worker(root)
    until(lambda: ended(runtime, [run]), "another takes what waited")
    assert runtime.find_run(held.id).state in {State.CANCELLED, State.TIMED_OUT}
    assert site.starts() == {str(run.id): 1}


def test_workers_are_listed_with_the_nodes_and_runs_under_way_with_those_that_run(site):
    root = site.project()
    runtime = site.scheduler(root)
    (run,) = runtime.submit("quick")
    until(lambda: runtime.find_run(run.id).state is State.DISPATCHED, "it was sent")
    assert [found.id for found in runtime.status().running] == [run.id]
    worker = site.worker(root)
    until(lambda: ended(runtime, [run]), "it has run")
    kinds = [(node.kind, node.workers) for node in runtime.nodes()]
    assert kinds == [("scheduler", 0), ("worker", 4)]
    assert [node.kind for node in runtime.schedulers()] == ["scheduler"]
    worker.stop()
    assert [node.state for node in runtime.nodes() if node.kind == "worker"] == ["left"]


def test_a_run_by_hand_that_cannot_be_sent_says_so_and_waits_for_a_scheduler(site):
    site.broker = "redis://:secret@127.0.0.1:1/0"
    runtime = site.runtime(site.project(deadline="60s"))
    (run,) = runtime.run("quick")
    assert run.state is State.PENDING
    assert "redis://:***@127.0.0.1:1/0 cannot be used" in run.message
    runtime.stop()
    waiting = runtime.find_run(run.id)
    assert (waiting.state, waiting.reason) == (State.PENDING, "not sent")
