"""What engines counted.

Revision ID: 0008_engine_token_readings
"""

import sqlalchemy as sa
from alembic import op

revision = "0008_engine_token_readings"
down_revision = "0007_adapters"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "engine_token_readings",
        sa.Column("backend_id", sa.Uuid, sa.ForeignKey("backends.id"), primary_key=True),
        sa.Column("at", sa.DateTime(timezone=True), primary_key=True),
        sa.Column("prompt_tokens", sa.BigInteger, nullable=False),
        sa.Column("generation_tokens", sa.BigInteger, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("engine_token_readings")
