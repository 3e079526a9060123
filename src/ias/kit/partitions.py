"""Tables partitioned by month on a UUIDv7 primary key.

The id alone is then unique over the whole table *and* says in which partition its row lies, so `ON CONFLICT (id)` needs no
second column. A default partition catches ids whose month has no partition (a late delivery, a clock far ahead): such rows are
booked all the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_HOUR_MS = 3_600_000


@dataclass(frozen=True, slots=True, order=True)
class Month:
    """A calendar month in UTC."""

    year: int
    month: int

    @classmethod
    def of(cls, moment: datetime) -> "Month":
        """The month that a moment falls in."""
        utc = moment.astimezone(UTC)
        return cls(utc.year, utc.month)

    def plus(self, months: int) -> "Month":
        """The month so many later (earlier when negative)."""
        index = self.year * 12 + self.month - 1 + months
        return Month(index // 12, index % 12 + 1)

    @property
    def start(self) -> datetime:
        """Its first moment."""
        return datetime(self.year, self.month, 1, tzinfo=UTC)


def uuid_floor(moment: datetime) -> UUID:
    """The smallest UUID that sorts at or before every UUIDv7 made in the moment's millisecond."""
    return UUID(int=((moment - _EPOCH) // timedelta(milliseconds=1)) << 80)


def time_of(record_id: UUID) -> datetime:
    """When a UUIDv7 was made, to the millisecond.

    Raises:
        OverflowError: after the year 9999.
    """
    return _EPOCH + timedelta(milliseconds=record_id.int >> 80)


def hour_number(record_id: UUID) -> int:
    """In which hour since 1970 a UUIDv7 was made."""
    return (record_id.int >> 80) // _HOUR_MS


def hour_of(record_id: UUID) -> datetime:
    """The first moment of that hour. Raises what `time_of` raises."""
    return _EPOCH + timedelta(hours=hour_number(record_id))


def hour_sql(column: str) -> str:
    """The SQL of the hour in UTC in which a UUIDv7 in a column was made, as `timestamptz`; `time_of` for the database."""
    millis = f"('x' || left(replace({column}::text, '-', ''), 12))::bit(48)::bigint"
    return f"date_trunc('hour', to_timestamp({millis} / 1000), 'UTC')"


def partition_name(table: str, month: Month) -> str:
    """`ledger_entries_2026_11`."""
    return f"{table}_{month.year:04d}_{month.month:02d}"


def create_partition_sql(table: str, month: Month) -> str:
    """The DDL of one month's partition."""
    lower, upper = uuid_floor(month.start), uuid_floor(month.plus(1).start)
    name = partition_name(table, month)
    return f"CREATE TABLE {name} PARTITION OF {table} FOR VALUES FROM ('{lower}') TO ('{upper}')"


def create_default_partition_sql(table: str) -> str:
    """The DDL of the partition that catches what no month's partition takes."""
    return f"CREATE TABLE {table}_default PARTITION OF {table} DEFAULT"


async def list_missing_months(connection: AsyncConnection, table: str, months: Sequence[Month]) -> list[Month]:
    """Those of the months for which the table has no partition yet."""
    rows = await connection.execute(
        text(
            "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid"
            " WHERE i.inhparent = CAST(:table AS regclass)"
        ),
        {"table": table},
    )
    present = set(rows.scalars())
    return [month for month in months if partition_name(table, month) not in present]
