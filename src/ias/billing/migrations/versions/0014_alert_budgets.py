"""Budgets that refuse nothing are of the mode `alert`; `soft` ones refuse once they are spent.

Revision ID: 0014_alert_budgets
"""

from alembic import op

revision = "0014_alert_budgets"
down_revision = "0013_unguarded"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_constraint("budgets_mode_check", "budgets")
    op.execute("UPDATE budgets SET mode = 'alert' WHERE mode = 'soft'")
    op.create_check_constraint("budgets_mode_check", "budgets", "mode IN ('hard', 'soft', 'alert')")


def downgrade() -> None:
    op.drop_constraint("budgets_mode_check", "budgets")
    op.execute("UPDATE budgets SET mode = 'soft' WHERE mode = 'alert'")
    op.create_check_constraint("budgets_mode_check", "budgets", "mode IN ('hard', 'soft')")
