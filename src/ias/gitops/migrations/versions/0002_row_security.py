"""Row-level security: the second wall between orgs."""

from alembic import op

from ias.kit.row_security import build_wall, build_wall_behind, remove_wall

revision = "0002_row_security"
down_revision = "0001"
branch_labels = None
depends_on = None

_TABLES = ("plans", "apply_leases")


def upgrade() -> None:
    for table in _TABLES:
        for statement in build_wall(table):
            op.execute(statement)
    for statement in build_wall_behind("steps", parent="plans", reference="plan_id"):
        op.execute(statement)


def downgrade() -> None:
    for table in ("steps", *_TABLES):
        for statement in remove_wall(table):
            op.execute(statement)
