"""Usage records, partitioned by month on their UUIDv7, and their hourly sums with latency histograms.

Revision ID: 0001
"""

from datetime import UTC, datetime

from alembic import op

from ias.kit.partitions import Month, create_default_partition_sql, create_partition_sql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_MONTHS_BACK, _MONTHS_AHEAD = 1, 3


def upgrade() -> None:
    _create_usage_records()
    _create_histogram_sums()
    op.execute(
        """
        CREATE TABLE usage_hourly (
            org_id uuid NOT NULL,
            hour timestamptz NOT NULL,
            project_id uuid NOT NULL,
            api_key_id uuid NOT NULL,
            user_id uuid,
            model text NOT NULL,
            requests bigint NOT NULL,
            failed bigint NOT NULL,
            cancelled bigint NOT NULL,
            input_tokens bigint NOT NULL,
            cached_input_tokens bigint NOT NULL,
            output_tokens bigint NOT NULL,
            cost_nano_usd bigint NOT NULL,
            ttft_histogram bigint[] NOT NULL,
            duration_histogram bigint[] NOT NULL,
            counted_at timestamptz NOT NULL,
            UNIQUE NULLS NOT DISTINCT (org_id, hour, project_id, api_key_id, user_id, model)
        )
        """
    )


def _create_usage_records() -> None:
    op.execute(
        """
        CREATE TABLE usage_records (
            id uuid PRIMARY KEY,
            request_id text NOT NULL,
            occurred_at timestamptz NOT NULL,
            org_id uuid NOT NULL,
            project_id uuid NOT NULL,
            api_key_id uuid NOT NULL,
            user_id uuid,
            service_account_id uuid,
            endpoint text NOT NULL,
            model text NOT NULL,
            backend_id text NOT NULL,
            streamed boolean NOT NULL,
            status integer NOT NULL,
            outcome text NOT NULL,
            input_tokens integer NOT NULL,
            cached_input_tokens integer NOT NULL,
            output_tokens integer NOT NULL,
            estimated boolean NOT NULL,
            price_id uuid,
            price_version integer,
            cost_nano_usd bigint NOT NULL,
            ttft_ms double precision,
            duration_ms double precision NOT NULL
        ) PARTITION BY RANGE (id)
        """
    )
    op.execute("CREATE INDEX usage_records_org ON usage_records (org_id, id)")
    op.execute(create_default_partition_sql("usage_records"))
    this_month = Month.of(datetime.now(UTC))
    for offset in range(-_MONTHS_BACK, _MONTHS_AHEAD + 1):
        op.execute(create_partition_sql("usage_records", this_month.plus(offset)))


def _create_histogram_sums() -> None:
    """`add_histograms(a, b)` adds bucket by bucket; `sum_histograms` is the aggregate of it."""
    op.execute(
        """
        CREATE FUNCTION add_histograms(a bigint[], b bigint[]) RETURNS bigint[] LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
            SELECT array_agg(coalesce(x, 0) + coalesce(y, 0) ORDER BY bucket)
            FROM unnest(a, b) WITH ORDINALITY AS both_histograms (x, y, bucket)
        $$
        """
    )
    op.execute("CREATE AGGREGATE sum_histograms(bigint[]) (SFUNC = add_histograms, STYPE = bigint[], INITCOND = '{0}')")


def downgrade() -> None:
    op.execute("DROP TABLE usage_hourly")
    op.execute("DROP AGGREGATE sum_histograms(bigint[])")
    op.execute("DROP FUNCTION add_histograms(bigint[], bigint[])")
    op.execute("DROP TABLE usage_records")
