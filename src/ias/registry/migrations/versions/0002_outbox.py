"""The outbox: what the audit log is told.

Revision ID: 0002_outbox
"""

from alembic import op

from ias.kit.outbox import CREATE_OUTBOX_SQL

revision = "0002_outbox"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(CREATE_OUTBOX_SQL)


def downgrade() -> None:
    op.drop_table("outbox")
