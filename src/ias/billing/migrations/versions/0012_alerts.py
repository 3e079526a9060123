"""Alerts: thresholds of budgets, where to tell of them, what was raised, and what became of telling it.

Revision ID: 0012_alerts
"""

from alembic import op

from ias.kit.row_security import build_wall

revision = "0012_alerts"
down_revision = "0011_budget_raises"
branch_labels = None
depends_on = None

_TABLES = ("alert_channels", "alerts", "alert_deliveries")


def upgrade() -> None:
    op.execute("ALTER TABLE budgets ADD COLUMN alert_percents integer[] NOT NULL DEFAULT '{}'")
    op.execute("ALTER TABLE budgets ALTER COLUMN alert_percents DROP DEFAULT")
    op.execute("CREATE INDEX budgets_alerting ON budgets (id) WHERE deleted_at IS NULL AND alert_percents <> '{}'")
    op.execute(
        """
        CREATE TABLE alert_channels (
            id uuid PRIMARY KEY,
            org_id uuid NOT NULL,
            kind text NOT NULL CHECK (kind IN ('webhook', 'email')),
            target text NOT NULL,
            sealed_secret text,
            sealed_old_secret text,
            old_secret_until timestamptz,
            version integer NOT NULL,
            created_at timestamptz NOT NULL,
            updated_at timestamptz NOT NULL,
            deleted_at timestamptz
        )
        """
    )
    op.execute("CREATE INDEX alert_channels_org ON alert_channels (org_id, id) WHERE deleted_at IS NULL")
    op.execute(
        """
        CREATE TABLE alerts (
            id uuid PRIMARY KEY,
            org_id uuid NOT NULL,
            budget_id uuid NOT NULL REFERENCES budgets (id),
            window_id text NOT NULL,
            percent integer NOT NULL,
            limit_nano_usd bigint NOT NULL,
            spent_nano_usd bigint NOT NULL,
            created_at timestamptz NOT NULL,
            UNIQUE (budget_id, window_id, percent)
        )
        """
    )
    op.execute("CREATE INDEX alerts_org ON alerts (org_id, id)")
    op.execute(
        """
        CREATE TABLE alert_deliveries (
            id uuid PRIMARY KEY,
            org_id uuid NOT NULL,
            alert_id uuid NOT NULL REFERENCES alerts (id),
            channel_id uuid NOT NULL REFERENCES alert_channels (id),
            status text NOT NULL CHECK (status IN ('waiting', 'delivered', 'given_up')),
            tries integer NOT NULL,
            next_try_at timestamptz NOT NULL,
            last_answer text,
            created_at timestamptz NOT NULL,
            delivered_at timestamptz
        )
        """
    )
    op.execute("CREATE INDEX alert_deliveries_org ON alert_deliveries (org_id, id)")
    op.execute("CREATE INDEX alert_deliveries_due ON alert_deliveries (next_try_at) WHERE status = 'waiting'")
    for table in _TABLES:
        for statement in build_wall(table):
            op.execute(statement)


def downgrade() -> None:
    for table in reversed(_TABLES):
        op.execute(f"DROP TABLE {table}")
    op.execute("ALTER TABLE budgets DROP COLUMN alert_percents")
