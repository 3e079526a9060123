"""How backends' health and circuits changed.

Revision ID: 0005_backend_transitions
"""

import sqlalchemy as sa
from alembic import op

revision = "0005_backend_transitions"
down_revision = "0004_routing"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "backend_transitions",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("backend_id", sa.Uuid, sa.ForeignKey("backends.id"), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("health", sa.Text, nullable=False),
        sa.Column("circuit", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
    )
    op.create_index("backend_transitions_backend_id", "backend_transitions", ["backend_id", "id"])


def downgrade() -> None:
    op.drop_table("backend_transitions")
