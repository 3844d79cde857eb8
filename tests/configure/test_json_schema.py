"""Editors find the mistakes that we find, as far as a schema can say them."""

from __future__ import annotations

import jsonschema
import pytest
import yaml

from systemprompt_jobs._configure import json_schema

JOB = "extension: e, job: j"


def valid(text, *, shared=False):
    schema = json_schema(shared=shared)
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema).is_valid(yaml.safe_load(text))


@pytest.mark.parametrize(
    "text",
    [
        "scheduler: {timezone: UTC, workers: 5, lease: 10s, shutdown_grace: 5}",
        "scheduler: {extensions: {a: {b: 1}}, databases: {default: 'sqlite:///x.db'}}",
        f"scheduler: {{jobs: [{{{JOB}, enabled: true, schedule: '0 * * * * *', splay: 5m}}]}}",
        f"scheduler: {{jobs: [{{{JOB}, parameters: {{n: [1]}}, silence: [herd]}}]}}",
    ],
)
def test_what_we_accept_is_accepted(text):
    assert valid(text)


@pytest.mark.parametrize(
    "text",
    [
        "scheduler: {timezne: UTC}",
        "scheduler: {workers: 0}",
        "scheduler: {workers: many}",
        "scheduler: {timezone: null}",
        "scheduler: {jobs: [{extension: e}]}",
        f"scheduler: {{jobs: [{{{JOB}, enabled: maybe}}]}}",
        f"scheduler: {{jobs: [{{{JOB}, overlap: often}}]}}",
        f"scheduler: {{jobs: [{{{JOB}, silence: [heard]}}]}}",
        "other: 1",
    ],
)
def test_what_we_refuse_is_refused(text):
    assert not valid(text)


def test_the_profile_may_hold_what_belongs_to_others():
    assert valid("web: {port: 80}\nscheduler: {workers: 3}", shared=True)
