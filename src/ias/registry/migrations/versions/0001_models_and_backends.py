"""Models, backends, the append-only list of changes and the route table's version.

Revision ID: 0001
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    _create_models()
    _create_backends()
    _create_changes()
    op.create_table(
        "route_table_version",
        sa.Column("only_row", sa.Boolean, primary_key=True),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.CheckConstraint("only_row", name="route_table_version_only_row"),
    )
    op.execute("INSERT INTO route_table_version (only_row, version) VALUES (true, 1)")


def _create_models() -> None:
    op.create_table(
        "models",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("context_length", sa.Integer, nullable=False),
        sa.Column("output_tokens_max", sa.Integer),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True)),
        sa.CheckConstraint("status IN ('enabled', 'disabled')", name="models_status"),
        sa.CheckConstraint("context_length > 0", name="models_context_length"),
    )
    op.create_index("models_name", "models", ["name"], unique=True, postgresql_where=sa.text("deleted_at IS NULL"))


def _create_backends() -> None:
    op.create_table(
        "backends",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("model_id", sa.Uuid, sa.ForeignKey("models.id"), nullable=False),
        sa.Column("url", sa.Text, nullable=False),
        sa.Column("weight", sa.Integer, nullable=False),
        sa.Column("upstream_model", sa.Text, nullable=False),
        sa.Column("engine", sa.Text, nullable=False),
        sa.Column("sealed_credential", sa.Text),
        sa.Column("draining", sa.Boolean, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True)),
        sa.CheckConstraint("status IN ('enabled', 'disabled')", name="backends_status"),
        sa.CheckConstraint("weight >= 0", name="backends_weight"),
    )
    op.create_index("backends_model_id", "backends", ["model_id"])


def _create_changes() -> None:
    op.create_table(
        "changes",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("target_kind", sa.Text, nullable=False),
        sa.Column("target_id", sa.Uuid, nullable=False),
        sa.Column("before", JSONB),
        sa.Column("after", JSONB),
        sa.Column("request_id", sa.Text, nullable=False),
        sa.Column("route_table_version", sa.BigInteger, nullable=False),
    )
    op.create_index("changes_target_id", "changes", ["target_id"])
    op.execute(
        """
        CREATE FUNCTION refuse_to_rewrite_changes() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION 'changes are append-only';
        END $$
        """
    )
    op.execute(
        """
        CREATE TRIGGER changes_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON changes
        FOR EACH STATEMENT EXECUTE FUNCTION refuse_to_rewrite_changes()
        """
    )


def downgrade() -> None:
    op.drop_table("route_table_version")
    op.drop_table("changes")
    op.execute("DROP FUNCTION refuse_to_rewrite_changes()")
    op.drop_table("backends")
    op.drop_table("models")
