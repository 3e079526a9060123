"""Plans, their steps, and who applies one.

Revision ID: 0001
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "plans",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("org_id", sa.Uuid, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("prune", sa.Boolean, nullable=False),
        sa.Column("documents", JSONB, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_by", sa.Text, nullable=False),
        sa.Column("request_id", sa.Text, nullable=False),
        sa.Column("applied_at", sa.DateTime(timezone=True)),
        sa.Column("applied_by", sa.Text),
        sa.CheckConstraint("status IN ('planned', 'failed', 'applied')", name="plans_status"),
    )
    op.create_index("plans_org_id", "plans", ["org_id", "id"])
    op.create_table(
        "steps",
        sa.Column("plan_id", sa.Uuid, sa.ForeignKey("plans.id"), primary_key=True),
        sa.Column("position", sa.Integer, primary_key=True),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("name", sa.Text),
        sa.Column("budget_id", sa.Text),
        sa.Column("before", JSONB),
        sa.Column("after", JSONB),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("detail", sa.Text),
        sa.Column("done_at", sa.DateTime(timezone=True)),
        sa.CheckConstraint("action IN ('create', 'update', 'delete', 'unchanged', 'leave')", name="steps_action"),
        sa.CheckConstraint("status IN ('pending', 'done', 'failed')", name="steps_status"),
    )
    op.create_table(
        "apply_leases",
        sa.Column("org_id", sa.Uuid, primary_key=True),
        sa.Column("holder", sa.Uuid, nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
    )


def downgrade() -> None:
    op.drop_table("apply_leases")
    op.drop_table("steps")
    op.drop_table("plans")
