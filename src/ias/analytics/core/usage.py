"""Usage over time, and recent requests."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

from sqlalchemy import text

from ias.analytics.store.usage_hourly import Bucket, Group, UsageSum, list_sums
from ias.analytics.store.usage_records import RequestFilter, UsageRow, list_records
from ias.analytics.store.usage_sums import HourSum, list_ids, sum_records, sum_rollups
from ias.kit.access import OrgScope
from ias.kit.database import Database
from ias.kit.problems import FieldError, InvalidError

_SPAN_MAX: dict[Bucket, timedelta] = {"hour": timedelta(days=62), "day": timedelta(days=800)}
_SPAN_DEFAULT: dict[Bucket, timedelta] = {"hour": timedelta(days=1), "day": timedelta(days=30)}


class Usage:
    """Queries on usage."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def sum_up(
        self, scope: OrgScope, *, start: datetime | None, end: datetime | None, bucket: Bucket, group: Group
    ) -> Sequence[UsageSum]:
        """An org's usage by bucket and group. Without a start, the last day by hour or the last thirty days by day.

        Raises:
            InvalidError: the span is empty or too long for its buckets.
        """
        until = (end or datetime.now(UTC)).astimezone(UTC)
        since = _floor((start or until - _SPAN_DEFAULT[bucket]).astimezone(UTC), bucket)
        if since >= until:
            raise _span_problem("start", "It is not before the end.")
        if until - since > _SPAN_MAX[bucket]:
            raise _span_problem("start", f"By the {bucket}, at most {_SPAN_MAX[bucket].days} days can be asked for.")
        async with self._database.transaction() as connection:
            return await list_sums(connection, UUID(scope.org_id), start=since, end=until, bucket=bucket, group=group)

    async def sum_hours(self, *, start: datetime, end: datetime) -> tuple[list[HourSum], list[HourSum]]:
        """Every org's hours, by the records and by the hourly sums, both as of one moment. For reconciliation."""
        async with self._database.transaction() as connection:
            await connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
            return await sum_records(connection, start, end), await sum_rollups(connection, start, end)

    async def list_ids(self, org_id: UUID, *, start: datetime, end: datetime, limit: int) -> list[UUID]:
        """The ids of an org's records, oldest first. For reconciliation."""
        async with self._database.transaction() as connection:
            return await list_ids(connection, org_id, start, end, limit)

    async def list_requests(self, wanted: RequestFilter, *, before: UUID | None, limit: int) -> list[UsageRow]:
        """Requests, newest first. The filter's org is one that the caller may read."""
        async with self._database.transaction() as connection:
            return await list_records(connection, wanted, before=before, limit=limit)


def _floor(moment: datetime, bucket: Bucket) -> datetime:
    hour = moment.replace(minute=0, second=0, microsecond=0)
    return hour if bucket == "hour" else hour.replace(hour=0)


def _span_problem(pointer: str, detail: str) -> InvalidError:
    return InvalidError(f"{pointer}: {detail}", errors=[FieldError(pointer=pointer, detail=detail)])
