"""A project with every state a run can be in, on a real SQLite file, and clients of its pages."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
from datetime import UTC, datetime, timedelta

import pytest
from starlette.testclient import TestClient
from systemprompt_jobs_dashboard import Access, _later, create_app

from systemprompt_jobs import Runtime

TOKEN = "an-operators-token-1"
EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"
JOBS = f'''
from systemprompt_jobs import job

EVIL = {EVIL!r}


@job(schedule="0 30 2 * * *", timezone="Europe/Berlin", tags=["polite", "a&b"])
def greet(ctx, *, name: str = "world", api_key: str = ""):
    """Greet somebody."""
    return f"hello {{name}}"


@job(schedule="0 */5 * * * *")
def fail():
    """Say {EVIL!r}."""
    raise RuntimeError(EVIL)


@job(schedule="0 0 * * * *")
def slow(): ...


@job(schedule="0 0 * * * *", enabled=False)
def off(): ...


@job(schedule="0 0 0 * * *")
def quiet(): ...


@job(schedule="not a schedule")
def broken(): ...


@job(max_attempts=2, retry_delay="1s")
def long(ctx, *, wait: bool = True):
    """Go on until somebody cancels it."""
    ctx.log.info("attempt", number=ctx.run.attempt)
    if ctx.run.attempt < 2:
        raise ConnectionError("not yet")
    ctx.progress(3, 12, "page 3")
    while wait:
        ctx.sleep(60)
'''
CONFIG = """
scheduler:
  local_plugins: [jobs.py]
  jobs:
    - {extension: jobs, job: greet, parameters: {name: operator, api_key: sesame}}
"""
STATES = (
    ("succeeded", "", 1, 1),
    ("succeeded", "", 2, 1),
    ("failed", "", 1, 1),
    ("cancelled", "", 1, 1),
    ("lost", "", 1, 1),
    ("skipped", "overlap", 0, 1),
    ("skipped", "paused", 0, 12),
    ("missed", "", 0, 300),
    ("pending", "", 1, 1),
    ("running", "", 1, 1),
)
"""State, reason, attempt, count."""


def micros(instant):
    return int(instant.timestamp() * 1_000_000)


def fill(database, job_id="jobs:slow", now=None, states=STATES):
    """Record a run of each of these states for a job, an hour apart, the newest an hour ago."""
    now = now or datetime.now(UTC)
    hour = timedelta(hours=1)
    with sqlite3.connect(database) as connection:
        for n, (state, reason, attempt, count) in enumerate(states):
            tick = now - (len(states) - n) * hour
            started = tick + timedelta(seconds=n / 10) if attempt else None
            over = started and state not in ("running", "pending")
            finished = started + timedelta(seconds=1 + n) if over else None
            connection.execute(
                "INSERT INTO jobs_run (job_id, dedup_key, tick_at, last_tick, count, trigger, state,"
                " reason, attempt, node, available_at, parameters, enforce, overlap, fingerprint,"
                " distribution, version, created, started, finished, error)"
                " VALUES (?, ?, ?, ?, ?, 'schedule', ?, ?, ?, 'host:1:abc', ?, '{}', 0, 'skip',"
                " '', 'acme', '1.0', ?, ?, ?, ?)",
                (
                    job_id, f"t{n}", micros(tick),
                    micros(tick + hour / 2) if count > 1 else None,
                    count, state, reason, attempt, micros(tick), micros(tick),
                    started and micros(started), finished and micros(finished),
                    EVIL if state in ("failed", "lost") else "",
                ),
            )  # fmt: skip
    connection.close()


@pytest.fixture(autouse=True)
def _alone(monkeypatch):
    """Neither the installed plugins nor the environment has a say; figures are waited for."""
    monkeypatch.setattr(_later, "PATIENCE_S", 30)
    for name in [*os.environ]:
        if name.startswith("SYSTEMPROMPT_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("SYSTEMPROMPT_PLUGINS", "")


@pytest.fixture
def project(tmp_path):
    return make_project(tmp_path / "project")


def make_project(root):
    (root / "services/scheduler").mkdir(parents=True)
    (root / "var").mkdir()
    (root / "services/scheduler/config.yaml").write_text(CONFIG)
    (root / "jobs.py").write_text(JOBS)
    return root


@pytest.fixture(scope="session")
def database(tmp_path_factory):
    """Return a database with a run of each state, and two real ones; it is made once."""
    root = make_project(tmp_path_factory.mktemp("made") / "project")
    runtime = Runtime(root, environ={"SYSTEMPROMPT_PLUGINS": ""})
    runtime.run("greet", "fail", who="test")
    runtime.pause("quiet", until=timedelta(hours=2), note=f"because {EVIL}", who="ann")
    runtime.pause("slow", who="x")  # a job has a row once somebody has paused it
    runtime.resume("slow", who="x")
    runtime.stop()
    fill(root / "var/jobs.db")
    return root / "var/jobs.db"


@pytest.fixture
def runtime(project, database):
    """Return the project's runtime with all that in its history."""
    shutil.copy(database, project / "var/jobs.db")
    runtime = Runtime(project)
    yield runtime
    runtime.stop()


def make_client(runtime, access=None, **options):
    access = access or Access(token=TOKEN)
    options = {"base_url": "http://localhost", "client": ("127.0.0.1", 1)} | options
    return TestClient(create_app(runtime, access), follow_redirects=False, **options)


@pytest.fixture
def client(runtime):
    """Return a browser on this machine that has not logged in."""
    return make_client(runtime)


@pytest.fixture
def operator(runtime):
    """Return a browser that has logged in."""
    client = make_client(runtime)
    answer = client.post("/login", data={"token": TOKEN, "name": "ann"})
    assert answer.status_code == 303, answer.text
    return client


def csrf(client):
    """Return the token of the session's forms."""
    return re.search(r'name="csrf" value="([^"]+)"', client.get("/").text).group(1)
