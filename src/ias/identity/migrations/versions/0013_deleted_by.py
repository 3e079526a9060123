"""Who deleted an org. Of those that are deleted already it is not known: their owners restore them as before."""

import sqlalchemy as sa
from alembic import op

revision = "0013_deleted_by"
down_revision = "0012_vouching"
branch_labels = None
depends_on = None

_CHECK = "ck_orgs_deleted_by"


def upgrade() -> None:
    op.add_column(
        "orgs", sa.Column("deleted_by", sa.Text(), comment="`org` or `platform`, which alone can restore it.")
    )
    op.execute("UPDATE orgs SET deleted_by = 'org' WHERE status = 'deleted'")
    op.create_check_constraint(
        op.f(_CHECK),
        "orgs",
        "deleted_by IN ('org', 'platform') AND (status = 'deleted') = (deleted_by IS NOT NULL)",
    )


def downgrade() -> None:
    op.drop_column("orgs", "deleted_by")
