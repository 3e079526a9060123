"""Whether a budget may be raised for a while by somebody, or blocks at its limit.

Those that somebody raised before may be raised again.

Revision ID: 0016_at_limit
"""

from alembic import op

revision = "0016_at_limit"
down_revision = "0015_rolling_windows"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        "ALTER TABLE budgets ADD COLUMN at_limit text NOT NULL DEFAULT 'block'"
        " CHECK (at_limit IN ('block', 'require_override'))"
    )
    op.execute("UPDATE budgets SET at_limit = 'require_override' WHERE id IN (SELECT budget_id FROM budget_raises)")
    op.execute("ALTER TABLE budgets ALTER COLUMN at_limit DROP DEFAULT")


def downgrade() -> None:
    op.execute("ALTER TABLE budgets DROP COLUMN at_limit")
