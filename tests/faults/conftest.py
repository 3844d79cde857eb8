"""A cluster of real processes for each test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.faults.cluster import Cluster

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def new_cluster(tmp_path: Path) -> Iterator[object]:
    """Return a function that makes a cluster on a URL; all of them end with the test."""
    made: list[Cluster] = []

    def new(url: str = f"sqlite:///{tmp_path}/jobs.db", **settings: object) -> Cluster:
        root = tmp_path / f"project{len(made)}"
        root.mkdir()
        made.append(Cluster(root, url, **settings))
        return made[-1]

    yield new
    for cluster in made:
        cluster.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the URL of an empty database of each supported kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/jobs.db"
    url: str = request.getfixturevalue("postgresql")
    return url


@pytest.fixture
def cluster(new_cluster, database: str) -> Cluster:
    """Return a cluster without nodes on a new database of each supported kind."""
    return new_cluster(database)
