"""When sessions were used and ended, and which state of what a user holds their tokens show."""

import sqlalchemy as sa
from alembic import op

revision = "0002_session_revocation"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "users",
        sa.Column(
            "token_version",
            sa.BigInteger(),
            server_default=sa.text("1"),
            nullable=False,
            comment="Grows when something is taken from the user; access tokens of an older one are refused.",
        ),
    )
    op.add_column("users", sa.Column("token_version_at", sa.DateTime(timezone=True), nullable=True))
    op.create_index(
        "ix_users_token_version_at",
        "users",
        ["token_version_at"],
        postgresql_where=sa.text("token_version_at IS NOT NULL"),
    )
    op.add_column("sessions", sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True))
    op.execute("UPDATE sessions SET last_used_at = created_at")
    op.alter_column("sessions", "last_used_at", nullable=False)
    op.create_index(
        "ix_sessions_revoked_at", "sessions", ["revoked_at"], postgresql_where=sa.text("revoked_at IS NOT NULL")
    )
    op.alter_column(
        "sign_in_attempts",
        "email_digest",
        new_column_name="digest",
        comment="Of a normalised e-mail, whether or not anybody has it; of an address.",
    )


def downgrade() -> None:
    op.alter_column(
        "sign_in_attempts",
        "digest",
        new_column_name="email_digest",
        comment="Of the normalised e-mail, whether or not anybody has it.",
    )
    op.drop_index("ix_sessions_revoked_at", "sessions")
    op.drop_column("sessions", "last_used_at")
    op.drop_index("ix_users_token_version_at", "users")
    op.drop_column("users", "token_version_at")
    op.drop_column("users", "token_version")
