"""Links to set a password, second factors, sign-ins that wait for one."""

import sqlalchemy as sa
from alembic import op

revision = "0005_password_resets"
down_revision = "0004_row_security"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "password_resets",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("email", sa.Text(), nullable=False, comment="Normalised, whether or not anybody has it."),
        sa.Column("token_digest", sa.Text(), nullable=False, comment="SHA-256 of the token, in hexadecimal."),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_password_resets")),
        sa.UniqueConstraint("token_digest", name=op.f("uq_password_resets_token_digest")),
    )
    op.create_index(op.f("ix_password_resets_email"), "password_resets", ["email"])
    op.create_index(op.f("ix_password_resets_expires_at"), "password_resets", ["expires_at"])
    op.create_table(
        "second_factors",
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column(
            "sealed_secret", sa.Text(), nullable=False, comment="Base 32, sealed with the platform's root secret."
        ),
        sa.Column("confirmed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "last_used_step",
            sa.BigInteger(),
            nullable=True,
            comment="Unix time over 30 s of the newest code that was used.",
        ),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_second_factors_user_id")),
        sa.PrimaryKeyConstraint("user_id", name=op.f("pk_second_factors")),
    )
    op.create_table(
        "recovery_codes",
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False, comment="SHA-256 of the code, in hexadecimal."),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_recovery_codes_user_id")),
        sa.PrimaryKeyConstraint("user_id", "digest", name=op.f("pk_recovery_codes")),
    )
    op.create_table(
        "sign_in_challenges",
        sa.Column("token_digest", sa.Text(), nullable=False, comment="SHA-256 of the token, in hexadecimal."),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_sign_in_challenges_user_id")),
        sa.PrimaryKeyConstraint("token_digest", name=op.f("pk_sign_in_challenges")),
    )
    op.create_index(op.f("ix_sign_in_challenges_expires_at"), "sign_in_challenges", ["expires_at"])


def downgrade() -> None:
    for table in ("sign_in_challenges", "recovery_codes", "second_factors", "password_resets"):
        op.drop_table(table)
