"""Expired reservations: how they are rated.

Revision ID: 0005
"""

from alembic import op

revision = "0005"
down_revision = "0004_rate_limits"
branch_labels = None
depends_on = None

_RATINGS = "'rated', 'repriced', 'unpriced', 'price_unknown', 'adjusted'"


def upgrade() -> None:
    _check_rating(f"{_RATINGS}, 'reserved'")


def downgrade() -> None:
    _check_rating(_RATINGS)


def _check_rating(ratings: str) -> None:
    op.execute("ALTER TABLE ledger_entries DROP CONSTRAINT ledger_entries_rating_check")
    op.execute(f"ALTER TABLE ledger_entries ADD CONSTRAINT ledger_entries_rating_check CHECK (rating IN ({ratings}))")
