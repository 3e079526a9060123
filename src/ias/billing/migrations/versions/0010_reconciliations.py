"""What reconciliations found.

Revision ID: 0010_reconciliations
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0010_reconciliations"
down_revision = "0009_org_prices"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "reconciliations",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("start", sa.DateTime(timezone=True), nullable=False),
        sa.Column("end", sa.DateTime(timezone=True), nullable=False),
        sa.Column("differences", postgresql.JSONB, nullable=False),
        sa.Column("skipped", postgresql.JSONB, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("reconciliations")
