"""Whether the platform set a budget, or the org itself.

Who set those that are there is not known, so they stay the orgs' own.

Revision ID: 0018_platform_budgets
"""

import sqlalchemy as sa
from alembic import op

revision = "0018_platform_budgets"
down_revision = "0017_queue_weights"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("budgets", sa.Column("set_by_platform", sa.Boolean, nullable=False, server_default="false"))
    op.alter_column("budgets", "set_by_platform", server_default=None)


def downgrade() -> None:
    op.drop_column("budgets", "set_by_platform")
