"""The section: what it means, and one clear error for each mistake, without a secret."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path

import pytest
import yaml
from systemprompt_jobs_alerts._alert import FIELDS, Alert, Kind
from systemprompt_jobs_alerts._config import SECTION, Config, Mail, Route, Webhook, read

from systemprompt_jobs.errors import ConfigurationError
from systemprompt_jobs.model import CollectedJob, Collection, Extension, Problem
from tests.support import START, make_job

FOLDER = Path(__file__).parents[1]
WEB = {"type": "webhook", "url": "https://example.com/S3CRET"}
MAIL = {"type": "smtp", "host": "mail", "sender": "a@b.c", "to": ["d@e.f"]}
SHOUTED = {"username": "a", "password": "S3CRET", "security": "none"}
COLLECTION = Collection(
    jobs=tuple(CollectedJob(Extension("ext", "ext"), make_job(name)) for name in ("one", "two")),
    blocked=("shut",),
    degraded={"ill": Problem("ill", "broken")},
)


def mistakes(section):
    with pytest.raises(ConfigurationError) as error:
        read(section, COLLECTION)
    text = str(error.value)
    assert "S3CRET" not in text
    assert all(problem.culprit.startswith(SECTION) for problem in error.value.problems)
    return [line.removeprefix(f"{SECTION}.") for line in text.splitlines()]


def alert(kind="failed", job="ext:one"):
    return Alert(kind, "", START, job)


def test_an_empty_section_is_right_and_watches_nothing():
    assert read({}, COLLECTION).channels == {}


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"chanels": {}}, "chanels: unknown key (known are name, channels, routes, "),
        ({"channels": {"a": {"url": "x"}}}, "channels.a: has no type: write `type: webhook`"),
        ({"channels": {"a": {"type": "fax"}}}, "channels.a: has an unknown type: "),
        ({"channels": {"a": {"type": "webhook"}}}, "channels.a.url: is missing"),
        ({"channels": {"a": WEB | {"url": "S3CRET"}}}, "channels.a.url: is no address that"),
        ({"channels": {"a": WEB | {"url": "ftp://S3CRET"}}}, "channels.a.url: is no address"),
        ({"channels": {"a": WEB | {"url": "http://a:S3CRET"}}}, "channels.a.url: is no address"),
        ({"channels": {"a": WEB | {"url": "http://a/\nS3CRET"}}}, "channels.a.url: is no addr"),
        ({"channels": {"a": WEB | {"color": 1}}}, "channels.a.color: unknown key (known are type"),
        ({"channels": {"a": WEB | {"headers": {"A": "S3CRET\r\nB: C"}}}}, "channels.a.headers.A: "),
        ({"channels": {"a": WEB | {"body": "{nope}"}}}, "channels.a.body: {nope} cannot be filled"),
        ({"channels": {"a": WEB | {"body": {"b": ["{job.id}"]}}}}, "channels.a.body: {job.id} can"),
        ({"channels": {"a": WEB | {"body": "{"}}}, "channels.a.body: "),
        ({"channels": {"a": WEB | {"timeout": "0s"}}}, "channels.a.timeout: "),
        ({"channels": {"a": MAIL | {"to": []}}}, "channels.a.to: must not be empty"),
        ({"channels": {"a": MAIL | {"password": "S3CRET"}}}, "channels.a: username and password"),
        (
            {"channels": {"a": MAIL | SHOUTED}},
            "channels.a: a password needs `security: starttls` or `tls`",
        ),
        ({"channels": {"a": WEB}, "routes": [{}]}, "routes[0].channels: is missing"),
        (
            {"channels": {"a": WEB}, "routes": [{"channels": ["a", "b"]}]},
            "routes[0].channels[1]: there is no channel 'b' (there is a)",
        ),
        (
            {"channels": {"a": WEB}, "routes": [{"channels": ["a"], "kinds": ["bad"]}]},
            "routes[0].kinds[0]: input should be 'failed', 'timed_out', 'lost', ",
        ),
        (
            {"channels": {"a": WEB}, "routes": [{"channels": ["a"], "jobs": ["ext:tow"]}]},
            "routes[0].jobs[0]: 'ext:tow' fits no job",
        ),
        ({"channels": {"a": WEB}, "no_success": {"two": "1h"}}, "no_success.two: 'two' fits no "),
        ({"channels": {"a": WEB}, "no_success": {"ext:one": "soon"}}, "no_success.ext:one: 'soon'"),
        ({"no_success": {"ext:one": "1h"}}, "channels: is missing: nobody would be told"),
        ({"repeat": "-1s"}, "repeat: '-1s' is no duration"),
        ({"rate": {"messages": 0}}, "rate.messages: "),
        ({"rate": {"message": 1}}, "rate.message: unknown key (known are messages, per)"),
        ({"name": "a\nb"}, "name: must be text in one line"),
    ],
)
def test_a_mistake_is_one_error_that_names_its_path(section, said):
    (line,) = mistakes(section)
    assert line.startswith(said)


def test_all_mistakes_are_named_in_one_go():
    assert len(mistakes({"name": "", "repeat": "x", "channels": {"a": WEB | {"b": 1}}})) == 3


def test_a_job_of_a_plugin_that_is_broken_or_kept_out_is_no_mistake():
    jobs = {"ill:one": "1h", "shut:one": "1h", "ext:*": "1h"}
    assert read({"channels": {"a": WEB}, "no_success": jobs}, COLLECTION).no_success.keys() == {
        *jobs
    }


def test_without_routes_everything_goes_everywhere():
    config = read({"channels": {"a": WEB, "b": MAIL}})
    assert config.route(alert(), frozenset()) == ["a", "b"]


@pytest.mark.parametrize(
    ("sent", "tags", "taken"),
    [
        (alert(), [], ["all"]),
        (alert(), ["x", "red"], ["all", "tag"]),
        (alert(job="ext:two"), [], ["all", "job"]),
        (alert("lost"), [], ["all", "kind"]),
        (alert("lost", "ext:two"), ["red"], ["all", "job", "kind", "tag", "both"]),
        (alert("database", ""), [], ["all"]),
    ],
)
def test_an_alert_goes_to_the_channels_of_all_routes_that_it_fits_once(sent, tags, taken):
    names = ("all", "job", "kind", "tag", "both")
    routes = [
        {"channels": ["all"]},
        {"channels": ["all", "job"], "jobs": ["nothing", "*:two"]},
        {"channels": ["kind"], "kinds": ["lost"]},
        {"channels": ["tag"], "tags": ["red", "blue"]},
        {"channels": ["both"], "tags": ["red"], "jobs": ["ext:two"]},
    ]
    config = read({"channels": dict.fromkeys(names, WEB), "routes": routes})
    assert config.route(sent, frozenset(tags)) == taken


def test_a_jobs_own_deadline_goes_before_a_pattern():
    config = read({"channels": {"a": WEB}, "no_success": {"ext:*": "1h", "ext:one": "2h"}})
    assert config.deadline("ext:one") == timedelta(hours=2)
    assert config.deadline("ext:two") == timedelta(hours=1)
    assert config.deadline("other:one") is None


@pytest.mark.parametrize(("security", "port"), [("starttls", 587), ("tls", 465), ("none", 25)])
def test_the_port_follows_the_encryption(security, port):
    config = read({"channels": {"a": MAIL | {"security": security}}})
    assert config.channels["a"].address == ("mail", port)


def test_passwords_are_not_shown():
    login = {"username": "ada", "password": "S3CRET"}
    assert "S3CRET" not in repr(read({"channels": {"a": MAIL | login, "b": WEB}}))


PAGES = [
    FOLDER / "README.md",
    FOLDER.parents[1] / "docs" / "how-to" / "alert-on-failure.md",
]
README = PAGES[0].read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_section_in_the_pages_is_right(page):
    blocks = re.findall(r"^```yaml\n(.+?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
    assert blocks
    for block in blocks:
        section = yaml.safe_load(re.sub(r"\{(env|file): .+?\}", "https://example.com/x", block))
        assert read(section["scheduler"]["extensions"]["alerts"]).channels


@pytest.mark.parametrize("model", [Config, Webhook, Mail, Route])
def test_the_page_has_each_setting(model):
    missing = [name for name in model.model_fields if f"`{name}`" not in README]
    assert missing in ([], ["type"])


def test_the_page_has_each_kind_field_and_default():
    assert re.findall(r"^\| `(\w+)` \| [a-z]", README, re.MULTILINE)[: len(Kind)] == [*Kind]
    assert [field for field in FIELDS if f"`{{{field}}}`" not in README] == []
    config = Config()
    rate = f"{{messages: {config.rate.messages}, per: {config.rate.per.seconds // 60}m}}"
    retry = f"{{attempts: {config.retry.attempts}, delay: {config.retry.delay.seconds}s}}"
    assert f"`{rate}`" in README
    assert f"`{retry}`" in README
    assert f"| `queue` | {config.queue} |" in README
    assert f"| `repeat` | `{config.repeat.days}d` |" in README
    assert f"| `database_after` | `{config.database_after.seconds // 60}m` |" in README
