"""The ledger, read: entries of an org, and the explanation of one request."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from redis.exceptions import RedisError

from ias.billing.store import balances, ledger, prices
from ias.billing.store.balances import Balances
from ias.billing.store.ledger import LedgerEntry, LedgerFilter
from ias.billing.store.prices import Price
from ias.billing.store.unserved import UnservedStore
from ias.contracts.spending import ScopeKind
from ias.contracts.unserved import UnservedRequest
from ias.kit.access import OrgScope
from ias.kit.database import Database
from ias.kit.problems import NotFoundError, UnavailableError

_ENTRIES_PER_REQUEST_MAX = 100


@dataclass(frozen=True, slots=True)
class Explanation:
    """Everything that is known of one request: its entries, oldest first, and the prices they were rated with.

    Or, where it was not served and has no entries, how it ended.
    """

    entries: list[LedgerEntry]
    prices: list[Price]
    unserved: UnservedRequest | None = None


class Ledger:
    """Queries on the ledger."""

    def __init__(self, database: Database, unserved: UnservedStore) -> None:
        self._database = database
        self._unserved = unserved

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
        """What a request cost and why, or why it was not served.

        Raises:
            NotFoundError: the org has no entry for it (yet: entries arrive within seconds), and none such is remembered.
            UnavailableError: there is no entry, and what was not served cannot be read now.
        """
        wanted = LedgerFilter(org_id=UUID(scope.org_id), request_id=request_id)
        async with self._database.transaction() as connection:
            entries = await ledger.list_entries(connection, wanted, limit=_ENTRIES_PER_REQUEST_MAX)
            used = await prices.list_prices_by_id(connection, {entry.price_id for entry in entries if entry.price_id})
        if entries:
            return Explanation(entries=entries[::-1], prices=used)
        return Explanation(entries=[], prices=[], unserved=await self._get_unserved(scope, request_id))

    async def _get_unserved(self, scope: OrgScope, request_id: str) -> UnservedRequest:
        try:
            found = await self._unserved.find(UUID(scope.org_id), request_id)
        except (RedisError, OSError) as error:
            raise UnavailableError("Whether it was refused cannot be looked up now: Redis is away.") from error
        if found is None:
            raise NotFoundError
        return found
