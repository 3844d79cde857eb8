"""The JSON API answers what the commands answer, and says what is wrong with a question."""

from __future__ import annotations

import json
import logging
import warnings
from urllib.parse import quote, urlencode

import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from systemprompt_jobs.builtin.cli import main


@pytest.fixture
def said(capsys, project):
    """Return a function that calls a command in this process and returns its JSON."""
    root, shown = logging.getLogger(), warnings.showwarning
    handlers, level = root.handlers[:], root.level

    def call(*arguments):
        capsys.readouterr()
        assert main(["--root", str(project), "infra", "jobs", *arguments, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    yield call
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)
    warnings.showwarning = shown
    structlog.reset_defaults()


@pytest.mark.parametrize(
    ("path", "command"),
    [
        ("jobs", ["list"]),
        ("jobs/jobs:slow", ["status", "slow"]),
        ("jobs/greet", ["status", "greet"]),
        ("status", ["status"]),
        ("history", ["history"]),
        ("history?job=jobs:slow&state=skipped&number=1", ["history", "--job", "slow", "--state", "skipped", "-n", "1"]),
        ("history?grep=ALERT&before=9", ["history", "--grep", "ALERT", "--before", "9"]),
        ("runs/1", ["status", "1"]),
        ("nodes", ["nodes"]),
        ("stats", ["stats"]),
        ("stats?job=jobs:slow&days=1", ["stats", "slow", "--since", "1d"]),
        ("audit?limit=2", ["audit", "-n", "2"]),
    ],
)  # fmt: skip
def test_the_api_is_the_commands_json(client, said, path, command):
    answer = client.get(f"/api/{path}")
    assert answer.headers["content-type"] == "application/json"
    assert _still(answer.json()) == _still(said(*command))


def _still(value):
    """Leave out what moves between two questions: coming ticks."""
    if isinstance(value, dict):
        return {k: _still(v) for k, v in value.items() if k not in ("next_tick", "next_ticks")}
    return [_still(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize(
    ("path", "status", "error"),
    [
        ("jobs/nope", 404, "there is no job 'nope'"),
        ("runs/123456", 404, "there is no run 123456"),
        ("nope", 404, "Not Found"),
        ("history?number=many", 400, "number=many: write a whole number from 1 on"),
        ("history?before=0", 400, "before=0"),
        ("history?since=today", 400, "since=today: write a time such as 2026-03-29T01:00"),
        (f"audit?before={2**70}", 400, "write a whole number"),
    ],
)
def test_a_wrong_question_is_answered_with_what_is_wrong(client, path, status, error):
    answer = client.get(f"/api/{path}")
    assert answer.status_code == status
    assert error in answer.json()["error"]


NAMES = (
    "job",
    "state",
    "tag",
    "since",
    "until",
    "node",
    "grep",
    "before",
    "number",
    "days",
    "limit",
)
PATHS = ("jobs", "jobs/{}", "status", "history", "runs/{}", "nodes", "stats", "audit", "{}")
TEXTS = st.one_of(
    st.text(max_size=12),
    st.integers().map(str),
    st.datetimes().map(lambda at: at.isoformat()),
    st.sampled_from(("jobs:slow", "slow", "failed", "retrying", "1", "0", "-1", "%", "\0", "nan")),
)


@settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    path=st.sampled_from(PATHS),
    name=TEXTS,
    asked=st.lists(st.tuples(st.sampled_from(NAMES), TEXTS)),
)
def test_any_question_is_answered_in_json_and_never_by_a_failure(client, path, name, asked):
    address = path.format(quote(name.encode("utf-8", "replace"), safe=""))
    query = urlencode([(key, value.encode("utf-8", "replace")) for key, value in asked])
    answer = client.get(f"/api/{address}?{query}", follow_redirects=True)
    assert answer.status_code in (200, 400, 404), answer.text
    assert isinstance(answer.json(), dict)
    assert ("error" in answer.json()) == (answer.status_code != 200)


def test_the_api_changes_nothing(operator):
    for path in ("jobs", "jobs/jobs:slow", "history"):
        assert operator.post(f"/api/{path}", data={"x": "y"}).status_code == 405
