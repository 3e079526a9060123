"""Row-level security: the second wall between orgs."""

from alembic import op

from ias.kit.row_security import build_wall, open_for_platform_rows, remove_wall

revision = "0004_row_security"
down_revision = "0003_invitations"
branch_labels = None
depends_on = None

_TABLES = {
    "orgs": "id",
    "projects": "org_id",
    "members": "org_id",
    "project_roles": "org_id",
    "service_accounts": "org_id",
    "api_keys": "org_id",
    "audit_log": "org_id",
    "invitations": "org_id",
}
"""The column that holds the row's org, by table."""


def upgrade() -> None:
    for table, column in _TABLES.items():
        for statement in build_wall(table, column=column):
            op.execute(statement)
    # What an org's admin does may be an event of the platform too (a new user): written by them, not read.
    op.execute(open_for_platform_rows("audit_log", command="INSERT"))


def downgrade() -> None:
    for table in _TABLES:
        for statement in remove_wall(table):
            op.execute(statement)
