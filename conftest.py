"""Fixtures for every test of the checkout."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from systemprompt_jobs._store import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Return a migrated database of its own."""
    from systemprompt_jobs._store import Store

    store = Store(f"sqlite:///{tmp_path}/jobs.db")
    store.prepare()
    yield store
    store.close()
