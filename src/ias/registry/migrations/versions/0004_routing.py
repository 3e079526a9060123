"""What routing goes by: aliases, visibility and deprecation of models, route policies, and tiers and groups of backends.

Revision ID: 0004_routing
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY

revision = "0004_routing"
down_revision = "0003_idempotency_keys"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _extend_models()
    _extend_backends()
    op.create_table(
        "route_policies",
        sa.Column("model_id", sa.Uuid, sa.ForeignKey("models.id"), primary_key=True),
        sa.Column("strategy", sa.Text, nullable=False),
        sa.Column("is_sticky", sa.Boolean, nullable=False),
        sa.Column("canary_percent", sa.Integer, nullable=False),
        sa.Column("attempts_max", sa.Integer, nullable=False),
        sa.Column("first_byte_timeout_s", sa.Double),
        sa.Column("total_timeout_s", sa.Double),
        sa.Column("queue_timeout_s", sa.Double),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("canary_percent BETWEEN 0 AND 100", name="route_policies_canary_percent"),
        sa.CheckConstraint("attempts_max > 0", name="route_policies_attempts_max"),
    )
    op.execute(
        """
        INSERT INTO route_policies (model_id, strategy, is_sticky, canary_percent, attempts_max, version, updated_at)
        SELECT id, 'prefix', false, 0, 3, 1, updated_at FROM models
        """
    )
    op.execute("UPDATE route_table_version SET version = version + 1")  # gateways must see what the table says now


def _extend_models() -> None:
    op.add_column("models", sa.Column("aliases", ARRAY(sa.Text), nullable=False, server_default="{}"))
    op.add_column("models", sa.Column("capabilities", ARRAY(sa.Text), nullable=False, server_default="{}"))
    op.alter_column("models", "aliases", server_default=None)
    op.alter_column("models", "capabilities", server_default=None)
    op.add_column("models", sa.Column("org_ids", ARRAY(sa.Uuid)))
    op.add_column("models", sa.Column("deprecated_at", sa.DateTime(timezone=True)))
    op.add_column("models", sa.Column("sunset_at", sa.DateTime(timezone=True)))
    op.add_column("models", sa.Column("replacement", sa.Text))
    op.drop_constraint("models_status", "models")
    op.create_check_constraint("models_status", "models", "status IN ('enabled', 'disabled', 'deprecated')")


def _extend_backends() -> None:
    op.add_column("backends", sa.Column("tier", sa.Integer, nullable=False, server_default="0"))
    op.add_column("backends", sa.Column("group", sa.Text, nullable=False, server_default="stable"))
    op.alter_column("backends", "tier", server_default=None)
    op.alter_column("backends", "group", server_default=None)
    op.add_column("backends", sa.Column("concurrency_max", sa.Integer))
    op.add_column("backends", sa.Column("environment", sa.Text))
    op.create_check_constraint("backends_tier", "backends", "tier >= 0")
    op.create_check_constraint("backends_group", "backends", "\"group\" IN ('stable', 'canary')")
    op.create_check_constraint("backends_concurrency_max", "backends", "concurrency_max > 0")


def downgrade() -> None:
    op.drop_table("route_policies")
    for column in ("tier", "group", "concurrency_max", "environment"):
        op.drop_column("backends", column)
    op.execute("UPDATE models SET status = 'enabled' WHERE status = 'deprecated'")
    op.drop_constraint("models_status", "models")
    op.create_check_constraint("models_status", "models", "status IN ('enabled', 'disabled')")
    for column in ("aliases", "capabilities", "org_ids", "deprecated_at", "sunset_at", "replacement"):
        op.drop_column("models", column)
