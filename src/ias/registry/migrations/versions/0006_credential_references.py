"""Backends' credentials may be kept elsewhere.

Revision ID: 0006_credential_references
"""

import sqlalchemy as sa
from alembic import op

revision = "0006_credential_references"
down_revision = "0005_backend_transitions"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("backends", sa.Column("credential_from", sa.Text))
    op.create_check_constraint(
        "backends_one_credential", "backends", "sealed_credential IS NULL OR credential_from IS NULL"
    )


def downgrade() -> None:
    op.drop_constraint("backends_one_credential", "backends")
    op.drop_column("backends", "credential_from")
