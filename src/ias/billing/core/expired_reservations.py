"""Reservations whose gateway died: what the request may have cost is booked, never silently dropped.

Nobody knows how far the engine came, so the whole reservation is booked, flagged `estimated`, under the id that the usage record
would have had. Where that record was booked already (the gateway died between writing it down and settling), its cost is what
counts. Should it arrive after all, booking it books the difference (`core.booking`). Booking comes before closing: whoever is
interrupted in between does both again, and each happens once.
"""

from datetime import UTC, datetime
from uuid import UUID

import structlog

from ias.billing.store import ledger, published_documents, spend
from ias.billing.store.ledger import LedgerEntry
from ias.billing.store.reservations import ExpiredReservation, ReservationStore
from ias.contracts.ids import record_id_of
from ias.contracts.spending import ReservationClaim
from ias.kit.database import Database
from ias.kit.partitions import time_of

log = structlog.get_logger("ias.billing")

_ORGS_PER_TURN = 500
_RESERVATIONS_PER_ORG = 200


class ExpiredReservations:
    """Books and closes them, some orgs at a turn."""

    def __init__(self, database: Database, store: ReservationStore) -> None:
        self._database = database
        self._store = store
        self._looked_after: UUID | None = None

    async def book_some(self) -> int:
        """Look after the next few orgs that have budgets; how many reservations were booked. Raises `RedisError`."""
        async with self._database.transaction() as connection:
            orgs = await published_documents.list_orgs(connection, after=self._looked_after, limit=_ORGS_PER_TURN)
        self._looked_after = orgs[-1] if len(orgs) == _ORGS_PER_TURN else None
        booked = 0
        for org_id in await self._store.list_orgs_with_expired(orgs, int(datetime.now(UTC).timestamp())):
            booked += await self._book_org(org_id)
        return booked

    async def _book_org(self, org_id: UUID) -> int:
        expired = await self._store.list_expired(org_id, _RESERVATIONS_PER_ORG)
        entries = [_estimate(one, one.claim) for one in expired if one.claim is not None and one.amount_nano_usd]
        async with self._database.transaction() as connection:
            new = await ledger.insert_entries(connection, entries) if entries else set()
            await spend.add_entries(connection, [entry for entry in entries if entry.id in new])
            costs = await ledger.sum_costs(connection, org_id, [one.request_id for one in expired])
        for one in expired:
            await self._store.close(one, costs.get(one.request_id, 0))
        if new:
            log.warning(
                "reservations expired and were booked",
                org_id=str(org_id),
                request_ids=[entry.request_id for entry in entries if entry.id in new],
            )
        return len(new)


def _estimate(expired: ExpiredReservation, claim: ReservationClaim) -> LedgerEntry:
    record_id = record_id_of(expired.request_id)
    return LedgerEntry(
        id=record_id,
        kind="usage",
        org_id=expired.org_id,
        project_id=UUID(claim.project_id),
        api_key_id=UUID(claim.api_key_id),
        user_id=UUID(claim.user_id) if claim.user_id else None,
        service_account_id=UUID(claim.service_account_id) if claim.service_account_id else None,
        request_id=expired.request_id,
        endpoint=None,
        model=claim.model,
        backend_id=None,
        streamed=None,
        status=None,
        outcome="expired",
        input_tokens=0,
        cached_input_tokens=0,
        output_tokens=0,
        cost_nano_usd=expired.amount_nano_usd,
        settled_nano_usd=expired.amount_nano_usd,
        price_id=None,
        price_version=None,
        rating="reserved",
        estimated=True,
        occurred_at=time_of(record_id),
        decision={"budgets": list(claim.budgets), "why": "the gateway died before it could say what was used"},
    )
