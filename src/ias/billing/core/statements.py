"""Statements: what an org was charged in a period, summed as asked, or entry by entry.

Sums are made a day at a time, so a query's work is bounded by a day's entries and what is in memory by the number of lines.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Literal
from uuid import UUID

from ias.billing.store import ledger
from ias.billing.store.ledger import LedgerEntry, LedgerFilter
from ias.billing.store.spending_settings import get_settings
from ias.billing.store.statements import SummedEntries, sum_entries
from ias.contracts.spending import window_end, window_id, window_start
from ias.kit.access import OrgScope
from ias.kit.database import Database
from ias.kit.problems import FieldError, InvalidError

PERIOD_MAX = timedelta(days=366)
_ENTRIES_AT_ONCE = 500

Key = Literal["day", "project", "api_key", "model"]


@dataclass(frozen=True, slots=True)
class Period:
    """From `start` on and before `end`; days are those of the zone."""

    start: datetime
    end: datetime
    time_zone: str


@dataclass(slots=True)
class StatementLine:
    """What its keys have in common, summed; money in nano-USD."""

    requests: int = 0
    input_tokens: int = 0
    cached_input_tokens: int = 0
    output_tokens: int = 0
    usage_nano_usd: int = 0
    corrections_nano_usd: int = 0
    credits_nano_usd: int = 0

    def add(self, more: SummedEntries) -> None:
        """Count some entries."""
        for name in StatementLine.__dataclass_fields__:
            setattr(self, name, getattr(self, name) + getattr(more, name))


@dataclass(frozen=True, slots=True)
class _Lines:
    keys: Sequence[Key]
    lines: dict[tuple[str, ...], StatementLine] = field(default_factory=dict)

    def add(self, day: str, summed: SummedEntries) -> None:
        values = {"day": day, "project": summed.project_id, "api_key": summed.api_key_id, "model": summed.model}
        key = tuple(str(values[name] or "") for name in self.keys)
        self.lines.setdefault(key, StatementLine()).add(summed)


class Statements:
    """Reads periods of the ledger."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find_period(
        self, scope: OrgScope, *, month: str | None, start: datetime | None, end: datetime | None
    ) -> Period:
        """A month of the org's time zone, or what lies between two moments.

        Raises:
            InvalidError: neither is given, both are, or it is longer than a statement may be.
        """
        async with self._database.transaction() as connection:
            zone = (await get_settings(connection, UUID(scope.org_id))).time_zone
        if month is not None and start is None and end is None:
            at = datetime.fromisoformat(f"{month}-15T12:00:00Z").timestamp()
            first, last = window_start("month", at, zone), window_end("month", at, zone)
            if first is not None and last is not None:
                return Period(first, last, zone)
        if month is not None or start is None or end is None:
            raise InvalidError("Give `month`, or `start` and `end`.")
        if not start < end <= start + PERIOD_MAX:
            detail = f"It is not within {PERIOD_MAX.days} days after `start`."
            raise InvalidError(f"end: {detail}", errors=[FieldError(pointer="end", detail=detail)])
        return Period(start, end, zone)

    async def sum(
        self, scope: OrgScope, period: Period, keys: Sequence[Key]
    ) -> AsyncIterator[list[tuple[tuple[str, ...], StatementLine]]]:
        """Lines in the order of their keys, some at a time: by days a day's, else all at the end."""
        total = _Lines(keys)
        at = period.start
        while at < period.end:
            following = window_end("day", at.timestamp(), period.time_zone) or period.end
            async with self._database.transaction() as connection:
                summed = await sum_entries(connection, UUID(scope.org_id), at, min(following, period.end))
            for each in summed:
                total.add(window_id("day", at.timestamp(), period.time_zone), each)
            at = following
            if "day" in keys and total.lines:
                yield sorted(total.lines.items())
                total = _Lines(keys)
        if "day" not in keys:
            yield sorted(total.lines.items())

    async def list_entries(self, scope: OrgScope, period: Period) -> AsyncIterator[list[LedgerEntry]]:
        """Every entry, oldest first, some at a time; a slow reader holds no connection."""
        wanted = LedgerFilter(
            org_id=UUID(scope.org_id), start=period.start.astimezone(UTC), end=period.end.astimezone(UTC)
        )
        after: UUID | None = None
        while True:
            async with self._database.transaction() as connection:
                batch = await ledger.list_entries_after(connection, wanted, after=after, limit=_ENTRIES_AT_ONCE)
            if not batch:
                return
            yield batch
            after = batch[-1].id
