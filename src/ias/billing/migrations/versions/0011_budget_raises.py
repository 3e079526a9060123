"""Time zones of budgets, and raises of their limits that end by themselves.

Revision ID: 0011_budget_raises
"""

from alembic import op

from ias.kit.row_security import build_wall

revision = "0011_budget_raises"
down_revision = "0010_reconciliations"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE budgets ADD COLUMN time_zone text NOT NULL DEFAULT 'UTC'")
    op.execute("ALTER TABLE budgets ALTER COLUMN time_zone DROP DEFAULT")
    op.execute(
        """
        CREATE TABLE budget_raises (
            id uuid PRIMARY KEY,
            org_id uuid NOT NULL,
            budget_id uuid NOT NULL REFERENCES budgets (id),
            amount_nano_usd bigint NOT NULL CHECK (amount_nano_usd > 0),
            reason text NOT NULL,
            expires_at timestamptz NOT NULL,
            created_at timestamptz NOT NULL,
            created_by text NOT NULL,
            revoked_at timestamptz
        )
        """
    )
    op.execute("CREATE INDEX budget_raises_budget ON budget_raises (budget_id, id)")
    op.execute("CREATE INDEX budget_raises_active ON budget_raises (expires_at) WHERE revoked_at IS NULL")
    for statement in build_wall("budget_raises"):
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP TABLE budget_raises")
    op.execute("ALTER TABLE budgets DROP COLUMN time_zone")
