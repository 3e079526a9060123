"""Budgets over the last 24 hours, 7 days or 30 days, at any moment.

Revision ID: 0015_rolling_windows
"""

from alembic import op

revision = "0015_rolling_windows"
down_revision = "0014_alert_budgets"
branch_labels = None
depends_on = None

_CALENDAR = "'day', 'week', 'month', 'total'"
_ROLLING = "'rolling_24h', 'rolling_7d', 'rolling_30d'"


def upgrade() -> None:
    op.drop_constraint("budgets_window_check", "budgets")
    op.create_check_constraint("budgets_window_check", "budgets", f'"window" IN ({_CALENDAR}, {_ROLLING})')


def downgrade() -> None:
    op.drop_constraint("budgets_window_check", "budgets")
    op.execute(f'UPDATE budgets SET deleted_at = now() WHERE "window" IN ({_ROLLING}) AND deleted_at IS NULL')  # noqa: S608  # constants
    op.execute(f'UPDATE budgets SET "window" = \'total\' WHERE "window" IN ({_ROLLING})')  # noqa: S608  # constants
    op.create_check_constraint("budgets_window_check", "budgets", f'"window" IN ({_CALENDAR})')
