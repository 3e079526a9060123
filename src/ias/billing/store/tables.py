"""Billing's tables. `migrations/` creates them; a test holds the two equal.

Money is nano-USD in `bigint`. An entry's time, for budgets and balances, is the time in its id: when the request was admitted.
"""

from sqlalchemy import BigInteger, Boolean, Column, DateTime, Integer, MetaData, Table, Text, Uuid
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from ias.kit.idempotency import idempotency_keys_table
from ias.kit.outbox import outbox_table

METADATA = MetaData()

PRICES = Table(
    "prices",
    METADATA,
    Column("id", Uuid, primary_key=True),
    Column("org_id", Uuid),
    Column("model", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("effective_at", DateTime(timezone=True), nullable=False),
    Column("effective_until", DateTime(timezone=True)),
    Column("input_nano_usd_per_million", BigInteger, nullable=False),
    Column("cached_input_nano_usd_per_million", BigInteger, nullable=False),
    Column("output_nano_usd_per_million", BigInteger, nullable=False),
    Column("request_nano_usd", BigInteger, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("created_by", Text, nullable=False),
)
"""Never changed: a new price is a new row. `(org_id, model, version)` is unique. Without an org a price is for all of them."""

SPENDING_SETTINGS = Table(
    "spending_settings",
    METADATA,
    Column("org_id", Uuid, primary_key=True),
    Column("time_zone", Text, nullable=False),
    Column("unpriced", Text),
    Column("unguarded_nano_usd", BigInteger),
    Column("queue_weight", Integer, nullable=False),
    Column("version", Integer, nullable=False),
    Column("updated_at", DateTime(timezone=True), nullable=False),
)
"""What an org says of its spending in general, and its contract of it; most orgs have no row."""

BUDGETS = Table(
    "budgets",
    METADATA,
    Column("id", Uuid, primary_key=True),
    Column("org_id", Uuid, nullable=False),
    Column("scope_kind", Text, nullable=False),
    Column("scope_id", Text, nullable=False),
    Column("window", Text, nullable=False),
    Column("limit_nano_usd", BigInteger, nullable=False),
    Column("mode", Text, nullable=False),
    Column("at_limit", Text, nullable=False),
    Column("time_zone", Text, nullable=False),
    Column("alert_percents", ARRAY(Integer), nullable=False),
    Column("set_by_platform", Boolean, nullable=False),
    Column("version", Integer, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("updated_at", DateTime(timezone=True), nullable=False),
    Column("deleted_at", DateTime(timezone=True)),
    Column("counted_from", DateTime(timezone=True)),
)
"""`counted_from`: when its counter in Redis was first set up; null until then, and not enforced so long."""

BUDGET_RAISES = Table(
    "budget_raises",
    METADATA,
    Column("id", Uuid, primary_key=True),
    Column("org_id", Uuid, nullable=False),
    Column("budget_id", Uuid, nullable=False),
    Column("amount_nano_usd", BigInteger, nullable=False),
    Column("reason", Text, nullable=False),
    Column("expires_at", DateTime(timezone=True), nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("created_by", Text, nullable=False),
    Column("revoked_at", DateTime(timezone=True)),
)

ALERT_CHANNELS = Table(
    "alert_channels",
    METADATA,
    Column("id", Uuid, primary_key=True),
    Column("org_id", Uuid, nullable=False),
    Column("kind", Text, nullable=False),
    Column("target", Text, nullable=False),
    Column("sealed_secret", Text),
    Column("sealed_old_secret", Text),
    Column("old_secret_until", DateTime(timezone=True)),
    Column("version", Integer, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("updated_at", DateTime(timezone=True), nullable=False),
    Column("deleted_at", DateTime(timezone=True)),
)
"""Where an org is told of alerts. `target` is a URL or an address."""

ALERTS = Table(
    "alerts",
    METADATA,
    Column("id", Uuid, primary_key=True),
    Column("org_id", Uuid, nullable=False),
    Column("budget_id", Uuid, nullable=False),
    Column("window_id", Text, nullable=False),
    Column("percent", Integer, nullable=False),
    Column("limit_nano_usd", BigInteger, nullable=False),
    Column("spent_nano_usd", BigInteger, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
)
"""`(budget_id, window_id, percent)` is unique: a threshold is reached once in a window (of a rolling one: in its newest part)."""

ALERT_DELIVERIES = Table(
    "alert_deliveries",
    METADATA,
    Column("id", Uuid, primary_key=True),
    Column("org_id", Uuid, nullable=False),
    Column("alert_id", Uuid, nullable=False),
    Column("channel_id", Uuid, nullable=False),
    Column("status", Text, nullable=False),
    Column("tries", Integer, nullable=False),
    Column("next_try_at", DateTime(timezone=True), nullable=False),
    Column("last_answer", Text),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("delivered_at", DateTime(timezone=True)),
)

RATE_LIMITS = Table(
    "rate_limits",
    METADATA,
    Column("id", Uuid, primary_key=True),
    Column("org_id", Uuid, nullable=False),
    Column("scope_kind", Text, nullable=False),
    Column("scope_id", Text, nullable=False),
    Column("metric", Text, nullable=False),
    Column("limit", BigInteger, nullable=False),
    Column("version", Integer, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("updated_at", DateTime(timezone=True), nullable=False),
    Column("deleted_at", DateTime(timezone=True)),
)
"""`(org_id, scope_kind, scope_id, metric)` is unique among those that were not deleted."""

PUBLISHED_DOCUMENTS = Table(
    "published_documents",
    METADATA,
    Column("key", Text, primary_key=True),
    Column("org_id", Uuid),
    Column("version", BigInteger, nullable=False),
)
"""The version of each document that gateways read from Redis. A change locks its row first: versions and changes have one order."""

LEDGER_ENTRIES = Table(
    "ledger_entries",
    METADATA,
    Column("id", Uuid, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("org_id", Uuid, nullable=False),
    Column("project_id", Uuid),
    Column("api_key_id", Uuid),
    Column("user_id", Uuid),
    Column("service_account_id", Uuid),
    Column("request_id", Text),
    Column("endpoint", Text),
    Column("model", Text),
    Column("backend_id", Text),
    Column("streamed", Boolean),
    Column("status", Integer),
    Column("outcome", Text),
    Column("input_tokens", Integer, nullable=False),
    Column("cached_input_tokens", Integer, nullable=False),
    Column("output_tokens", Integer, nullable=False),
    Column("cost_nano_usd", BigInteger, nullable=False),
    Column("settled_nano_usd", BigInteger, nullable=False),
    Column("price_id", Uuid),
    Column("price_version", Integer),
    Column("rating", Text, nullable=False),
    Column("estimated", Boolean, nullable=False),
    Column("occurred_at", DateTime(timezone=True), nullable=False),
    Column("booked_at", DateTime(timezone=True), nullable=False),
    Column("decision", JSONB, nullable=False),
)
"""Append-only, partitioned by month on `id`. `cost_nano_usd` is what the price says, `settled_nano_usd` what a gateway counted."""

SPEND_HOURLY = Table(
    "spend_hourly",
    METADATA,
    Column("org_id", Uuid, nullable=False),
    Column("hour", DateTime(timezone=True), nullable=False),
    Column("project_id", Uuid),
    Column("api_key_id", Uuid),
    Column("user_id", Uuid),
    Column("model", Text),
    Column("entries", BigInteger, nullable=False),
    Column("cost_nano_usd", BigInteger, nullable=False),
)
"""The ledger summed by hour and scope, kept in the transaction that books: a projection, always equal to the ledger."""

RECONCILIATIONS = Table(
    "reconciliations",
    METADATA,
    Column("id", Uuid, primary_key=True),
    Column("started_at", DateTime(timezone=True), nullable=False),
    Column("finished_at", DateTime(timezone=True), nullable=False),
    Column("start", DateTime(timezone=True), nullable=False),
    Column("end", DateTime(timezone=True), nullable=False),
    Column("differences", JSONB, nullable=False),
    Column("skipped", JSONB, nullable=False),
)
"""What was compared, and what differed."""

OUTBOX = outbox_table(METADATA)
"""What the audit log is told."""

IDEMPOTENCY_KEYS = idempotency_keys_table(METADATA)
"""Answers kept by `kit.idempotency`."""
