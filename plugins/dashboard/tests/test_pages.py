"""What the pages show, of a project in which everything has happened."""

from __future__ import annotations

import re
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient
from systemprompt_jobs_dashboard import _later, _timeline, create_app
from systemprompt_jobs_dashboard._catalogue import Catalogue, Chosen

from plugins.dashboard.tests.conftest import CONFIG, fill
from systemprompt_jobs import Runtime

PAGES = ("/", "/jobs/jobs:slow", "/jobs/jobs:quiet", "/timeline", "/nodes", "/audit", "/login")
EVERY = ("succeeded", "retried", "failed", "cancelled", "lost", "skipped", "missed", "running")


def test_the_jobs_page_has_every_job_with_its_schedule_in_words(client):
    text = client.get("/").text
    for name in ("greet", "fail", "slow", "off", "quiet", "broken"):
        assert f">jobs:{name}</a>" in text
    assert "every day at 02:30, Europe/Berlin" in text


def test_the_strip_tells_every_state_by_shape_colour_and_words(client):
    text = client.get("/?q=slow").text
    for look in EVERY:
        assert f'<i class="{look}">' in text
    assert "newest 10: " in text
    assert "1 retried" in text


def test_what_keeps_a_job_from_running_is_on_the_first_page(client):
    text = client.get("/").text
    for badge in ("paused", "disabled", "degraded"):
        assert f'<span class="badge {badge}"' in text
    assert "no scheduler is live: nothing will run" in text
    assert "not a schedule" in text


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("?q=SLOW", ["slow"]),
        ("?q=berlin", ["greet"]),
        ("?tag=polite", ["greet"]),
        ("?only=paused", ["quiet"]),
        ("?only=disabled", ["off"]),
        ("?only=trouble", ["broken", "fail"]),
        ("?only=running", ["slow"]),
        ("?q=nothing", []),
        ("?page=999999&only=nonsense&q=off", ["off"]),
    ],
)
def test_search_tags_and_conditions_narrow_the_list(client, query, found):
    text = client.get(f"/{query}").text
    names = ("broken", "fail", "greet", "long", "off", "quiet", "slow")
    assert [name for name in names if f'class="id" href="/jobs/jobs%3A{name}"' in text] == found


def test_a_job_page_explains_charts_and_lists(client):
    text = client.get("/jobs/jobs:slow").text
    for said in ("Next ticks", "Values in force", "History", "Why not at", "p50, p95"):
        assert said in text
    assert text.count("<svg") == 2
    assert text.count("<time ") == 10
    assert "skipped: paused x12" in text


def test_a_job_page_says_what_went_wrong_lately_and_how_often(client):
    text = client.get("/jobs/jobs:slow").text
    troubles = re.findall(r'<p class="problem">.*?</p>', text)
    said = [re.sub(r"<[^>]*>|\s+", " ", trouble).split() for trouble in troubles]
    went = "1 of the newest 10 went so"
    assert [" ".join(words) for words in said] == [
        f"! missed x300 run 10 : no scheduler ran it in time · {went}",
        f"- skipped: paused x12 run 9 : the job was paused · {went}",
        f"- skipped: overlap run 8 : the run before still ran · {went}; a run takes 2.0 s",
    ]
    assert "went so" not in client.get("/jobs/jobs:greet").text


def test_trouble_is_not_what_a_job_has_skipped_itself(client, runtime, project):
    states = [("skipped", "overlap", 0, 1), ("skipped", "job", 1, 1)]
    fill(project / "var/jobs.db", "jobs:greet", states=states)
    by_itself, by_overlap = runtime.history(limit=2)
    listed = client.get("/").text.partition("<h2>Latest trouble</h2>")[2]
    assert f'href="/runs/{by_overlap.id}"' in listed
    assert f'href="/runs/{by_itself.id}"' not in listed
    page = client.get("/jobs/jobs:greet").text
    assert [f">run {run.id}</a>" in page for run in (by_overlap, by_itself)] == [True, False]


def test_a_lost_run_has_no_time_that_it_took(client):
    """It ends when it is found to be lost."""
    text = client.get("/?q=slow").text
    assert 'data-name="p95" class="number">3.0 s' in text
    assert "took 5.0 s" in client.get("/jobs/jobs:slow").text  # its mark in the strip


def test_next_ticks_tell_of_daylight_saving(client):
    """Somewhere in the ticks of a year there are two changes; the page marks those it shows."""
    from systemprompt_jobs_dashboard._job import _clock_change

    assert _clock_change(timedelta(hours=1), timedelta(hours=2)) == "clocks go forward 1 h"
    assert _clock_change(timedelta(hours=2), timedelta(hours=1)) == "clocks go back 1 h"
    assert _clock_change(timedelta(hours=2), timedelta(hours=2)) == ""


def test_a_job_page_asks_for_one_job(runtime):
    found = [job.plan.id for job in runtime.jobs("jobs:slow", "jobs:nope", "jobs:fail")]
    assert found == ["jobs:fail", "jobs:slow"]
    every = {job.plan.id: job for job in runtime.jobs()}
    assert len(every) == 7
    assert runtime.jobs("jobs:slow") == [every["jobs:slow"]]


def test_values_have_their_sources_and_secrets_are_masked(client):
    text = client.get("/jobs/jobs:greet").text
    assert "config.yaml:5" in text
    assert "***" in text
    assert "sesame" not in text


def test_why_not_at_is_answered_in_the_jobs_zone(client):
    text = client.get("/jobs/jobs:greet?at=2026-01-05T03:00").text
    assert '<div class="answer">' in text
    assert "has no tick then" in text


@pytest.mark.parametrize("at", ["yesterday", "<b>", "9999-12-31T23:59:59.9+99:99"])
def test_a_wrong_time_is_named(client, at):
    answer = client.get("/jobs/jobs:greet", params={"at": at})
    assert answer.status_code == 200
    assert "is no time: write 2026-03-29T01:00" in answer.text
    assert "<b>" not in answer.text


def test_a_run_has_its_times_node_fence_parameters_error_and_traceback(client, runtime):
    failed = runtime.history(job="jobs:fail", limit=1)[0]
    text = client.get(f"/runs/{failed.id}").text
    for said in (
        "claimed",
        "gate",
        "end",
        "fence",
        failed.node,
        "Traceback (most recent call last)",
    ):
        assert said in text
    greeted = runtime.history(job="jobs:greet", limit=1)[0]
    text = client.get(f"/runs/{greeted.id}").text
    assert "hello operator" in text
    assert "sesame" not in text


def test_a_run_has_its_attempts_each_with_its_end_log_and_traceback(runtime, client):
    (run,) = runtime.run("long", parameters={"wait": False})
    text = client.get(f"/runs/{run.id}").text
    assert "attempt 1 failed" in text
    assert "attempt 2 succeeded" in text
    assert "ConnectionError: not yet" in text
    assert '<progress aria-label="progress" max="12' in text
    for number in (1, 2):
        assert f'aria-label="log of attempt {number}">' in text
    assert text.count("number=1") == text.count("number=2") == 1


def test_a_run_that_never_ran_says_why(client, runtime):
    missed = runtime.history(states=["missed"], limit=1)[0]
    text = client.get(f"/runs/{missed.id}").text
    assert "It lies in a stretch of 300 ticks" in text
    assert "No scheduler is known to have been up at that time." in text


def test_every_state_of_a_run_has_a_page(client, runtime):
    runs = runtime.history(limit=100)
    assert len({run.state for run in runs}) >= 8
    for run in runs:
        assert client.get(f"/runs/{run.id}").status_code == 200


@pytest.mark.parametrize("path", ["/runs/99999", f"/runs/{2**70}", "/jobs/nope", "/nope"])
def test_what_there_is_not_is_a_page_that_says_so(client, path):
    answer = client.get(path)
    assert answer.status_code == 404
    assert "To all jobs" in answer.text


def test_the_timeline_has_the_past_the_coming_and_herds(client):
    text = client.get("/timeline").text
    assert 'class="failed"' in text
    assert 'class="coming"' in text
    assert "Herds" in text


def test_herds_are_the_seconds_at_which_many_jobs_are_due(project):
    lines = [f"h{n} = job(name='h{n}', schedule='0 0 4 * * *')(lambda: None)" for n in range(7)]
    (project / "jobs.py").write_text("\n".join(["from systemprompt_jobs import job", *lines]))
    (project / "services/scheduler/config.yaml").write_text("scheduler: {local_plugins: [jobs.py]}")
    now = datetime(2026, 3, 2, 10, tzinfo=UTC)
    found = _timeline.ahead(Runtime(project), now)
    (herd,) = found.herds
    assert (herd.at, herd.number) == (now + timedelta(hours=18), 7)
    assert herd.ids[0] == "jobs:h0"
    assert found.due == {_timeline.HALF + 72: 7}


def test_a_configuration_read_again_is_searched_anew(project):
    runtime = Runtime(project)
    catalogue = Catalogue(runtime)
    everything = Chosen("", "", "all", 1)
    assert "jobs:off" in catalogue.find(replace(everything, only="disabled"))
    assert catalogue.find(replace(everything, q="02:30")) == ["jobs:greet"]
    config = project / "services/scheduler/config.yaml"
    entries = "    - {extension: jobs, job: 'off', enabled: true, schedule: '0 30 2 * * *'}\n"
    config.write_text(CONFIG + entries)
    assert runtime.reload() == ()
    assert catalogue.find(replace(everything, only="disabled")) == []
    assert catalogue.find(replace(everything, q="02:30")) == ["jobs:greet", "jobs:off"]


def test_what_takes_long_is_counted_beside_the_pages(monkeypatch):
    monkeypatch.setattr(_later, "PATIENCE_S", 0)
    go, counted = threading.Event(), []
    figure = _later.Later(lambda: (go.wait(30) and counted.append(1)) or len(counted), 3600)
    assert figure.get() is None
    assert figure.get() is None
    assert not figure.known
    go.set()
    monkeypatch.setattr(_later, "PATIENCE_S", 30)
    assert [figure.get(), figure.get()] == [1, 1]
    assert counted == [1]


def test_nodes_and_audit(client):
    assert "database answers in" in client.get("/nodes").text
    text = client.get("/audit").text
    assert "pause" in text
    assert "ann" in text


@pytest.mark.parametrize("path", PAGES)
def test_a_first_view_is_small(client, path):
    whole = sum(
        len(client.get(p).content) for p in (path, "/static/dashboard.css", "/static/dashboard.js")
    )
    assert whole < 50_000


@pytest.mark.parametrize("path", PAGES)
def test_mounted_below_a_path_every_link_stays_there(runtime, path):
    app = Starlette(routes=[Mount("/jobs-page", create_app(runtime))])
    client = TestClient(app, base_url="http://localhost", client=("127.0.0.1", 1))
    answer = client.get(f"/jobs-page{path}")
    assert answer.status_code == 200
    assert answer.text.count('href="/') == answer.text.count('href="/jobs-page/')
    assert client.get("/jobs-page/static/dashboard.css").status_code == 200


def test_a_project_without_a_database_shows_its_jobs(project):
    client = TestClient(
        create_app(Runtime(project)), base_url="http://localhost", client=("127.0.0.1", 1)
    )
    for path in PAGES[:-1]:
        assert client.get(path).status_code == 200
    assert not (project / "var/jobs.db").exists()


def test_a_run_that_waits_for_its_next_attempt_is_retrying_not_pending(client, runtime):
    """The database has run 9 of `fill` as pending with an attempt behind it."""
    (run,) = runtime.history(job="jobs:slow", states=["pending"])
    text = client.get(f"/runs/{run.id}").text
    assert re.search(r'class="state pending"><span aria-hidden="true">·</span> retrying', text)
