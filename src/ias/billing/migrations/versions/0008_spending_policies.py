"""Orgs' policies hold budgets and rate limits; their documents' keys say so.

Revision ID: 0008_spending_policies
"""

import sqlalchemy as sa
from alembic import op

revision = "0008_spending_policies"
down_revision = "0007_idempotency_keys"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _rename("ias:budgets:", "ias:spending:")


def downgrade() -> None:
    _rename("ias:spending:", "ias:budgets:")


def _rename(old: str, new: str) -> None:
    statement = sa.text("UPDATE published_documents SET key = :new || substr(key, :rest) WHERE starts_with(key, :old)")
    op.get_bind().execute(statement, {"old": old, "new": new, "rest": len(old) + 1})
