"""What an org lets through while Redis is away.

Revision ID: 0013_unguarded
"""

import sqlalchemy as sa
from alembic import op

revision = "0013_unguarded"
down_revision = "0012_alerts"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("spending_settings", sa.Column("unguarded_nano_usd", sa.BigInteger))


def downgrade() -> None:
    op.drop_column("spending_settings", "unguarded_nano_usd")
