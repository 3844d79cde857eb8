"""Pauses, whose plan, what a run is retried by and says while it runs, and an index of trouble."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add columns, with defaults for older nodes that do not write them."""
    op.add_column("jobs_job", sa.Column("paused_at", sa.BigInteger()))
    op.add_column(
        "jobs_job_set", sa.Column("fingerprint", sa.Text(), server_default="", nullable=False)
    )
    op.add_column("jobs_run", sa.Column("policy", sa.JSON()))
    op.add_column("jobs_run", sa.Column("progress", sa.JSON()))
    op.add_column(
        "jobs_attempt", sa.Column("message", sa.Text(), server_default="", nullable=False)
    )
    op.add_column("jobs_attempt", sa.Column("annotations", sa.JSON()))
    op.add_column(
        "jobs_node", sa.Column("strays", sa.Integer(), server_default=sa.text("0"), nullable=False)
    )
    op.add_column("jobs_node", sa.Column("pools", sa.JSON()))
    op.add_column("jobs_node", sa.Column("problem", sa.Text(), server_default="", nullable=False))
    troubled = sa.text("state IN ('failed', 'timed_out', 'lost', 'missed', 'skipped', 'cancelled')")
    op.create_index(
        "jobs_run_troubled",
        "jobs_run",
        ["id"],
        sqlite_where=troubled,
        postgresql_where=troubled,
    )
