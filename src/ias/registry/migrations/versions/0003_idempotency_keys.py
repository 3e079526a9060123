"""Answers kept for idempotency keys.

Revision ID: 0003_idempotency_keys
"""

from alembic import op

from ias.kit.migrations import create_idempotency_keys

revision = "0003_idempotency_keys"
down_revision = "0002_outbox"
branch_labels = None
depends_on = None


def upgrade() -> None:
    create_idempotency_keys()


def downgrade() -> None:
    op.drop_table("idempotency_keys")
