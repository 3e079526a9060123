"""The registry's tables. `migrations/` creates them; a test holds the two equal."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from ias.kit.idempotency import idempotency_keys_table
from ias.kit.outbox import outbox_table

METADATA = MetaData()

MODELS = Table(
    "models",
    METADATA,
    Column("id", Uuid, primary_key=True),
    Column("name", Text, nullable=False),
    Column("context_length", Integer, nullable=False),
    Column("output_tokens_max", Integer),
    Column("aliases", ARRAY(Text, as_tuple=True), nullable=False),
    Column("capabilities", ARRAY(Text, as_tuple=True), nullable=False),
    Column("org_ids", ARRAY(Uuid, as_tuple=True)),
    Column("status", Text, nullable=False),
    Column("deprecated_at", DateTime(timezone=True)),
    Column("sunset_at", DateTime(timezone=True)),
    Column("replacement", Text),
    Column("version", Integer, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("updated_at", DateTime(timezone=True), nullable=False),
    Column("deleted_at", DateTime(timezone=True)),
    CheckConstraint("status IN ('enabled', 'disabled', 'deprecated')", name="models_status"),
    CheckConstraint("context_length > 0", name="models_context_length"),
    Index("models_name", "name", unique=True, postgresql_where=text("deleted_at IS NULL")),
)

ROUTE_POLICIES = Table(
    "route_policies",
    METADATA,
    Column("model_id", Uuid, ForeignKey("models.id"), primary_key=True),
    Column("strategy", Text, nullable=False),
    Column("is_sticky", Boolean, nullable=False),
    Column("canary_percent", Integer, nullable=False),
    Column("attempts_max", Integer, nullable=False),
    Column("first_byte_timeout_s", Double),
    Column("total_timeout_s", Double),
    Column("queue_timeout_s", Double),
    Column("version", Integer, nullable=False),
    Column("updated_at", DateTime(timezone=True), nullable=False),
    CheckConstraint("canary_percent BETWEEN 0 AND 100", name="route_policies_canary_percent"),
    CheckConstraint("attempts_max > 0", name="route_policies_attempts_max"),
)
"""One row a model, from its creation on."""

BACKENDS = Table(
    "backends",
    METADATA,
    Column("id", Uuid, primary_key=True),
    Column("model_id", Uuid, ForeignKey("models.id"), nullable=False),
    Column("url", Text, nullable=False),
    Column("weight", Integer, nullable=False),
    Column("upstream_model", Text, nullable=False),
    Column("engine", Text, nullable=False),
    Column("sealed_credential", Text),
    Column("credential_from", Text),
    Column("tier", Integer, nullable=False),
    Column("group", Text, nullable=False),
    Column("concurrency_max", Integer),
    Column("environment", Text),
    Column("draining", Boolean, nullable=False),
    Column("status", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("updated_at", DateTime(timezone=True), nullable=False),
    Column("deleted_at", DateTime(timezone=True)),
    CheckConstraint("status IN ('enabled', 'disabled')", name="backends_status"),
    CheckConstraint("weight >= 0", name="backends_weight"),
    CheckConstraint("tier >= 0", name="backends_tier"),
    CheckConstraint("\"group\" IN ('stable', 'canary')", name="backends_group"),
    CheckConstraint("concurrency_max > 0", name="backends_concurrency_max"),
    CheckConstraint("sealed_credential IS NULL OR credential_from IS NULL", name="backends_one_credential"),
    Index("backends_model_id", "model_id"),
)

ADAPTERS = Table(
    "adapters",
    METADATA,
    Column("id", Uuid, primary_key=True),
    Column("backend_id", Uuid, ForeignKey("backends.id"), nullable=False),
    Column("model_id", Uuid, ForeignKey("models.id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("deleted_at", DateTime(timezone=True)),
    Index("adapters_name", "backend_id", "name", unique=True, postgresql_where=text("deleted_at IS NULL")),
    Index("adapters_model_id", "model_id"),
)

BACKEND_TRANSITIONS = Table(
    "backend_transitions",
    METADATA,
    Column("id", Uuid, primary_key=True),
    Column("backend_id", Uuid, ForeignKey("backends.id"), nullable=False),
    Column("at", DateTime(timezone=True), nullable=False),
    Column("health", Text, nullable=False),
    Column("circuit", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Index("backend_transitions_backend_id", "backend_id", "id"),
)
"""Written by the prober: the newest of each backend, at most `KEPT_PER_BACKEND`."""

ENGINE_TOKEN_READINGS = Table(
    "engine_token_readings",
    METADATA,
    Column("backend_id", Uuid, ForeignKey("backends.id"), primary_key=True),
    Column("at", DateTime(timezone=True), primary_key=True),
    Column("prompt_tokens", BigInteger, nullable=False),
    Column("generation_tokens", BigInteger, nullable=False),
)
"""Written by the prober: what an engine had counted since it was started, once a minute."""

CHANGES = Table(
    "changes",
    METADATA,
    Column("id", Uuid, primary_key=True),
    Column("at", DateTime(timezone=True), nullable=False),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("target_kind", Text, nullable=False),
    Column("target_id", Uuid, nullable=False),
    Column("before", JSONB),
    Column("after", JSONB),
    Column("request_id", Text, nullable=False),
    Column("route_table_version", BigInteger, nullable=False),
    Index("changes_target_id", "target_id"),
)
"""Append-only: a trigger refuses to change or remove a row."""

ROUTE_TABLE_VERSION = Table(
    "route_table_version",
    METADATA,
    Column("only_row", Boolean, primary_key=True),
    Column("version", BigInteger, nullable=False),
    CheckConstraint("only_row", name="route_table_version_only_row"),
)
"""One row. Every change locks it first, so that changes and their versions have one order."""

OUTBOX = outbox_table(METADATA)
"""What the audit log is told."""

IDEMPOTENCY_KEYS = idempotency_keys_table(METADATA)
"""Answers kept by `kit.idempotency`."""
