"""Row-level security: the second wall between orgs."""

from alembic import op

from ias.kit.row_security import build_wall, remove_wall

revision = "0002_row_security"
down_revision = "0001"
branch_labels = None
depends_on = None

_TABLES = ("usage_records", "usage_hourly")


def upgrade() -> None:
    for table in _TABLES:
        for statement in build_wall(table):
            op.execute(statement)


def downgrade() -> None:
    for table in _TABLES:
        for statement in remove_wall(table):
            op.execute(statement)
