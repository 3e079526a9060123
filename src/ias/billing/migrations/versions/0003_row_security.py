"""Row-level security: the second wall between orgs."""

from alembic import op

from ias.kit.row_security import build_wall, open_for_platform_rows, remove_wall

revision = "0003_row_security"
down_revision = "0002"
branch_labels = None
depends_on = None

_TABLES = ("budgets", "ledger_entries", "spend_hourly", "published_documents")


def upgrade() -> None:
    for table in _TABLES:
        for statement in build_wall(table):
            op.execute(statement)
    op.execute(open_for_platform_rows("published_documents", command="ALL"))  # the price table's


def downgrade() -> None:
    for table in _TABLES:
        for statement in remove_wall(table):
            op.execute(statement)
