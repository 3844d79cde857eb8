"""Alembic migrations: additive only, so that older nodes live through a rolling deploy."""
