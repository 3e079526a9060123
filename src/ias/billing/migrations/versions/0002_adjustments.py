"""Corrections and credits: how they are rated, and how they are found.

Revision ID: 0002
"""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_RATINGS = "'rated', 'repriced', 'unpriced', 'price_unknown'"


def upgrade() -> None:
    _check_rating(f"{_RATINGS}, 'adjusted'")
    op.execute("CREATE INDEX ledger_entries_adjustments ON ledger_entries (org_id, id) WHERE kind <> 'usage'")


def downgrade() -> None:
    op.execute("DROP INDEX ledger_entries_adjustments")
    _check_rating(_RATINGS)


def _check_rating(ratings: str) -> None:
    op.execute("ALTER TABLE ledger_entries DROP CONSTRAINT ledger_entries_rating_check")
    op.execute(f"ALTER TABLE ledger_entries ADD CONSTRAINT ledger_entries_rating_check CHECK (rating IN ({ratings}))")
