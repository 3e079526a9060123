"""Service accounts can be deleted: the row stays for its keys' sake, its name is free.

Revision ID: 0011_deleted_service_accounts
"""

import sqlalchemy as sa
from alembic import op

revision = "0011_deleted_service_accounts"
down_revision = "0010_idempotency_keys"
branch_labels = None
depends_on = None

_TABLE, _STATUS, _NAME = "service_accounts", "ck_service_accounts_status", "uq_service_accounts_project_id_name"


def upgrade() -> None:
    op.drop_constraint(op.f(_STATUS), _TABLE)
    op.create_check_constraint(op.f(_STATUS), _TABLE, "status IN ('active', 'suspended', 'deleted')")
    op.drop_constraint(op.f(_NAME), _TABLE)
    columns = ["project_id", "name"]
    op.create_index(_NAME, _TABLE, columns, unique=True, postgresql_where=sa.text("status <> 'deleted'"))


def downgrade() -> None:
    """Deleted accounts come back as suspended ones, under names that nobody else has; their keys stay revoked."""
    op.drop_index(_NAME, _TABLE)
    op.execute("UPDATE service_accounts SET status = 'suspended', name = id::text WHERE status = 'deleted'")
    op.create_unique_constraint(op.f(_NAME), _TABLE, ["project_id", "name"])
    op.drop_constraint(op.f(_STATUS), _TABLE)
    op.create_check_constraint(op.f(_STATUS), _TABLE, "status IN ('active', 'suspended')")
