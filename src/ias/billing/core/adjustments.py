"""Corrections and credits: what a person decides about money, booked as entries of its own.

The entries they are about stay as they are. An adjustment counts in the window in which it is booked: in the ledger, the balances
and the budgets.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import structlog
from redis.exceptions import RedisError
from sqlalchemy.ext.asyncio import AsyncConnection

from ias.billing.core.amounts import parse_amount
from ias.billing.core.counters import Counters
from ias.billing.store import budgets, ledger, spend
from ias.billing.store.ledger import LedgerEntry, LedgerFilter
from ias.contracts.ids import uuid7
from ias.contracts.money import format_usd
from ias.kit.access import OrgScope
from ias.kit.audit import Change
from ias.kit.database import Database
from ias.kit.outbox import append
from ias.kit.problems import ConflictError, FieldError, InvalidError, NotFoundError
from ias.kit.writes import after_commit

log = structlog.get_logger("ias.billing")

_ENTRIES_PER_REQUEST_MAX = 100


@dataclass(frozen=True, slots=True)
class NewCorrection:
    """What a request should have cost in all, and why."""

    request_id: str
    cost_usd: str
    reason: str


@dataclass(frozen=True, slots=True)
class NewCredit:
    """An amount given to an org, or to one of its projects, and why."""

    project_id: UUID | None
    amount_usd: str
    reason: str


class Adjustments:
    """Books corrections and credits, and tells the budgets' counters."""

    def __init__(self, database: Database, counters: Counters) -> None:
        self._database = database
        self._counters = counters

    async def correct(self, scope: OrgScope, new: NewCorrection) -> LedgerEntry:
        """Book the difference between what a request cost so far and what it should have cost.

        Raises:
            InvalidError: the cost is not an amount.
            NotFoundError: the org has no entry for the request (yet: entries arrive within seconds).
            ConflictError: it costs that already, or was corrected too often.
        """
        right_cost = parse_amount(new.cost_usd, "/cost_usd")
        wanted = LedgerFilter(org_id=UUID(scope.org_id), request_id=new.request_id)
        async with self._database.transaction() as connection:
            await ledger.lock_request(connection, wanted.org_id, new.request_id)
            known = await ledger.list_entries(connection, wanted, limit=_ENTRIES_PER_REQUEST_MAX)
            usage = [entry for entry in known if entry.kind == "usage"]
            if not usage:
                raise NotFoundError
            if len(known) == _ENTRIES_PER_REQUEST_MAX:
                raise ConflictError("The request was corrected too often.", code="too_many_corrections")
            cost = sum(entry.cost_nano_usd for entry in known)
            if cost == right_cost:
                raise ConflictError(f"The request costs {format_usd(cost)} USD already.", code="nothing_to_correct")
            entry = usage[0].correct(
                right_cost - cost, rating="adjusted", decision={"reason": new.reason, "actor": scope.actor.sub}
            )
            await _book(connection, entry, scope)
        await after_commit(lambda: self.tell_counters_or_leave_it(entry.org_id))
        return entry

    async def credit(self, scope: OrgScope, new: NewCredit) -> LedgerEntry:
        """Book an amount in an org's favour. It widens the budgets of the current windows by as much.

        Raises:
            InvalidError: the amount is not one, or zero.
        """
        amount = parse_amount(new.amount_usd, "/amount_usd")
        if amount == 0:
            problem = FieldError(pointer="/amount_usd", detail="It is zero.")
            raise InvalidError("/amount_usd is zero: nothing would be credited.", errors=[problem])
        decision = {"reason": new.reason, "actor": scope.actor.sub}
        entry = _credit(UUID(scope.org_id), new.project_id, amount, decision)
        async with self._database.transaction() as connection:
            await _book(connection, entry, scope)
        await after_commit(lambda: self.tell_counters_or_leave_it(entry.org_id))
        return entry

    async def tell_counters_or_leave_it(self, org_id: UUID) -> None:
        """Bring the org's counters up to date now; when Redis is away, the timer will."""
        try:
            async with self._database.transaction() as connection:
                own: Sequence[budgets.Budget] = await budgets.list_budgets(connection, org_id)
            await self._counters.adjust(own, datetime.now(UTC))
        except (RedisError, OSError) as error:
            log.warning("counters not adjusted yet", org_id=str(org_id), error=type(error).__name__)


async def _book(connection: AsyncConnection, entry: LedgerEntry, scope: OrgScope) -> None:
    await ledger.insert_entries(connection, [entry])
    await spend.add_entries(connection, [entry])
    told = {
        "request_id": entry.request_id,
        "project_id": str(entry.project_id) if entry.project_id else None,
        "cost_usd": format_usd(entry.cost_nano_usd),
        "reason": entry.reason,
    }
    await append(connection, "billing", scope.cause, Change(f"{entry.kind}.create", entry.id, entry.org_id, after=told))


def _credit(org_id: UUID, project_id: UUID | None, amount: int, decision: dict[str, Any]) -> LedgerEntry:
    return LedgerEntry(
        id=uuid7(),
        kind="credit",
        org_id=org_id,
        project_id=project_id,
        api_key_id=None,
        user_id=None,
        service_account_id=None,
        request_id=None,
        endpoint=None,
        model=None,
        backend_id=None,
        streamed=None,
        status=None,
        outcome=None,
        input_tokens=0,
        cached_input_tokens=0,
        output_tokens=0,
        cost_nano_usd=-amount,
        settled_nano_usd=0,
        price_id=None,
        price_version=None,
        rating="adjusted",
        estimated=False,
        occurred_at=datetime.now(UTC),
        decision=decision,
    )
