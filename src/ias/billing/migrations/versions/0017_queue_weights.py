"""What an org's turns weigh where a model's servers are full.

Revision ID: 0017_queue_weights
"""

import sqlalchemy as sa
from alembic import op

revision = "0017_queue_weights"
down_revision = "0016_at_limit"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("spending_settings", sa.Column("queue_weight", sa.Integer, nullable=False, server_default="100"))
    op.alter_column("spending_settings", "queue_weight", server_default=None)
    op.create_check_constraint(
        "spending_settings_queue_weight", "spending_settings", "queue_weight BETWEEN 1 AND 10000"
    )


def downgrade() -> None:
    op.drop_constraint("spending_settings_queue_weight", "spending_settings")
    op.drop_column("spending_settings", "queue_weight")
