"""Fixtures for every test of the checkout."""

from __future__ import annotations

import functools
import itertools
import os
import shutil
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from systemprompt_jobs._store import Store
    from systemprompt_jobs._store._sqlite import SQLite
    from tests.postgresql import Server


_numbers = itertools.count()


def pytest_xdist_auto_num_workers() -> int:
    """Have one process more than cores: some always wait for the processes that they started."""
    return (os.cpu_count() or 1) + 1


@pytest.fixture(scope="session", autouse=True)
def _copied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Have each SQLite file that this process makes begin as a copy of one that it migrated.

    Nine in ten milliseconds of a new file are Alembic's. `SQLite.create.__wrapped__` is the real
    one, for tests of migrations; the processes that tests start have no other.
    """
    from systemprompt_jobs._store import Store
    from systemprompt_jobs._store._sqlite import SQLite

    migrated = tmp_path_factory.mktemp("migrated") / "jobs.db"
    store = Store(f"sqlite:///{migrated}")
    store.prepare()
    store.close()
    create = SQLite.create

    @functools.wraps(create)
    def copy(backend: SQLite) -> None:
        if not backend.exists():
            with suppress(OSError):  # the real one says what is wrong
                _link(migrated, backend.file)
        create(backend)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SQLite, "create", copy)
        yield


def _link(migrated: Path, file: Path) -> None:
    """Copy a file to where another process may be making one, whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    copy = file.with_name(f"{file.name}.{next(_numbers)}")
    try:
        shutil.copy(migrated, copy)
        os.link(copy, file)
    finally:
        copy.unlink(missing_ok=True)


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[Server]:
    """Return a real PostgreSQL server, started when the first test of this process asks."""
    from tests.postgresql import Server

    with Server() as server:
        yield server


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
