"""The registry's tables. `migrations/` creates them; a test holds the two equal."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

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
    Column("status", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("updated_at", DateTime(timezone=True), nullable=False),
    Column("deleted_at", DateTime(timezone=True)),
    CheckConstraint("status IN ('enabled', 'disabled')", name="models_status"),
    CheckConstraint("context_length > 0", name="models_context_length"),
    Index("models_name", "name", unique=True, postgresql_where=text("deleted_at IS NULL")),
)

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
    Column("draining", Boolean, nullable=False),
    Column("status", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("updated_at", DateTime(timezone=True), nullable=False),
    Column("deleted_at", DateTime(timezone=True)),
    CheckConstraint("status IN ('enabled', 'disabled')", name="backends_status"),
    CheckConstraint("weight >= 0", name="backends_weight"),
    Index("backends_model_id", "model_id"),
)

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
