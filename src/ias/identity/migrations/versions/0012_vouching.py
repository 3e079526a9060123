"""Who suspended an org and who vouches for an invitation; keys that their users may not hold any more are told to gateways anew."""

import sqlalchemy as sa
from alembic import op

revision = "0012_vouching"
down_revision = "0011_deleted_service_accounts"
branch_labels = None
depends_on = None

_CHECK = "ck_orgs_suspended_by"


def upgrade() -> None:
    op.add_column(
        "orgs",
        sa.Column(
            "suspended_by",
            sa.Text(),
            comment="`org` or `platform`, which alone can take it back; kept while the org is deleted.",
        ),
    )
    op.execute("UPDATE orgs SET suspended_by = 'org' WHERE status = 'suspended'")
    op.create_check_constraint(
        op.f(_CHECK),
        "orgs",
        "suspended_by IN ('org', 'platform') AND (status = 'deleted' OR (status = 'suspended') = (suspended_by IS NOT NULL))",
    )
    op.add_column("invitations", sa.Column("sent_by", sa.Uuid(), comment="Who sent it last, and vouches for it."))
    op.execute("UPDATE invitations SET sent_by = created_by")
    op.alter_column("invitations", "sent_by", nullable=False)
    op.create_foreign_key(op.f("fk_invitations_sent_by"), "invitations", "users", ["sent_by"], ["id"])
    op.execute("UPDATE api_keys SET version = version + 1 WHERE user_id IS NOT NULL AND status = 'active'")


def downgrade() -> None:
    op.drop_column("invitations", "sent_by")
    op.drop_column("orgs", "suspended_by")
