"""Answers kept for idempotency keys.

Revision ID: 0010_idempotency_keys
"""

from alembic import op

from ias.kit.migrations import create_idempotency_keys

revision = "0010_idempotency_keys"
down_revision = "0009_identity_providers"
branch_labels = None
depends_on = None


def upgrade() -> None:
    create_idempotency_keys()


def downgrade() -> None:
    op.drop_table("idempotency_keys")
