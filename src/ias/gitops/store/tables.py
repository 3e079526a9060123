"""The tables of gitops. `migrations/` creates them; a test holds the two equal."""

from sqlalchemy import (
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
)
from sqlalchemy.dialects.postgresql import JSONB

from ias.kit.idempotency import idempotency_keys_table
from ias.kit.outbox import outbox_table

METADATA = MetaData()

PLANS = Table(
    "plans",
    METADATA,
    Column("id", Uuid, primary_key=True),
    Column("org_id", Uuid, nullable=False),
    Column("status", Text, nullable=False),
    Column("prune", Boolean, nullable=False),
    Column("documents", JSONB, nullable=False),
    Column("digest", Text, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("created_by", Text, nullable=False),
    Column("request_id", Text, nullable=False),
    Column("applied_at", DateTime(timezone=True)),
    Column("applied_by", Text),
    CheckConstraint("status IN ('planned', 'failed', 'applied')", name="plans_status"),
    Index("plans_org_id", "org_id", "id"),
)

STEPS = Table(
    "steps",
    METADATA,
    Column("plan_id", Uuid, ForeignKey("plans.id"), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("action", Text, nullable=False),
    Column("name", Text),
    Column("budget_id", Text),
    Column("before", JSONB(none_as_null=True)),
    Column("after", JSONB(none_as_null=True)),
    Column("status", Text, nullable=False),
    Column("detail", Text),
    Column("done_at", DateTime(timezone=True)),
    CheckConstraint("action IN ('create', 'update', 'delete', 'unchanged', 'leave')", name="steps_action"),
    CheckConstraint("status IN ('pending', 'done', 'failed')", name="steps_status"),
)

APPLY_LEASES = Table(
    "apply_leases",
    METADATA,
    Column("org_id", Uuid, primary_key=True),
    Column("holder", Uuid, nullable=False),
    Column("expires_at", DateTime(timezone=True), nullable=False),
)
"""Who applies a plan to an org right now. One that was not given back, because its process died, expires."""

OUTBOX = outbox_table(METADATA)
"""What the audit log is told."""

IDEMPOTENCY_KEYS = idempotency_keys_table(METADATA)
"""Answers kept by `kit.idempotency`."""
