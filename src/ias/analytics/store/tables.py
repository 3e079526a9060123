"""Analytics' tables. `migrations/` creates them; a test holds the two equal.

A request belongs to the hour in its id: when it was admitted, as in billing's books.
"""

from sqlalchemy import BigInteger, Boolean, Column, DateTime, Double, Integer, MetaData, Table, Text, Uuid
from sqlalchemy.dialects.postgresql import ARRAY

from ias.kit.outbox import outbox_table

METADATA = MetaData()

USAGE_RECORDS = Table(
    "usage_records",
    METADATA,
    Column("id", Uuid, primary_key=True),
    Column("request_id", Text, nullable=False),
    Column("occurred_at", DateTime(timezone=True), nullable=False),
    Column("org_id", Uuid, nullable=False),
    Column("project_id", Uuid, nullable=False),
    Column("api_key_id", Uuid, nullable=False),
    Column("user_id", Uuid),
    Column("service_account_id", Uuid),
    Column("endpoint", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("backend_id", Text, nullable=False),
    Column("streamed", Boolean, nullable=False),
    Column("status", Integer, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("input_tokens", Integer, nullable=False),
    Column("cached_input_tokens", Integer, nullable=False),
    Column("output_tokens", Integer, nullable=False),
    Column("estimated", Boolean, nullable=False),
    Column("price_id", Uuid),
    Column("price_version", Integer),
    Column("cost_nano_usd", BigInteger, nullable=False),
    Column("ttft_ms", Double),
    Column("duration_ms", Double, nullable=False),
)
"""One row a request, partitioned by month on `id`."""

USAGE_HOURLY = Table(
    "usage_hourly",
    METADATA,
    Column("org_id", Uuid, nullable=False),
    Column("hour", DateTime(timezone=True), nullable=False),
    Column("project_id", Uuid, nullable=False),
    Column("api_key_id", Uuid, nullable=False),
    Column("user_id", Uuid),
    Column("model", Text, nullable=False),
    Column("requests", BigInteger, nullable=False),
    Column("failed", BigInteger, nullable=False),
    Column("cancelled", BigInteger, nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("cached_input_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("cost_nano_usd", BigInteger, nullable=False),
    Column("ttft_histogram", ARRAY(BigInteger), nullable=False),
    Column("duration_histogram", ARRAY(BigInteger), nullable=False),
    Column("counted_at", DateTime(timezone=True), nullable=False),
)
"""The records summed by hour and who used what, kept in the transaction that adds them: always equal to them."""

OUTBOX = outbox_table(METADATA)
"""What the audit log is told."""
