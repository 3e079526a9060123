"""Rate limits."""

from alembic import op

from ias.kit.row_security import build_wall

revision = "0004_rate_limits"
down_revision = "0003_row_security"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        CREATE TABLE rate_limits (
            id uuid PRIMARY KEY,
            org_id uuid NOT NULL,
            scope_kind text NOT NULL CHECK (scope_kind IN ('org', 'project', 'api_key', 'user', 'model')),
            scope_id text NOT NULL,
            metric text NOT NULL
                CHECK (metric IN ('requests_per_minute', 'tokens_per_minute', 'requests_per_day', 'concurrency')),
            "limit" bigint NOT NULL CHECK ("limit" >= 1),
            created_at timestamptz NOT NULL,
            updated_at timestamptz NOT NULL,
            deleted_at timestamptz
        )
        """
    )
    op.execute(
        """
        CREATE UNIQUE INDEX rate_limits_scope ON rate_limits (org_id, scope_kind, scope_id, metric)
        WHERE deleted_at IS NULL
        """
    )
    for statement in build_wall("rate_limits"):
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP TABLE rate_limits")
