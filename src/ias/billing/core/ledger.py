"""The ledger, read: entries of an org, and the explanation of one request."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from ias.billing.store import balances, ledger, prices
from ias.billing.store.balances import Balances
from ias.billing.store.ledger import LedgerEntry, LedgerFilter
from ias.billing.store.prices import Price
from ias.contracts.spending import ScopeKind
from ias.kit.access import OrgScope
from ias.kit.database import Database
from ias.kit.problems import NotFoundError

_ENTRIES_PER_REQUEST_MAX = 100


@dataclass(frozen=True, slots=True)
class Explanation:
    """Everything the books know of one request: its entries, oldest first, and the prices they were rated with."""

    entries: list[LedgerEntry]
    prices: list[Price]


class Ledger:
    """Queries on the ledger."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list(self, wanted: LedgerFilter, *, before: UUID | None, limit: int) -> list[LedgerEntry]:
        """Entries, newest first. The filter's org is one that the caller may read."""
        async with self._database.transaction() as connection:
            return await ledger.list_entries(connection, wanted, before=before, limit=limit)

    async def sum_balances(
        self, scope: OrgScope, kind: ScopeKind, *, start: datetime | None, end: datetime | None, limit: int
    ) -> Balances:
        """What an org's ledger adds up to over full hours, by scope; those that cost most are named."""
        async with self._database.transaction() as connection:
            return await balances.sum_balances(connection, UUID(scope.org_id), kind, start=start, end=end, limit=limit)

    async def explain(self, scope: OrgScope, request_id: str) -> Explanation:
        """What a request cost and why.

        Raises:
            NotFoundError: the org has no entry for it (yet: entries arrive within seconds).
        """
        wanted = LedgerFilter(org_id=UUID(scope.org_id), request_id=request_id)
        async with self._database.transaction() as connection:
            entries = await ledger.list_entries(connection, wanted, limit=_ENTRIES_PER_REQUEST_MAX)
            if not entries:
                raise NotFoundError
            used = await prices.list_prices_by_id(connection, {entry.price_id for entry in entries if entry.price_id})
        return Explanation(entries=entries[::-1], prices=used)
