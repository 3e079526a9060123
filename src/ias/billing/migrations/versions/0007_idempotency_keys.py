"""Answers kept for idempotency keys, and versions of budgets and rate limits.

Revision ID: 0007_idempotency_keys
"""

import sqlalchemy as sa
from alembic import op

from ias.kit.migrations import create_idempotency_keys

revision = "0007_idempotency_keys"
down_revision = "0006_outbox"
branch_labels = None
depends_on = None


def upgrade() -> None:
    create_idempotency_keys()
    for table in ("budgets", "rate_limits"):
        op.add_column(table, sa.Column("version", sa.Integer, nullable=False, server_default="1"))
        op.alter_column(table, "version", server_default=None)


def downgrade() -> None:
    for table in ("budgets", "rate_limits"):
        op.drop_column(table, "version")
    op.drop_table("idempotency_keys")
