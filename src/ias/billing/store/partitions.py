"""The ledger's monthly partitions."""

from collections.abc import Sequence

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from ias.kit.partitions import Month, create_partition_sql, list_missing_months, partition_name

LEDGER = "ledger_entries"


async def find_missing(connection: AsyncConnection, months: Sequence[Month]) -> list[Month]:
    """Those of the months that have no partition yet."""
    return await list_missing_months(connection, LEDGER, months)


async def create_partition(connection: AsyncConnection, month: Month) -> None:
    """Make a month's partition, as append-only as the ledger. Gives up rather than hold up bookings for long."""
    await connection.execute(text("SET LOCAL lock_timeout = '2s'"))
    await connection.execute(text(create_partition_sql(LEDGER, month)))
    await connection.execute(
        text(
            f"CREATE TRIGGER append_only BEFORE TRUNCATE ON {partition_name(LEDGER, month)}"
            " FOR EACH STATEMENT EXECUTE FUNCTION refuse_to_rewrite_ledger()"
        )
    )
