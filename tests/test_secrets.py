"""Secrets stay where they are kept, and nothing shows them."""

from __future__ import annotations

import pytest

from systemprompt_jobs import job
from systemprompt_jobs._parameters import validate
from systemprompt_jobs.errors import ParameterError
from systemprompt_jobs.secrets import (
    anchored,
    is_secret,
    masked,
    masked_section,
    masked_text,
    reveal,
)


@pytest.mark.parametrize(
    "name", ["api_key", "password", "db-password", "TOKEN", "parameters.secret", "Authorization"]
)
def test_names_of_secrets(name):
    assert is_secret(name)
    assert masked("hunter2", name) == "***"


@pytest.mark.parametrize("name", ["key", "tokens", "keyboard", "passwords_changed"])
def test_names_of_other_things(name):
    assert not is_secret(name)
    assert masked("plain", name) == "plain"


def test_secrets_are_masked_at_every_depth_and_nothing_else_is():
    value = {
        "api_key": "x",
        "urls": ["http://a:b@c"],
        "deep": {"password": "y", "n": 1},
        "token": "",
    }
    assert masked(value) == {
        "api_key": "***",
        "urls": ["http://a:***@c"],
        "deep": {"password": "***", "n": 1},
        "token": "",
    }


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("see http://a:b@c and", "see http://a:***@c and"),
        ("postgresql://me:p@ss/w@host/db", "postgresql://me:***@host/db"),
        ("https://host:80/a b@c", "https://host:80/a b@c"),
        ("https://ghp_1234@host/x", "https://***@host/x"),
        ("https://host/x?a=1&api_key=s3&token=s4#b", "https://host/x?a=1&api_key=***&token=***#b"),
        ("postgresql://me@host/db?password=s3&x=1", "postgresql://me@host/db?password=***&x=1"),
    ],
)
def test_secrets_in_urls_are_masked(text, shown):
    assert masked(text) == shown


def test_of_a_plugins_section_web_addresses_show_their_host_alone():
    section = {
        "channels": {"chat": {"url": "https://hooks.example.com/services/T0/B0/s3cret"}},
        "hosts": ["http://a.example.com", "HTTPS://me:s3cret@b.example.com?s3cret"],
        "password": "s3cret",
        "api_key": {"env": "KEY"},
        "file": "sqlite:///var/app.db",
    }
    assert masked_section(section) == {
        "channels": {"chat": {"url": "https://hooks.example.com/***"}},
        "hosts": ["http://a.example.com", "HTTPS://me:***@b.example.com/***"],
        "password": "***",
        "api_key": {"env": "KEY"},
        "file": "sqlite:///var/app.db",
    }


def test_many_beginnings_of_urls_take_no_time():
    text = "://a:" * 200_000
    assert masked_text(text) == text


def test_a_reference_is_shown_as_it_is_written():
    assert masked({"env": "API_KEY"}, "api_key") == {"env": "API_KEY"}


def test_references_are_read_at_every_depth(tmp_path):
    (tmp_path / "key").write_text("from a file\n")
    value = {"a": [{"env": "A"}], "b": {"file": str(tmp_path / "key")}, "c": {"env": "A", "x": 1}}
    assert reveal(value, {"A": "from the environment"}) == {
        "a": ["from the environment"],
        "b": "from a file",
        "c": {"env": "A", "x": 1},
    }


def test_paths_start_at_the_root(tmp_path):
    assert anchored({"a": [{"file": "key"}]}, tmp_path) == {"a": [{"file": f"{tmp_path}/key"}]}


def test_a_reference_to_nothing_names_it(tmp_path):
    with pytest.raises(ValueError, match="environment variable NOPE is not set"):
        reveal({"env": "NOPE"}, {})
    with pytest.raises(ValueError, match=f"{tmp_path}/none cannot be read: No such file"):
        reveal({"file": f"{tmp_path}/none"}, {})


@job
def send(*, api_key: str, retries: int = 1): ...


def test_a_function_gets_what_a_reference_stands_for(monkeypatch):
    monkeypatch.setenv("MAIL_KEY", "hunter2")
    assert validate(send, {"api_key": {"env": "MAIL_KEY"}})["api_key"] == "hunter2"


def test_a_secret_of_the_wrong_type_is_not_in_the_message():
    with pytest.raises(ParameterError, match=r"api_key: \*\*\* does not fit str") as caught:
        validate(send, {"api_key": ["hunter2"]})
    assert "hunter2" not in str(caught.value)


def test_a_missing_variable_is_named_with_its_parameter():
    with pytest.raises(ParameterError, match=r"api_key: .*variable SURELY_NOT_SET is not set"):
        validate(send, {"api_key": {"env": "SURELY_NOT_SET"}})
