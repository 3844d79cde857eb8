"""The JSON API answers what the commands answer, and says what is wrong with a question."""

from __future__ import annotations

import json
import logging
import re
import shutil
import socket
import subprocess
import sys
import warnings
from pathlib import Path

import jsonschema
import pytest
import structlog
from systemprompt_jobs_dashboard import Access
from systemprompt_jobs_dashboard._serve import Pages

from systemprompt_jobs.builtin.cli import main

OPTIONS = (
    *("run", "--no-color", "--seed=1", "--no-shrink", "--max-examples=6"),
    *("--phases=fuzzing", "--continue-on-failure"),
    "--exclude-checks=positive_data_acceptance",  # a text may be no zone, a tag that no job has
)


@pytest.fixture
def said(capsys, project):
    """Return a function that calls a command in this process and returns its JSON."""
    root, shown = logging.getLogger(), warnings.showwarning
    handlers, level = root.handlers[:], root.level

    def call(*arguments):
        capsys.readouterr()
        code = main(["--root", str(project), "infra", "jobs", *arguments, "--json"])
        assert code == 0 or arguments[0] in ("check", "doctor")  # they judge
        return json.loads(capsys.readouterr().out)

    yield call
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)
    warnings.showwarning = shown
    structlog.reset_defaults()


CASES = [
    ("jobs", ["list"]),
    ("jobs?tag=polite", ["list", "--tag", "polite"]),
    ("jobs/jobs:slow", ["status", "slow"]),
    ("jobs/greet", ["status", "greet"]),
    ("jobs/greet/explain", ["explain", "greet"]),
    ("jobs/slow/explain?at=2026-03-29T01:00", ["explain", "slow", "--at", "2026-03-29T01:00"]),
    (
        "jobs/greet/next?number=3&from=2026-03-27",
        ["next", "greet", "-n", "3", "--from", "2026-03-27"],
    ),
    ("jobs/off/next?from=2026-03-27", ["next", "off", "--from", "2026-03-27"]),
    ("next?tz=Asia/Tokyo&from=2026-03-27", ["next", "--tz", "Asia/Tokyo", "--from", "2026-03-27"]),
    (
        "next?schedule=@daily&from=2026-03-27",
        ["next", "--schedule", "@daily", "--from", "2026-03-27"],
    ),
    ("status", ["status"]),
    ("history", ["history"]),
    (
        "history?job=slow&state=skipped&number=1",
        ["history", "--job", "slow", "--state", "skipped", "-n", "1"],
    ),
    (
        "history?grep=ALERT&before=9&since=1d",
        ["history", "--grep", "ALERT", "--before", "9", "--since", "1d"],
    ),
    ("runs/1", ["status", "1"]),
    ("runs/1/logs", ["logs", "1"]),
    ("nodes?gone=7d", ["nodes", "--gone", "7d"]),
    ("stats", ["stats"]),
    ("stats?job=jobs:slow&since=1d", ["stats", "slow", "--since", "1d"]),
    ("audit?limit=2", ["audit", "-n", "2"]),
    ("check", ["check"]),
    ("check?diff", ["check", "--diff"]),
    ("doctor", ["doctor"]),
    ("plugins", ["plugins"]),
    ("config", ["config", "show"]),
]


@pytest.mark.parametrize(("path", "command"), CASES)
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
        ("history?number=many", 400, "number=many: write a whole number from 1 to 1000"),
        ("history?number=1001", 400, "from 1 to 1000"),
        ("history?state=faild", 400, "there is no state 'faild'; did you mean failed?"),
        ("history?sate=failed", 400, "there is no parameter 'sate' here; there is job, state"),
        ("history?job=nope", 404, "nope"),
        ("jobs?tag=nope", 400, "no job has the tag 'nope'"),
        ("check?diff=maybe", 400, "diff=maybe: write true or false"),
        ("next?schedule=*/5 * * * *", 400, "5"),
        ("next?tz=Mars", 400, "Mars"),
        ("jobs/broken/next", 400, "is degraded"),
        ("jobs/greet/explain?at=0001-01-01T00:00%2B23:00", 400, "write a time such as"),
        ("history?before=0", 400, "before=0"),
        ("history?since=today", 400, "since: 'today' is no time: write 2026-03-29T01:00"),
        (f"audit?before={2**70}", 400, "write a whole number"),
    ],
)
def test_a_wrong_question_is_answered_with_what_is_wrong(client, path, status, error):
    answer = client.get(f"/api/{path}")
    assert answer.status_code == status
    assert error in answer.json()["error"]


def test_the_document_describes_every_question_and_what_is_answered(client):
    """OpenAPI: each path is asked above and answers with the keys that it says."""
    document = client.get("/api/openapi.json").json()
    assert document["servers"] == [{"url": "/api"}]
    asked = set()
    for path, _ in CASES:
        found = client.get(f"/api/{path}").json()
        (name,) = [name for name in document["paths"] if _matches(name, path.partition("?")[0])]
        asked.add(name)
        content = document["paths"][name]["get"]["responses"]["200"]["content"]
        jsonschema.validate(found, content["application/json"]["schema"])
    assert asked == set(document["paths"])


def _matches(pattern, path):
    return re.fullmatch(re.sub("{[a-z]+}", "[^/]+", pattern), f"/{path}") is not None


def test_schemathesis_finds_nothing(runtime):
    """Questions made of the document, good and bad, are answered as it says; nothing fails."""
    tool = shutil.which("schemathesis", path=Path(sys.executable).parent)
    pages = Pages(runtime, Access(), socket.create_server(("127.0.0.1", 0)))
    pages.start()
    try:
        answer = subprocess.run(
            [tool, *OPTIONS, f"{pages.address}api/openapi.json"],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            cwd=runtime.project.root,
        )
    finally:
        pages.stop()
    assert answer.returncode == 0, answer.stdout + answer.stderr


def test_the_api_changes_nothing(operator):
    for path in ("jobs", "jobs/jobs:slow", "history"):
        assert operator.post(f"/api/{path}", data={"x": "y"}).status_code == 405


def test_the_readme_lists_every_question_and_its_parameters(client):
    text = (Path(__file__).parents[1] / "README.md").read_text()
    for path, item in client.get("/api/openapi.json").json()["paths"].items():
        shown = path[1:].replace("{job}", "JOB").replace("{run}", "ID")
        (row,) = re.findall(rf"^\| `{shown}` \| .*$", text, re.MULTILINE)
        names = [p["name"] for p in item["get"]["parameters"] if p["in"] == "query"]
        assert [name in row for name in names] == [True] * len(names)
