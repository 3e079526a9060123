"""Raises: more room in a budget, granted by a person for a while, with a reason. They end by themselves.

They are the override at a budget that says so (`at_limit`); one that blocks can only be changed.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from ias.billing.core.amounts import parse_amount
from ias.billing.core.publishing import Publishing
from ias.billing.store import budget_raises, budgets, published_documents
from ias.billing.store.budget_raises import BudgetRaise
from ias.billing.store.budgets import Budget
from ias.contracts import redis_keys
from ias.contracts.ids import uuid7
from ias.contracts.money import format_usd
from ias.contracts.spending import is_rolling
from ias.kit.access import OrgScope
from ias.kit.audit import Change
from ias.kit.database import Database
from ias.kit.outbox import append
from ias.kit.problems import ConflictError, FieldError, InvalidError, NotFoundError

ACTIVE_PER_BUDGET_MAX = 10
_LONGEST = timedelta(days=92)


@dataclass(frozen=True, slots=True)
class NewRaise:
    """A raise that is asked for."""

    amount_usd: str
    expires_at: datetime | None
    """None: when the window ends; of a rolling one, after its length."""
    reason: str


class BudgetRaises:
    """Grants, lists and revokes raises, and tells the gateways. That a raise ended gateways know by themselves."""

    def __init__(self, database: Database, publishing: Publishing) -> None:
        self._database = database
        self._publishing = publishing

    async def create(self, scope: OrgScope, budget: Budget, new: NewRaise) -> BudgetRaise:
        """Let a budget bear more until a moment.

        Raises:
            InvalidError: the amount is none, the moment is past or too far away, or there is none and the window never ends.
            ConflictError: the budget blocks at its limit, or as many raises are in force as there may be.
            NotFoundError: the budget is gone.
        """
        now = datetime.now(UTC)
        one = BudgetRaise(
            id=uuid7(),
            org_id=UUID(scope.org_id),
            budget_id=budget.id,
            amount_nano_usd=_check_amount(new.amount_usd),
            reason=new.reason,
            expires_at=_check_end(_find_end(budget, now) if new.expires_at is None else new.expires_at, now),
            created_at=now,
            created_by=scope.actor.sub,
        )
        async with self._database.transaction() as connection:
            await published_documents.raise_version(connection, redis_keys.spending_policy(scope.org_id), one.org_id)
            known = await budgets.find_budget(connection, budget.id)
            if known is None:
                raise NotFoundError
            if known.at_limit == "block":
                raise ConflictError("It blocks at its limit: change its limit, or its at_limit.", code="budget_blocks")
            active = await budget_raises.list_active_raises(connection, one.org_id, now)
            if len(active[budget.id]) >= ACTIVE_PER_BUDGET_MAX:
                raise ConflictError(f"{ACTIVE_PER_BUDGET_MAX} raises are in force already.", code="too_many_raises")
            await budget_raises.insert_raise(connection, one)
            change = Change("budget_raise.create", one.id, one.org_id, after=_describe(one))
            await append(connection, "billing", scope.cause, change)
        await self._publishing.publish_policy_or_leave_it(one.org_id)
        return one

    async def list(self, budget: Budget, *, before: UUID | None, limit: int) -> list[BudgetRaise]:
        """A budget's raises, newest first. The caller has shown that they may see the budget."""
        async with self._database.transaction() as connection:
            return await budget_raises.list_raises(connection, budget.id, before=before, limit=limit)

    async def revoke(self, scope: OrgScope, budget: Budget, raise_id: UUID) -> None:
        """End a raise before its time. One that is over stays so.

        Raises:
            NotFoundError: the budget has no such raise.
        """
        org_id = UUID(scope.org_id)
        async with self._database.transaction() as connection:
            await published_documents.raise_version(connection, redis_keys.spending_policy(scope.org_id), org_id)
            before = await budget_raises.find_raise(connection, budget.id, raise_id)
            if before is None:
                raise NotFoundError
            if before.revoked_at is not None or before.expires_at <= datetime.now(UTC):
                return
            await budget_raises.revoke_raise(connection, raise_id)
            change = Change("budget_raise.delete", raise_id, org_id, before=_describe(before))
            await append(connection, "billing", scope.cause, change)
        await self._publishing.publish_policy_or_leave_it(org_id)


def _find_end(budget: Budget, now: datetime) -> datetime:
    """When the window that a raise is for is over."""
    if is_rolling(budget.window):
        newest, *_, oldest = budget.parts(now)
        if newest.end is not None and oldest.end is not None:
            return now + (newest.end - oldest.end)
    end = budget.window_end(now)
    if end is None:
        problem = FieldError(pointer="/expires_at", detail="It is needed: the window never ends.")
        raise InvalidError("/expires_at is needed: the window never ends.", errors=[problem])
    return end


def _check_amount(text: str) -> int:
    amount = parse_amount(text, "/amount_usd")
    if amount == 0:
        problem = FieldError(pointer="/amount_usd", detail="It is zero.")
        raise InvalidError("/amount_usd is zero: nothing would be raised.", errors=[problem])
    return amount


def _check_end(moment: datetime, now: datetime) -> datetime:
    """The moment in UTC and full seconds, which is what gateways compare."""
    end = moment.astimezone(UTC).replace(microsecond=0)
    if not now < end <= now + _LONGEST:
        detail = f"It is not within the next {_LONGEST.days} days."
        raise InvalidError(f"/expires_at: {detail}", errors=[FieldError(pointer="/expires_at", detail=detail)])
    return end


def _describe(one: BudgetRaise) -> dict[str, object]:
    return {
        "budget_id": str(one.budget_id),
        "amount_usd": format_usd(one.amount_nano_usd),
        "expires_at": one.expires_at,
        "reason": one.reason,
    }
