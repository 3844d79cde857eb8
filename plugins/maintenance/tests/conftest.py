"""A context made by hand, and real SQLite files."""

from __future__ import annotations

import os
from datetime import UTC, datetime

import pytest
import svcs
from sqlalchemy import create_engine, text

from systemprompt_jobs import JobContext, Run
from systemprompt_jobs._context import Resources
from systemprompt_jobs._said import Said
from systemprompt_jobs.model import State, Trigger

NOW = datetime(2024, 5, 1, 12, 0, tzinfo=UTC)
NOBODY = 65534


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path / 'app.db'}?timeout=0"


@pytest.fixture
def engine(url):
    engine = create_engine(url)
    yield engine
    engine.dispose()


@pytest.fixture
def execute(engine):
    """Execute statements, each with as many rows of values as there are."""

    def run(statement, *rows):
        with engine.begin() as connection:
            result = connection.execute(text(statement), *([list(rows)] if rows else []))
            return result.all() if result.returns_rows else None

    return run


@pytest.fixture
def context(url):
    """Make the context of a run whose tick is NOW; it enforces unless told otherwise."""
    registry = svcs.Registry()
    resources = Resources({"default": url}, registry)

    def make(*, enforce=True, tick=NOW, started=NOW):
        run = Run(
            id=1,
            job_id="maintenance:job",
            trigger=Trigger.SCHEDULE if tick else Trigger.MANUAL,
            state=State.RUNNING,
            tick=tick,
            started=started,
            attempt=1,
        )
        return JobContext(
            run=run,
            enforce=enforce,
            resources=resources,
            services=svcs.Container(registry),
            said=Said(run),
        )

    yield make
    resources.close()


@pytest.fixture
def unprivileged():
    """Become a user who may not write everywhere, for as long as the test's body."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    yield
    os.seteuid(0)
