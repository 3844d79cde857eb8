"""How a job catches up, for whoever settles its ticks under a plan that is being replaced."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add columns, with defaults for older nodes that do not write them."""
    op.add_column(
        "jobs_job", sa.Column("catch_up", sa.Text(), server_default="latest", nullable=False)
    )
    op.add_column(
        "jobs_job",
        sa.Column(
            "catchup_window", sa.BigInteger(), server_default=sa.text("86400"), nullable=False
        ),
    )
