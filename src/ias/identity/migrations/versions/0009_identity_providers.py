"""Identity providers, whom they vouched for, and sign-ins under way at one."""

import sqlalchemy as sa
from alembic import op

revision = "0009_identity_providers"
down_revision = "0008_roles"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "identity_providers",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("issuer", sa.Text(), nullable=False),
        sa.Column("client_id", sa.Text(), nullable=False),
        sa.Column(
            "sealed_client_secret",
            sa.Text(),
            nullable=True,
            comment="Sealed with the platform's root secret; null for a public client.",
        ),
        sa.Column(
            "domains", sa.ARRAY(sa.Text()), nullable=True, comment="Of e-mails that it is believed for; null is all."
        ),
        sa.Column("creates_users", sa.Boolean(), nullable=False),
        sa.Column("status", sa.Text(), server_default=sa.text("'enabled'"), nullable=False),
        sa.Column("version", sa.BigInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("status IN ('enabled', 'disabled')", name=op.f("ck_identity_providers_status")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_identity_providers")),
        sa.UniqueConstraint("name", name=op.f("uq_identity_providers_name")),
    )
    op.create_table(
        "external_identities",
        sa.Column("provider_id", sa.Uuid(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False, comment="Whom the provider means."),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["provider_id"], ["identity_providers.id"], name=op.f("fk_external_identities_provider_id")
        ),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_external_identities_user_id")),
        sa.PrimaryKeyConstraint("provider_id", "subject", name=op.f("pk_external_identities")),
    )
    op.create_index(op.f("ix_external_identities_user_id"), "external_identities", ["user_id"])
    op.create_table(
        "oidc_sign_ins",
        sa.Column("state_digest", sa.Text(), nullable=False, comment="SHA-256 of the state, in hexadecimal."),
        sa.Column("provider_id", sa.Uuid(), nullable=False),
        sa.Column("browser_digest", sa.Text(), nullable=False, comment="SHA-256 of what the browser's cookie holds."),
        sa.Column("nonce", sa.Text(), nullable=False),
        sa.Column("sealed_code_verifier", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["provider_id"], ["identity_providers.id"], name=op.f("fk_oidc_sign_ins_provider_id")),
        sa.PrimaryKeyConstraint("state_digest", name=op.f("pk_oidc_sign_ins")),
    )
    op.create_index(op.f("ix_oidc_sign_ins_expires_at"), "oidc_sign_ins", ["expires_at"])


def downgrade() -> None:
    for table in ("oidc_sign_ins", "external_identities", "identity_providers"):
        op.drop_table(table)
