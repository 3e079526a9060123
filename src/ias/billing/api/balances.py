"""`/billing/v1/balances`: what an org's projects, keys, users and models have cost."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import Query
from pydantic import Field

from ias.billing.api.parts import LedgerPart
from ias.billing.store.balances import Balances, Sum
from ias.contracts.money import format_usd
from ias.contracts.permissions import Permission
from ias.contracts.spending import ScopeKind
from ias.kit.authorization import Access, requires
from ias.kit.moments import Moment
from ias.kit.routing import Router
from ias.kit.web import Answer

router = Router(prefix="/billing/v1/balances", tags=["ledger"])

_LIMIT_MAX = 1_000


class SumAnswer(Answer):
    """Entries of the ledger and what they come to."""

    entries: int
    cost_usd: str = Field(description="Requests, corrections and credits together; negative where credits outweigh.")


class BalanceAnswer(SumAnswer):
    """Of one scope."""

    id: str | None = Field(description="An id, or a model's public name; null: what belongs to none of the kind.")


class BalancesAnswer(Answer):
    """What an org's ledger adds up to. `balances` and `others` together are `total`."""

    org_id: UUID
    by: ScopeKind
    start: datetime | None = Field(description="The first hour that counts; null: from the beginning.")
    end: datetime | None = Field(description="The hour that counts no more; null: up to now.")
    total: SumAnswer
    balances: list[BalanceAnswer] = Field(description="Of those that cost most, the dearest first.")
    others: SumAnswer


@router.get("")
async def list_balances(
    *,
    access: Annotated[Access, requires(Permission.LEDGER_READ)],
    ledger: LedgerPart,
    org_id: Annotated[UUID, Query()],
    by: Annotated[ScopeKind, Query(description="Whose balances.")] = "org",
    start: Annotated[Moment | None, Query(description="From the beginning of this moment's hour (UTC).")] = None,
    end: Annotated[Moment | None, Query(description="Up to the beginning of this moment's hour (UTC).")] = None,
    limit: Annotated[int, Query(ge=1, le=_LIMIT_MAX, description="At most so many; the rest are `others`.")] = 100,
) -> BalancesAnswer:
    """What an org's ledger adds up to, by scope. What may still be spent is at `/billing/v1/remaining`."""
    scope = access.in_org(str(org_id))
    start, end = _hour(start), _hour(end)
    found = await ledger.sum_balances(scope, by, start=start, end=end, limit=limit)
    return BalancesAnswer(
        org_id=org_id,
        by=by,
        start=start,
        end=end,
        total=_render(found.total),
        balances=[
            BalanceAnswer(id=scope_id, entries=one.entries, cost_usd=format_usd(one.cost_nano_usd))
            for scope_id, one in found.largest
        ],
        others=_render(_others(found)),
    )


def _hour(moment: datetime | None) -> datetime | None:
    return None if moment is None else moment.replace(minute=0, second=0, microsecond=0)


def _others(found: Balances) -> Sum:
    listed = [one for _, one in found.largest]
    return Sum(
        found.total.entries - sum(one.entries for one in listed),
        found.total.cost_nano_usd - sum(one.cost_nano_usd for one in listed),
    )


def _render(one: Sum) -> SumAnswer:
    return SumAnswer(entries=one.entries, cost_usd=format_usd(one.cost_nano_usd))
