"""Fixtures for every test of the checkout."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from systemprompt_jobs._store import Store
    from tests.postgresql import Server


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[Server]:
    """Return a real PostgreSQL server, started when the first test of this process asks."""
    from tests.postgresql import Server

    with Server() as server:
        yield server


_numbers = itertools.count()


@pytest.fixture
def postgresql(postgresql_server: Server) -> Iterator[str]:
    """Return the URL of an empty database on PostgreSQL."""
    name = f"empty{next(_numbers)}"
    postgresql_server.create(name)
    yield postgresql_server.url(name)
    postgresql_server.drop(name)


@pytest.fixture(scope="session")
def migrated(postgresql_server: Server) -> str:
    """Return the name of a migrated database to copy."""
    from systemprompt_jobs._store import Store

    postgresql_server.create("migrated")
    store = Store(postgresql_server.url("migrated"))
    store.prepare()
    store.close()
    return "migrated"


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, make_store: Callable[[str], Store]) -> Store:
    """Return a migrated database of its own, once on each kind."""
    return make_store(request.param)


@pytest.fixture
def make_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[str], Store]]:
    """Return a function that makes a migrated database of a kind, to be called once."""
    from systemprompt_jobs._store import Store

    made = []

    def make(kind: str) -> Store:
        if kind == "sqlite":
            url = f"sqlite:///{tmp_path}/jobs.db"
        else:
            server: Server = request.getfixturevalue("postgresql_server")
            name = f"copy{next(_numbers)}"
            server.create(name, template=request.getfixturevalue("migrated"))
            request.addfinalizer(lambda: server.drop(name))
            url = server.url(name)
        made.append(Store(url))
        made[-1].prepare()
        return made[-1]

    yield make
    for store in made:
        store.close()
