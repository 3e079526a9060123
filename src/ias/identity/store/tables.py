"""The tables of `ias_identity`. The migrations create them; a test holds the two together.

Rows that gateways must know of carry `version`, which grows with every change, and `pushed_version`, the one that Redis was
last told: where they differ, something is still to be pushed.
"""

from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from ias.kit.idempotency import idempotency_keys_table

METADATA = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)


def _id() -> Column[Any]:
    return Column("id", Uuid, primary_key=True)


def _time(name: str, *, nullable: bool = False) -> Column[Any]:
    return Column(name, DateTime(timezone=True), nullable=nullable)


def _reference(name: str, target: str, *, nullable: bool = False) -> Column[Any]:
    return Column(name, Uuid, ForeignKey(target), nullable=nullable)


def _version() -> Column[Any]:
    return Column("version", BigInteger, nullable=False, server_default=text("1"))


def _pushed_version() -> Column[Any]:
    return Column("pushed_version", BigInteger, nullable=False, server_default=text("0"))


def _unpushed(table: str) -> Index:
    return Index(f"ix_{table}_unpushed", "id", postgresql_where=text("pushed_version < version"))


users = Table(
    "users",
    METADATA,
    _id(),
    Column("email", Text, nullable=False, unique=True, comment="Normalised; see core/users.py."),
    Column("name", Text, nullable=False),
    Column("password_hash", Text, comment="bcrypt; null for somebody who signs in elsewhere."),
    _time("email_confirmed_at", nullable=True),
    Column("platform_admin", Boolean, nullable=False, server_default=text("false")),
    Column("status", Text, nullable=False, server_default=text("'active'")),
    _version(),
    Column(
        "token_version",
        BigInteger,
        nullable=False,
        server_default=text("1"),
        comment="Grows when something is taken from the user; access tokens of an older one are refused.",
    ),
    _time("token_version_at", nullable=True),
    _time("created_at"),
    _time("updated_at"),
    CheckConstraint("status IN ('active', 'suspended')", name="status"),
    Index("ix_users_token_version_at", "token_version_at", postgresql_where=text("token_version_at IS NOT NULL")),
)

orgs = Table(
    "orgs",
    METADATA,
    _id(),
    Column("name", Text, nullable=False),
    Column("status", Text, nullable=False, server_default=text("'active'")),
    Column(
        "suspended_by",
        Text,
        comment="`org` or `platform`, which alone can take it back; kept while the org is deleted.",
    ),
    Column("deleted_by", Text, comment="`org` or `platform`, which alone can restore it."),
    Column("models", ARRAY(Text), comment="Public model names that may be used; null is all."),
    Column("key_lifetime_days_max", Integer, comment="New keys expire at most so many days later; null is never."),
    Column("sign_in_domains", ARRAY(Text), comment="Domains of e-mails whose users may act in the org; null is all."),
    Column("ip_networks", ARRAY(Text), comment="CIDR networks that keys and members may be used from; null is all."),
    _version(),
    _pushed_version(),
    _time("created_at"),
    _time("updated_at"),
    _time("deleted_at", nullable=True),
    _time("purged_at", nullable=True),
    CheckConstraint("status IN ('active', 'suspended', 'deleted')", name="status"),
    CheckConstraint("(status = 'deleted') = (deleted_at IS NOT NULL)", name="deleted_at"),
    CheckConstraint(
        "deleted_by IN ('org', 'platform') AND (status = 'deleted') = (deleted_by IS NOT NULL)", name="deleted_by"
    ),
    CheckConstraint(
        "suspended_by IN ('org', 'platform') AND (status = 'deleted' OR (status = 'suspended') = (suspended_by IS NOT NULL))",
        name="suspended_by",
    ),
    Index(None, "deleted_at", postgresql_where=text("deleted_at IS NOT NULL AND purged_at IS NULL")),
    _unpushed("orgs"),
)

projects = Table(
    "projects",
    METADATA,
    _id(),
    _reference("org_id", "orgs.id"),
    Column("name", Text, nullable=False),
    Column("is_default", Boolean, nullable=False, server_default=text("false")),
    Column("status", Text, nullable=False, server_default=text("'active'")),
    Column("models", ARRAY(Text), comment="Public model names that may be used; null is all that the org may."),
    _version(),
    _pushed_version(),
    _time("created_at"),
    _time("updated_at"),
    _time("deleted_at", nullable=True),
    UniqueConstraint("org_id", "name"),
    UniqueConstraint("org_id", "id"),
    CheckConstraint("(status = 'deleted') = (deleted_at IS NOT NULL)", name="deleted_at"),
    Index(None, "deleted_at", postgresql_where=text("deleted_at IS NOT NULL")),
    CheckConstraint("status IN ('active', 'suspended', 'deleted')", name="status"),
    Index("ix_projects_one_default", "org_id", unique=True, postgresql_where=text("is_default")),
    _unpushed("projects"),
)

members = Table(
    "members",
    METADATA,
    _id(),
    _reference("org_id", "orgs.id"),
    _reference("user_id", "users.id"),
    Column("role", Text, nullable=False),
    Column("status", Text, nullable=False, server_default=text("'active'")),
    _version(),
    _time("created_at"),
    _time("updated_at"),
    UniqueConstraint("org_id", "user_id"),
    CheckConstraint("status IN ('active', 'suspended')", name="status"),
    Index(None, "user_id"),
)

invitations = Table(
    "invitations",
    METADATA,
    _id(),
    _reference("org_id", "orgs.id"),
    Column("email", Text, nullable=False, comment="Normalised; see core/users.py."),
    Column("role", Text, nullable=False),
    Column("status", Text, nullable=False, server_default=text("'pending'")),
    Column("token_digest", Text, nullable=False, unique=True, comment="SHA-256 of the token, in hexadecimal."),
    _time("expires_at"),
    _time("sent_at"),
    _reference("created_by", "users.id"),
    Column("sent_by", Uuid, ForeignKey("users.id"), nullable=False, comment="Who sent it last, and vouches for it."),
    _reference("accepted_by", "users.id", nullable=True),
    _version(),
    _time("created_at"),
    _time("updated_at"),
    CheckConstraint("status IN ('pending', 'accepted', 'revoked')", name="status"),
    Index("ix_invitations_one_pending", "org_id", "email", unique=True, postgresql_where=text("status = 'pending'")),
    Index(None, "org_id", "id"),
)

outgoing_mails = Table(
    "outgoing_mails",
    METADATA,
    _id(),
    Column(
        "sealed", Text, nullable=False, comment="Address, subject and text, sealed with the platform's root secret."
    ),
    Column("tries", Integer, nullable=False),
    _time("next_try_at"),
    _time("created_at"),
    Index(None, "next_try_at"),
)

project_roles = Table(
    "project_roles",
    METADATA,
    _id(),
    Column("org_id", Uuid, nullable=False),
    Column("project_id", Uuid, nullable=False),
    Column("user_id", Uuid, nullable=False),
    Column("role", Text, nullable=False),
    _time("created_at"),
    UniqueConstraint("project_id", "user_id"),
    ForeignKeyConstraint(["org_id", "project_id"], ["projects.org_id", "projects.id"]),
    ForeignKeyConstraint(["org_id", "user_id"], ["members.org_id", "members.user_id"], ondelete="CASCADE"),
    Index(None, "org_id", "user_id"),
)

roles = Table(
    "roles",
    METADATA,
    _id(),
    _reference("org_id", "orgs.id"),
    Column("name", Text, nullable=False),
    Column("permissions", ARRAY(Text), nullable=False),
    _version(),
    _time("created_at"),
    _time("updated_at"),
    UniqueConstraint("org_id", "name"),
    UniqueConstraint("org_id", "id"),
)

role_assignments = Table(
    "role_assignments",
    METADATA,
    _id(),
    Column("org_id", Uuid, nullable=False),
    Column("role_id", Uuid, nullable=False),
    Column("user_id", Uuid, nullable=False),
    Column("project_id", Uuid, comment="Where the role holds; null is in the whole org."),
    _time("created_at"),
    UniqueConstraint("role_id", "user_id", "project_id", postgresql_nulls_not_distinct=True),
    ForeignKeyConstraint(["org_id", "role_id"], ["roles.org_id", "roles.id"]),
    ForeignKeyConstraint(["org_id", "user_id"], ["members.org_id", "members.user_id"], ondelete="CASCADE"),
    ForeignKeyConstraint(["org_id", "project_id"], ["projects.org_id", "projects.id"]),
    Index(None, "user_id"),
)

service_accounts = Table(
    "service_accounts",
    METADATA,
    _id(),
    Column("org_id", Uuid, nullable=False),
    Column("project_id", Uuid, nullable=False),
    Column("name", Text, nullable=False),
    Column("status", Text, nullable=False, server_default=text("'active'")),
    _version(),
    _time("created_at"),
    _time("updated_at"),
    Index(
        "uq_service_accounts_project_id_name",
        "project_id",
        "name",
        unique=True,
        postgresql_where=text("status <> 'deleted'"),
    ),
    UniqueConstraint("project_id", "id"),
    ForeignKeyConstraint(["org_id", "project_id"], ["projects.org_id", "projects.id"]),
    CheckConstraint("status IN ('active', 'suspended', 'deleted')", name="status"),
)

api_keys = Table(
    "api_keys",
    METADATA,
    _id(),
    Column("org_id", Uuid, nullable=False),
    Column("project_id", Uuid, nullable=False),
    _reference("user_id", "users.id", nullable=True),
    Column("service_account_id", Uuid),
    Column("name", Text, nullable=False),
    Column("digest", Text, nullable=False, unique=True, comment="SHA-256 of the key, in hexadecimal."),
    Column("redacted", Text, nullable=False),
    Column("status", Text, nullable=False, server_default=text("'active'")),
    _time("expires_at", nullable=True),
    Column("scopes", ARRAY(Text), comment="Endpoints the key may call; null is all."),
    Column("models", ARRAY(Text), comment="Public model names; null is all that the project may."),
    Column("ip_networks", ARRAY(Text), comment="CIDR networks the key may be used from; null is all."),
    _reference("created_by", "users.id"),
    _time("revoked_at", nullable=True),
    _time("rotated_at", nullable=True),
    _time("last_used_at", nullable=True),
    _version(),
    _pushed_version(),
    _time("created_at"),
    _time("updated_at"),
    ForeignKeyConstraint(["org_id", "project_id"], ["projects.org_id", "projects.id"]),
    ForeignKeyConstraint(["project_id", "service_account_id"], ["service_accounts.project_id", "service_accounts.id"]),
    CheckConstraint("num_nonnulls(user_id, service_account_id) = 1", name="one_holder"),
    CheckConstraint("status IN ('active', 'revoked')", name="status"),
    Index(None, "project_id", "id"),
    Index(None, "org_id", "user_id"),
    Index(None, "service_account_id"),
    _unpushed("api_keys"),
)

retired_digests = Table(
    "retired_digests",
    METADATA,
    Column("digest", Text, primary_key=True, comment="SHA-256 of an earlier text of a key, in hexadecimal."),
    Column("org_id", Uuid, nullable=False),
    Column("api_key_id", Uuid, ForeignKey("api_keys.id", ondelete="CASCADE"), nullable=False),
    _time("valid_until"),
    _time("created_at"),
    Index(None, "api_key_id"),
)

sessions = Table(
    "sessions",
    METADATA,
    _id(),
    _reference("user_id", "users.id"),
    _time("created_at"),
    _time("expires_at"),
    _time("revoked_at", nullable=True),
    Column("revoked_because", Text),
    Column("source_ip", Text),
    Column("user_agent", Text),
    _time("last_used_at"),
    Index(None, "user_id"),
    Index("ix_sessions_revoked_at", "revoked_at", postgresql_where=text("revoked_at IS NOT NULL")),
)

refresh_tokens = Table(
    "refresh_tokens",
    METADATA,
    Column("digest", Text, primary_key=True, comment="SHA-256 of the token, in hexadecimal."),
    Column("session_id", Uuid, ForeignKey("sessions.id", ondelete="CASCADE"), nullable=False),
    _time("created_at"),
    _time("used_at", nullable=True),
    Index(None, "session_id"),
)

password_resets = Table(
    "password_resets",
    METADATA,
    _id(),
    Column("email", Text, nullable=False, comment="Normalised, whether or not anybody has it."),
    Column("token_digest", Text, nullable=False, unique=True, comment="SHA-256 of the token, in hexadecimal."),
    _time("created_at"),
    _time("expires_at"),
    Index(None, "email"),
    Index(None, "expires_at"),
)

second_factors = Table(
    "second_factors",
    METADATA,
    Column("user_id", Uuid, ForeignKey("users.id"), primary_key=True),
    Column("sealed_secret", Text, nullable=False, comment="Base 32, sealed with the platform's root secret."),
    _time("confirmed_at", nullable=True),
    Column("last_used_step", BigInteger, comment="Unix time over 30 s of the newest code that was used."),
    _time("created_at"),
)

recovery_codes = Table(
    "recovery_codes",
    METADATA,
    Column("user_id", Uuid, ForeignKey("users.id"), primary_key=True),
    Column("digest", Text, primary_key=True, comment="SHA-256 of the code, in hexadecimal."),
)

sign_in_challenges = Table(
    "sign_in_challenges",
    METADATA,
    Column("token_digest", Text, primary_key=True, comment="SHA-256 of the token, in hexadecimal."),
    _reference("user_id", "users.id"),
    Column("tries", Integer, nullable=False),
    _time("created_at"),
    _time("expires_at"),
    Index(None, "expires_at"),
)

identity_providers = Table(
    "identity_providers",
    METADATA,
    _id(),
    Column("name", Text, nullable=False, unique=True),
    Column("issuer", Text, nullable=False),
    Column("client_id", Text, nullable=False),
    Column("sealed_client_secret", Text, comment="Sealed with the platform's root secret; null for a public client."),
    Column("domains", ARRAY(Text), comment="Of e-mails that it is believed for; null is all."),
    Column("creates_users", Boolean, nullable=False),
    Column("status", Text, nullable=False, server_default=text("'enabled'")),
    _version(),
    _time("created_at"),
    _time("updated_at"),
    CheckConstraint("status IN ('enabled', 'disabled')", name="status"),
)

external_identities = Table(
    "external_identities",
    METADATA,
    Column("provider_id", Uuid, ForeignKey("identity_providers.id"), primary_key=True),
    Column("subject", Text, primary_key=True, comment="Whom the provider means."),
    _reference("user_id", "users.id"),
    _time("created_at"),
    Index(None, "user_id"),
)

oidc_sign_ins = Table(
    "oidc_sign_ins",
    METADATA,
    Column("state_digest", Text, primary_key=True, comment="SHA-256 of the state, in hexadecimal."),
    _reference("provider_id", "identity_providers.id"),
    Column("browser_digest", Text, nullable=False, comment="SHA-256 of what the browser's cookie holds."),
    Column("nonce", Text, nullable=False),
    Column("sealed_code_verifier", Text, nullable=False),
    _time("created_at"),
    _time("expires_at"),
    Index(None, "expires_at"),
)

sign_in_attempts = Table(
    "sign_in_attempts",
    METADATA,
    Column(
        "digest",
        Text,
        primary_key=True,
        comment="Of a normalised e-mail, whether or not anybody has it; of an address.",
    ),
    Column("failures", Integer, nullable=False),
    _time("last_at"),
    _time("locked_until", nullable=True),
    Index(None, "last_at"),
)

signing_keys = Table(
    "signing_keys",
    METADATA,
    _id(),
    Column("public_key", JSONB, nullable=False, comment="JWK."),
    Column("sealed_private_key", Text, nullable=False, comment="JWK, sealed with the platform's root secret."),
    _time("created_at"),
    _time("signs_from"),
    _time("retired_at", nullable=True),
)

audit_chains = Table(
    "audit_chains",
    METADATA,
    Column("id", Uuid, primary_key=True, comment="The org's id; the nil UUID for the platform."),
    Column("sequence", BigInteger, nullable=False),
    Column("hash", Text, nullable=False),
)

audit_log = Table(
    "audit_log",
    METADATA,
    _id(),
    _reference("chain_id", "audit_chains.id"),
    Column("org_id", Uuid),
    Column("sequence", BigInteger, nullable=False),
    _time("occurred_at"),
    Column("service", Text, nullable=False),
    Column("actor_kind", Text, nullable=False),
    Column("actor_id", Text),
    Column("action", Text, nullable=False),
    Column("target_kind", Text, nullable=False),
    Column("target_id", Text, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("reason", Text),
    Column("count", BigInteger, nullable=False),
    Column("before", JSONB),
    Column("after", JSONB),
    Column("request_id", Text),
    Column("source_ip", Text),
    Column("user_agent", Text),
    Column("previous_hash", Text, nullable=False),
    Column("hash", Text, nullable=False),
    CheckConstraint("outcome IN ('done', 'denied')", name="outcome"),
    CheckConstraint("count >= 1", name="count"),
    UniqueConstraint("chain_id", "sequence"),
    Index(None, "chain_id", "id"),
    Index(None, "chain_id", "actor_id", "id"),
    Index(None, "chain_id", "target_id", "id"),
    Index(None, "chain_id", "request_id", "id"),
)
"""Append-only: triggers refuse to change or remove a row here and in `audit_checkpoints`, and to move a chain's end back.

`org_id` refers to no row: the log outlives the org.
"""

audit_checkpoints = Table(
    "audit_checkpoints",
    METADATA,
    Column("chain_id", Uuid, ForeignKey("audit_chains.id"), primary_key=True),
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("signed", Text, nullable=False, comment="JWS over the chain's id, sequence and hash."),
    _time("created_at"),
)

idempotency_keys = idempotency_keys_table(METADATA)
"""Answers kept by `kit.idempotency`."""
