"""Prices, budgets, the versions of what is published, the append-only ledger and its hourly projection.

Revision ID: 0001
"""

from datetime import UTC, datetime

from alembic import op

from ias.kit.partitions import Month, create_default_partition_sql, create_partition_sql, partition_name

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_MONTHS_BACK, _MONTHS_AHEAD = 1, 3


def upgrade() -> None:
    _create_prices()
    _create_budgets()
    _create_ledger()
    _protect_ledger()
    _create_partitions()
    _create_spend_hourly()


def _create_prices() -> None:
    op.execute(
        """
        CREATE TABLE prices (
            id uuid PRIMARY KEY,
            model text NOT NULL,
            version integer NOT NULL,
            effective_at timestamptz NOT NULL,
            input_nano_usd_per_million bigint NOT NULL CHECK (input_nano_usd_per_million >= 0),
            cached_input_nano_usd_per_million bigint NOT NULL CHECK (cached_input_nano_usd_per_million >= 0),
            output_nano_usd_per_million bigint NOT NULL CHECK (output_nano_usd_per_million >= 0),
            created_at timestamptz NOT NULL,
            created_by text NOT NULL,
            UNIQUE (model, version)
        )
        """
    )
    op.execute("CREATE INDEX prices_in_force ON prices (model, effective_at, version)")


def _create_budgets() -> None:
    op.execute(
        """
        CREATE TABLE budgets (
            id uuid PRIMARY KEY,
            org_id uuid NOT NULL,
            scope_kind text NOT NULL CHECK (scope_kind IN ('org', 'project', 'api_key', 'user', 'model')),
            scope_id text NOT NULL,
            "window" text NOT NULL CHECK ("window" IN ('day', 'week', 'month', 'total')),
            limit_nano_usd bigint NOT NULL CHECK (limit_nano_usd >= 0),
            mode text NOT NULL CHECK (mode IN ('hard', 'soft')),
            created_at timestamptz NOT NULL,
            updated_at timestamptz NOT NULL,
            deleted_at timestamptz,
            counted_from timestamptz
        )
        """
    )
    op.execute("CREATE INDEX budgets_org ON budgets (org_id, id) WHERE deleted_at IS NULL")
    op.execute("CREATE INDEX budgets_uncounted ON budgets (org_id) WHERE counted_from IS NULL AND deleted_at IS NULL")
    op.execute(
        """
        CREATE TABLE published_documents (
            key text PRIMARY KEY,
            org_id uuid,
            version bigint NOT NULL
        )
        """
    )
    op.execute("CREATE INDEX published_documents_version ON published_documents (version)")


def _create_ledger() -> None:
    op.execute(
        """
        CREATE TABLE ledger_entries (
            id uuid PRIMARY KEY,
            kind text NOT NULL CHECK (kind IN ('usage', 'correction', 'credit')),
            org_id uuid NOT NULL,
            project_id uuid,
            api_key_id uuid,
            user_id uuid,
            service_account_id uuid,
            request_id text,
            endpoint text,
            model text,
            backend_id text,
            streamed boolean,
            status integer,
            outcome text,
            input_tokens integer NOT NULL,
            cached_input_tokens integer NOT NULL,
            output_tokens integer NOT NULL,
            cost_nano_usd bigint NOT NULL,
            settled_nano_usd bigint NOT NULL,
            price_id uuid,
            price_version integer,
            rating text NOT NULL CHECK (rating IN ('rated', 'repriced', 'unpriced', 'price_unknown')),
            estimated boolean NOT NULL,
            occurred_at timestamptz NOT NULL,
            booked_at timestamptz NOT NULL DEFAULT now(),
            decision jsonb NOT NULL
        ) PARTITION BY RANGE (id)
        """
    )
    op.execute("CREATE INDEX ledger_entries_org ON ledger_entries (org_id, id)")
    op.execute("CREATE INDEX ledger_entries_request ON ledger_entries (request_id)")


def _protect_ledger() -> None:
    """Statements on the table, and rows reached through a partition of it, are refused alike."""
    op.execute(
        """
        CREATE FUNCTION refuse_to_rewrite_ledger() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION 'the ledger is append-only: book a correction instead'
                USING ERRCODE = 'insufficient_privilege';
        END $$
        """
    )
    op.execute(
        """
        CREATE TRIGGER ledger_entries_append_only_statements
        BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger_entries
        FOR EACH STATEMENT EXECUTE FUNCTION refuse_to_rewrite_ledger()
        """
    )
    op.execute(
        """
        CREATE TRIGGER ledger_entries_append_only_rows
        BEFORE UPDATE OR DELETE ON ledger_entries
        FOR EACH ROW EXECUTE FUNCTION refuse_to_rewrite_ledger()
        """
    )


def _create_partitions() -> None:
    this_month = Month.of(datetime.now(UTC))
    op.execute(create_default_partition_sql("ledger_entries"))
    _refuse_truncate("ledger_entries_default")
    for offset in range(-_MONTHS_BACK, _MONTHS_AHEAD + 1):
        month = this_month.plus(offset)
        op.execute(create_partition_sql("ledger_entries", month))
        _refuse_truncate(partition_name("ledger_entries", month))


def _refuse_truncate(partition: str) -> None:
    op.execute(
        f"CREATE TRIGGER append_only BEFORE TRUNCATE ON {partition}"
        " FOR EACH STATEMENT EXECUTE FUNCTION refuse_to_rewrite_ledger()"
    )


def _create_spend_hourly() -> None:
    op.execute(
        """
        CREATE TABLE spend_hourly (
            org_id uuid NOT NULL,
            hour timestamptz NOT NULL,
            project_id uuid,
            api_key_id uuid,
            user_id uuid,
            model text,
            entries bigint NOT NULL,
            cost_nano_usd bigint NOT NULL,
            UNIQUE NULLS NOT DISTINCT (org_id, hour, project_id, api_key_id, user_id, model)
        )
        """
    )


def downgrade() -> None:
    op.execute("DROP TABLE spend_hourly")
    op.execute("DROP TABLE ledger_entries")
    op.execute("DROP FUNCTION refuse_to_rewrite_ledger()")
    op.execute("DROP TABLE published_documents")
    op.execute("DROP TABLE budgets")
    op.execute("DROP TABLE prices")
