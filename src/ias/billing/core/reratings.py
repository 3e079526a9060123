"""Re-rating: a period's requests at the prices that are known by now, the differences booked as corrections.

For a price that was set too late, or was wrong. What a person decided about a request stays, and so does what was booked for a
request whose gateway died. A request that costs what it should gets no entry, so doing it again does nothing.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import UUID

from msgspec.structs import replace
from sqlalchemy.ext.asyncio import AsyncConnection

from ias.billing.core.adjustments import Adjustments
from ias.billing.store import ledger, prices, spend
from ias.billing.store.ledger import CorrectionTerms, LedgerEntry, LedgerFilter
from ias.billing.store.prices import publish_by_model
from ias.contracts.ids import uuid7
from ias.contracts.money import cost_nano_usd, format_usd
from ias.contracts.spending import Price, find_in_force
from ias.kit.access import OrgScope
from ias.kit.audit import Change
from ias.kit.database import Database
from ias.kit.outbox import append
from ias.kit.partitions import time_of
from ias.kit.problems import FieldError, InvalidError
from ias.kit.writes import after_commit

REQUESTS_MAX = 50_000
"""A re-rating is one transaction."""
_BATCH = 1_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class NewRerating:
    """What is asked for: requests that were admitted from `start` on and before `end`."""

    model: str | None
    start: datetime
    end: datetime
    reason: str


@dataclass(slots=True)
class ModelDifference:
    """What a re-rating does to one model's requests, in nano-USD."""

    changed: int = 0
    was_nano_usd: int = 0
    is_nano_usd: int = 0


@dataclass(slots=True)
class Rerating:
    """What came of it."""

    id: UUID
    seen: int = 0
    unpriced: int = 0
    """Requests that have no price by now either; they keep what is booked."""
    decided: int = 0
    """Requests that a person corrected, or whose gateway died; they keep what is booked."""
    models: dict[str, ModelDifference] = field(default_factory=lambda: defaultdict(ModelDifference))


class Reratings:
    """Re-rates an org's requests."""

    def __init__(self, database: Database, adjustments: Adjustments) -> None:
        self._database = database
        self._adjustments = adjustments

    async def apply(self, scope: OrgScope, new: NewRerating) -> Rerating:
        """Book the differences, all of them or none.

        Raises:
            InvalidError: the period ends before it begins, or holds more requests than can be re-rated at once.
        """
        if new.end <= new.start:
            problem = FieldError(pointer="/end", detail="It is not after the start.")
            raise InvalidError("/end is not after /start.", errors=[problem])
        org_id = UUID(scope.org_id)
        rerating = Rerating(uuid7())
        wanted = LedgerFilter(org_id=org_id, model=new.model, kind="usage", start=new.start, end=new.end)
        decision = {"rerating": str(rerating.id), "reason": new.reason, "actor": scope.actor.sub}
        async with self._database.transaction() as connection:
            await ledger.lock_requests(connection, org_id)
            table = await _PriceHistory.read(connection, org_id)
            before: UUID | None = None
            while entries := await ledger.list_entries(connection, wanted, before=before, limit=_BATCH):
                before = entries[-1].id
                rerating.seen += len(entries)
                if rerating.seen > REQUESTS_MAX:
                    raise InvalidError(f"The period holds more than {REQUESTS_MAX} requests; take a shorter one.")
                corrections = await _correct(connection, rerating, entries, table)
                corrections = [replace(one, decision=decision) for one in corrections]
                if corrections:
                    await ledger.insert_entries(connection, corrections)
                    await spend.add_entries(connection, corrections)
            change = Change("rerating.create", rerating.id, org_id, after=_describe(rerating, new))
            await append(connection, "billing", scope.cause, change)
        await after_commit(lambda: self._adjustments.tell_counters_or_leave_it(org_id))
        return rerating


@dataclass(frozen=True, slots=True)
class _PriceHistory:
    own: dict[str, tuple[Price, ...]]
    common: dict[str, tuple[Price, ...]]

    @classmethod
    async def read(cls, connection: AsyncConnection, org_id: UUID) -> "_PriceHistory":
        own = await prices.list_own_prices_since(connection, org_id, _EPOCH)
        return cls(publish_by_model(own), publish_by_model(await prices.list_common_prices_since(connection, _EPOCH)))

    def find(self, model: str, at: float) -> Price | None:
        """As a gateway finds it: the org's own, else everybody's."""
        own = find_in_force(self.own.get(model, ()), at)
        return own if own is not None else find_in_force(self.common.get(model, ()), at)


async def _correct(
    connection: AsyncConnection, rerating: Rerating, entries: Sequence[LedgerEntry], table: _PriceHistory
) -> list[LedgerEntry]:
    """The corrections of a batch; the rerating counts them."""
    request_ids = {entry.request_id for entry in entries if entry.request_id is not None}
    totals = await ledger.total_requests(connection, entries[0].org_id, request_ids)
    corrections = []
    for entry in entries:
        total = totals[entry.request_id or ""]
        if total.was_corrected or total.was_reserved:
            rerating.decided += 1
            continue
        price = table.find(entry.model or "", time_of(entry.id).timestamp())
        if price is None:
            rerating.unpriced += 1
            continue
        cost = cost_nano_usd(
            price,
            input_tokens=entry.input_tokens,
            cached_input_tokens=entry.cached_input_tokens,
            output_tokens=entry.output_tokens,
        )
        if cost == total.cost_nano_usd:
            continue
        difference = rerating.models[price.model]
        difference.changed += 1
        difference.was_nano_usd += total.cost_nano_usd
        difference.is_nano_usd += cost
        terms: CorrectionTerms = {"rating": "rerated", "price_id": UUID(price.id), "price_version": price.version}
        corrections.append(entry.correct(cost - total.cost_nano_usd, **terms))
    return corrections


def _describe(rerating: Rerating, new: NewRerating) -> dict[str, object]:
    """What the audit log, and a dry run, say of it."""
    return {
        "model": new.model,
        "start": new.start,
        "end": new.end,
        "reason": new.reason,
        "requests": rerating.seen,
        "unpriced": rerating.unpriced,
        "decided": rerating.decided,
        "models": {
            model: {
                "changed": difference.changed,
                "was_usd": format_usd(difference.was_nano_usd),
                "is_usd": format_usd(difference.is_nano_usd),
                "difference_usd": format_usd(difference.is_nano_usd - difference.was_nano_usd),
            }
            for model, difference in rerating.models.items()
        },
    }
