"""Counting: each usage record is stored, and added to its hour's sums, once and together, however often it is delivered."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import structlog
from sqlalchemy.exc import DBAPIError

from ias.analytics.core.histograms import BUCKETS, bucket_of
from ias.analytics.store.usage_hourly import HourlySum, add_sums
from ias.analytics.store.usage_records import insert_records
from ias.contracts.usage_messages import CheckedRecord
from ias.kit.database import Database
from ias.kit.partitions import hour_of

log = structlog.get_logger("ias.analytics")

_DATA_ERROR_CLASSES = ("22", "23")
"""SQLSTATE classes: the value does not fit its column; a constraint refuses it. Trying again does not help."""


@dataclass(slots=True)
class Counted:
    """What came of a batch."""

    new: int = 0
    known: int = 0
    """Deliveries of records that were counted before."""
    refusals: list[str] = field(default_factory=list)


class Counting:
    """Counts usage records."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def count(self, records: Sequence[CheckedRecord]) -> Counted:
        """Count records in one transaction; those the database refuses for what they hold are named in the result.

        Raises:
            DBAPIError, OSError, TimeoutError: the database is away or busy; nothing was counted.
        """
        if not records:
            return Counted()
        try:
            return await self._count_together(records)
        except DBAPIError as error:
            if not _is_about_the_data(error):
                raise
            log.warning("a record of the batch is refused by the database", error=str(error.orig)[:200])
        return await self._count_one_by_one(records)

    async def _count_together(self, records: Sequence[CheckedRecord]) -> Counted:
        by_id = {record.id: record for record in records}
        async with self._database.transaction() as connection:
            new_ids = await insert_records(connection, list(by_id.values()))
            if new_ids:
                await add_sums(connection, sum_by_hour(by_id[record_id] for record_id in by_id if record_id in new_ids))
        return Counted(new=len(new_ids), known=len(records) - len(new_ids))

    async def _count_one_by_one(self, records: Sequence[CheckedRecord]) -> Counted:
        total = Counted()
        for record in records:
            try:
                one = await self._count_together([record])
            except DBAPIError as error:
                if not _is_about_the_data(error):
                    raise
                total.refusals.append(f"record {record.id}: {str(error.orig)[:200]}")
            else:
                total.new += one.new
                total.known += one.known
        return total


def sum_by_hour(records: Iterable[CheckedRecord]) -> list[HourlySum]:
    """The sums that records add to."""
    sums: dict[tuple[object, ...], HourlySum] = {}
    for row in records:
        hour = hour_of(row.id)
        key = (row.org_id, hour, row.project_id, row.api_key_id, row.user_id, row.model)
        if key not in sums:
            sums[key] = HourlySum(
                org_id=row.org_id,
                hour=hour,
                project_id=row.project_id,
                api_key_id=row.api_key_id,
                user_id=row.user_id,
                model=row.model,
                ttft_histogram=[0] * BUCKETS,
                duration_histogram=[0] * BUCKETS,
            )
        _add(sums[key], row)
    return list(sums.values())


def _add(total: HourlySum, row: CheckedRecord) -> None:
    total.requests += 1
    total.failed += row.outcome == "failed"
    total.cancelled += row.outcome == "cancelled"
    total.input_tokens += row.input_tokens
    total.cached_input_tokens += row.cached_input_tokens
    total.output_tokens += row.output_tokens
    total.cost_nano_usd += row.cost_nano_usd
    if row.ttft_ms is not None:
        total.ttft_histogram[bucket_of(row.ttft_ms)] += 1
    total.duration_histogram[bucket_of(row.duration_ms)] += 1


def _is_about_the_data(error: DBAPIError) -> bool:
    return str(getattr(error.orig, "sqlstate", None) or "").startswith(_DATA_ERROR_CLASSES)
