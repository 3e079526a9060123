"""Orgs' settings; deletion of orgs and projects; rotation and last use of keys."""

import sqlalchemy as sa
from alembic import op

from ias.kit.row_security import build_wall

revision = "0006_lifecycles"
down_revision = "0005_password_resets"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _extend_orgs()
    _extend_projects()
    _extend_api_keys()


def _extend_orgs() -> None:
    for column in (
        sa.Column(
            "key_lifetime_days_max", sa.Integer(), comment="New keys expire at most so many days later; null is never."
        ),
        sa.Column(
            "sign_in_domains",
            sa.ARRAY(sa.Text()),
            comment="Domains of e-mails whose users may act in the org; null is all.",
        ),
        sa.Column(
            "ip_networks",
            sa.ARRAY(sa.Text()),
            comment="CIDR networks that keys and members may be used from; null is all.",
        ),
        sa.Column("deleted_at", sa.DateTime(timezone=True)),
        sa.Column("purged_at", sa.DateTime(timezone=True)),
    ):
        op.add_column("orgs", column)
    op.create_check_constraint(op.f("ck_orgs_deleted_at"), "orgs", "(status = 'deleted') = (deleted_at IS NOT NULL)")
    op.create_index(
        op.f("ix_orgs_deleted_at"),
        "orgs",
        ["deleted_at"],
        postgresql_where=sa.text("deleted_at IS NOT NULL AND purged_at IS NULL"),
    )


def _extend_projects() -> None:
    op.add_column("projects", sa.Column("deleted_at", sa.DateTime(timezone=True)))
    op.create_check_constraint(
        op.f("ck_projects_deleted_at"), "projects", "(status = 'deleted') = (deleted_at IS NOT NULL)"
    )
    op.create_index(
        op.f("ix_projects_deleted_at"), "projects", ["deleted_at"], postgresql_where=sa.text("deleted_at IS NOT NULL")
    )


def _extend_api_keys() -> None:
    op.add_column("api_keys", sa.Column("rotated_at", sa.DateTime(timezone=True)))
    op.add_column("api_keys", sa.Column("last_used_at", sa.DateTime(timezone=True)))
    op.create_index(op.f("ix_api_keys_service_account_id"), "api_keys", ["service_account_id"])
    op.create_table(
        "retired_digests",
        sa.Column("digest", sa.Text(), nullable=False, comment="SHA-256 of an earlier text of a key, in hexadecimal."),
        sa.Column("org_id", sa.Uuid(), nullable=False),
        sa.Column("api_key_id", sa.Uuid(), nullable=False),
        sa.Column("valid_until", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["api_key_id"], ["api_keys.id"], name=op.f("fk_retired_digests_api_key_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_retired_digests")),
    )
    op.create_index(op.f("ix_retired_digests_api_key_id"), "retired_digests", ["api_key_id"])
    for statement in build_wall("retired_digests"):
        op.execute(statement)


def downgrade() -> None:
    op.drop_table("retired_digests")
    op.drop_index(op.f("ix_api_keys_service_account_id"), "api_keys")
    for name in ("last_used_at", "rotated_at"):
        op.drop_column("api_keys", name)
    op.drop_column("projects", "deleted_at")
    for name in ("purged_at", "deleted_at", "ip_networks", "sign_in_domains", "key_lifetime_days_max"):
        op.drop_column("orgs", name)
