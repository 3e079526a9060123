"""Prices of an org's own, prices for each request, prices that end; what an org says of requests without a price; re-rating.

Revision ID: 0009_org_prices
"""

from alembic import op

from ias.kit.row_security import build_wall, open_for_platform_rows, remove_wall

revision = "0009_org_prices"
down_revision = "0008_spending_policies"
branch_labels = None
depends_on = None

_RATINGS = "'rated', 'repriced', 'unpriced', 'price_unknown', 'adjusted', 'reserved'"


def upgrade() -> None:
    op.execute(
        """
        ALTER TABLE prices
            ADD COLUMN org_id uuid,
            ADD COLUMN request_nano_usd bigint NOT NULL DEFAULT 0 CHECK (request_nano_usd >= 0),
            ADD COLUMN effective_until timestamptz,
            DROP CONSTRAINT prices_model_version_key,
            ADD CONSTRAINT prices_version_key UNIQUE NULLS NOT DISTINCT (org_id, model, version)
        """
    )
    op.execute("ALTER TABLE prices ALTER COLUMN request_nano_usd DROP DEFAULT")
    op.execute("DROP INDEX prices_in_force")
    op.execute("CREATE INDEX prices_in_force ON prices (org_id, model, effective_at, version)")
    for statement in build_wall("prices"):
        op.execute(statement)
    op.execute(open_for_platform_rows("prices", command="ALL"))
    op.execute(
        """
        CREATE TABLE spending_settings (
            org_id uuid PRIMARY KEY,
            time_zone text NOT NULL,
            unpriced text CHECK (unpriced IN ('refuse', 'allow')),
            version integer NOT NULL,
            updated_at timestamptz NOT NULL
        )
        """
    )
    for statement in build_wall("spending_settings"):
        op.execute(statement)
    _check_rating(f"{_RATINGS}, 'rerated'")


def downgrade() -> None:
    _check_rating(_RATINGS)
    op.execute("DROP TABLE spending_settings")
    for statement in remove_wall("prices"):
        op.execute(statement)
    op.execute("DROP INDEX prices_in_force")
    op.execute("CREATE INDEX prices_in_force ON prices (model, effective_at, version)")
    op.execute("DELETE FROM prices WHERE org_id IS NOT NULL")
    op.execute(
        """
        ALTER TABLE prices
            DROP CONSTRAINT prices_version_key,
            DROP COLUMN org_id,
            DROP COLUMN request_nano_usd,
            DROP COLUMN effective_until,
            ADD CONSTRAINT prices_model_version_key UNIQUE (model, version)
        """
    )


def _check_rating(ratings: str) -> None:
    op.execute("ALTER TABLE ledger_entries DROP CONSTRAINT ledger_entries_rating_check")
    op.execute(f"ALTER TABLE ledger_entries ADD CONSTRAINT ledger_entries_rating_check CHECK (rating IN ({ratings}))")
