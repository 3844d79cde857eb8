"""Open pages hear of a change, and the database is asked once for all of them."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest
from systemprompt_jobs_dashboard import _events

from plugins.dashboard.tests.conftest import fill, make_client

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)


@pytest.fixture
def changes(runtime, monkeypatch):
    monkeypatch.setattr(_events, "LOOK_S", 0.0)  # every question is asked
    monkeypatch.setattr(_events._words, "now", lambda: NOON)
    return _events.Changes(runtime)


def test_a_pause_and_a_new_run_are_changes_and_silence_is_none(changes, runtime, project):
    stamps = [changes.stamp(), changes.stamp()]
    assert stamps[0] == stamps[1]
    runtime.pause("off")
    stamps.append(changes.stamp())
    fill(project / "var/jobs.db", "jobs:off")
    stamps.append(changes.stamp())
    assert len({*stamps}) == 3


def test_a_stream_says_changed_at_first_and_after_a_change_only(changes, runtime):
    async def listen():
        stream = _events.stream(changes, look_s=0)
        heard = [await anext(stream), await anext(stream)]
        assert changes.listeners == 1
        runtime.pause("off")
        heard.append(await anext(stream))
        await stream.aclose()
        return heard

    first, quiet, again = asyncio.run(listen())
    assert first.startswith("event: changed\ndata: ")
    assert quiet == ": still here\n\n"
    assert again.startswith("event: changed\ndata: ")
    assert again != first
    assert changes.listeners == 0


def test_many_open_pages_ask_the_database_once(runtime, monkeypatch):
    asked = []
    monkeypatch.setattr(_events, "LOOK_S", 3600.0)
    changes = _events.Changes(runtime)
    monkeypatch.setattr(changes, "_look", lambda: asked.append(1) or "x")
    assert {changes.stamp() for _ in range(50)} == {"x"}
    assert asked == [1]


def test_too_many_open_pages_are_refused(runtime):
    client = make_client(runtime)
    client.app.state.dashboard.changes.listeners = 32
    assert client.get("/events").status_code == 503
