"""Real brokers, one of each kind for each process of tests that asks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.brokers import RabbitMQ, Redis

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def rabbitmq() -> Iterator[RabbitMQ]:
    """Return a RabbitMQ server."""
    if missing := RabbitMQ.missing():
        pytest.skip(missing)
    with RabbitMQ() as broker:
        yield broker


@pytest.fixture(scope="session")
def redis() -> Iterator[Redis]:
    """Return a Redis server."""
    if missing := Redis.missing():
        pytest.skip(missing)
    with Redis() as broker:
        yield broker
