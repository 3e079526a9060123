"""Custom roles: sets of permissions that an org names, and who holds them."""

import sqlalchemy as sa
from alembic import op

from ias.kit.row_security import build_wall

revision = "0008_roles"
down_revision = "0007_audit_log"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "roles",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("org_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("permissions", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("version", sa.BigInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["org_id"], ["orgs.id"], name=op.f("fk_roles_org_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_roles")),
        sa.UniqueConstraint("org_id", "id", name=op.f("uq_roles_org_id_id")),
        sa.UniqueConstraint("org_id", "name", name=op.f("uq_roles_org_id_name")),
    )
    op.create_table(
        "role_assignments",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("org_id", sa.Uuid(), nullable=False),
        sa.Column("role_id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("project_id", sa.Uuid(), nullable=True, comment="Where the role holds; null is in the whole org."),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["org_id", "role_id"], ["roles.org_id", "roles.id"], name=op.f("fk_role_assignments_org_id_role_id")
        ),
        sa.ForeignKeyConstraint(
            ["org_id", "user_id"],
            ["members.org_id", "members.user_id"],
            name=op.f("fk_role_assignments_org_id_user_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["org_id", "project_id"],
            ["projects.org_id", "projects.id"],
            name=op.f("fk_role_assignments_org_id_project_id"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_role_assignments")),
        sa.UniqueConstraint(
            "role_id",
            "user_id",
            "project_id",
            name=op.f("uq_role_assignments_role_id_user_id_project_id"),
            postgresql_nulls_not_distinct=True,
        ),
    )
    op.create_index(op.f("ix_role_assignments_user_id"), "role_assignments", ["user_id"])
    for table in ("roles", "role_assignments"):
        for statement in build_wall(table):
            op.execute(statement)


def downgrade() -> None:
    op.drop_table("role_assignments")
    op.drop_table("roles")
