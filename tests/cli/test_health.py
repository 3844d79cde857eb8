"""What probes and systemd are told."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import urllib.error
import urllib.request

import pytest

from systemprompt_jobs import Runtime, hookimpl
from systemprompt_jobs.builtin.cli import _systemd
from systemprompt_jobs.builtin.health import HealthServer
from systemprompt_jobs.errors import StoreError, UsageError
from tests.cli.conftest import CONFIG, DEGRADED, JOBS, make_project


def get(port, path, method="GET"):
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", method=method)
    try:
        with urllib.request.urlopen(request, timeout=90) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers["Content-Type"], error.read()


class Pages:
    @hookimpl
    def health_page(self, path):
        if path == "/broken":
            raise LookupError("no such metric")
        return ("text/plain", b"up 1\n") if path == "/metrics" else None


@pytest.fixture
def runtime(tmp_path):
    made = Runtime(make_project(tmp_path / "project", JOBS + DEGRADED), plugins=[Pages()])
    yield made
    made.stop()


@pytest.fixture
def port(runtime):
    server = HealthServer(runtime, "127.0.0.1", 0)
    server.start()
    yield server.port
    server.stop()


def test_before_the_start_it_lives_and_is_not_ready(port):
    assert get(port, "/healthz")[0] == 200
    status, kind, body = get(port, "/readyz")
    assert (status, kind) == (503, "application/json")
    assert json.loads(body)["reasons"] == ["the scheduler is not running"]


def test_while_it_waits_for_its_database_it_says_why(runtime, port):
    file = runtime.project.root / "var/jobs.db"
    file.mkdir(parents=True)
    with pytest.raises(StoreError):
        runtime.start()
    _, why = json.loads(get(port, "/readyz")[2])["reasons"]
    assert f"the database path {file} is a folder" in why
    file.rmdir()
    runtime.start()
    assert get(port, "/readyz")[0] == 200


def test_a_running_scheduler_is_ready_and_says_what_is_degraded(runtime, port):
    runtime.start()
    status, _, body = get(port, "/readyz?verbose")
    assert status == 200
    (degraded,) = json.loads(body)["degraded"]
    assert "jobs:broken" in degraded


def test_a_lease_that_ran_out_is_not_ready(runtime, port):
    runtime.start()
    runtime._live._keeper._renewed = float("-inf")
    status, _, body = get(port, "/readyz")
    assert status == 503
    assert "nothing could be recorded" in json.loads(body)["reasons"][0]
    assert get(port, "/healthz")[0] == 200


def test_a_thread_that_hangs_is_not_alive(runtime, port):
    runtime.start()
    runtime._live._loops[0].stuck_for = lambda: 1e9
    status, _, body = get(port, "/healthz")
    assert status == 503
    assert json.loads(body)["reasons"] == ["the thread record is stuck"]


def test_plugins_add_pages(port):
    assert get(port, "/metrics") == (200, "text/plain", b"up 1\n")
    assert get(port, "/metrics", "HEAD") == (200, "text/plain", b"")
    assert get(port, "/nothing")[0] == 404


def test_a_page_that_raises_concerns_its_reader_alone(port):
    assert get(port, "/broken") == (500, "text/plain", b"LookupError: no such metric")
    assert get(port, "/healthz")[0] == 200


def test_a_port_that_is_taken_is_one_clear_error(runtime, port):
    with pytest.raises(UsageError, match=f"127.0.0.1:{port} cannot be used: Address already"):
        HealthServer(runtime, "127.0.0.1", port)


def test_serve_answers_on_its_address(started, tmp_path):
    config = CONFIG + "  health_address: 127.0.0.1:0\n"
    process = started(
        "--root", make_project(tmp_path / "p", config=config), "infra", "jobs", "serve"
    )
    port = json.loads(process.line_with("health_server_started"))["port"]
    process.line_with("scheduler_started")
    assert get(port, "/readyz")[0] == 200
    process.signal(signal.SIGTERM)
    assert process.end().code == 0


@pytest.mark.parametrize("text", ["8080", ":8080", "host:", "host:http", "host:99999"])
def test_a_wrong_address_is_a_mistake(cli, new_project, text):
    root = new_project(config=CONFIG + f"  health_address: '{text}'\n")
    answer = cli("--root", root, "infra", "jobs", "check")
    assert answer.code == 2
    assert "not an address such as 127.0.0.1:8080" in answer.out


def test_systemd_hears_that_it_is_ready_alive_and_stopping(started, project, tmp_path, monkeypatch):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.settimeout(60)
        systemd.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "200000")
        process = started("--root", project, "infra", "jobs", "serve")
        heard = [systemd.recv(100).decode() for _ in range(3)]
        assert heard == ["READY=1", "WATCHDOG=1", "WATCHDOG=1"]
        process.signal(signal.SIGTERM)
        while systemd.recv(100) != b"STOPPING=1":
            pass
        assert process.end().code == 0


def test_the_watchdog_of_another_process_is_left_alone(monkeypatch):
    monkeypatch.setenv("WATCHDOG_USEC", "200000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid() + 1))
    assert _systemd.start_watchdog(lambda: True) is None
    assert "jobs-watchdog" not in {thread.name for thread in threading.enumerate()}
