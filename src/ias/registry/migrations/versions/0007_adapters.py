"""LoRA adapters of backends, each served as a model of its own.

Revision ID: 0007_adapters
"""

import sqlalchemy as sa
from alembic import op

revision = "0007_adapters"
down_revision = "0006_credential_references"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "adapters",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("backend_id", sa.Uuid, sa.ForeignKey("backends.id"), nullable=False),
        sa.Column("model_id", sa.Uuid, sa.ForeignKey("models.id"), nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True)),
    )
    kept = sa.text("deleted_at IS NULL")
    op.create_index("adapters_name", "adapters", ["backend_id", "name"], unique=True, postgresql_where=kept)
    op.create_index("adapters_model_id", "adapters", ["model_id"])


def downgrade() -> None:
    op.drop_table("adapters")
