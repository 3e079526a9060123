"""`/billing/v1/budgets/{budget_id}/raises`: more room for a while."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import Field

from ias.billing.api.adjustments import Reason
from ias.billing.api.parts import BudgetRaisesPart, BudgetsPart, CursorsPart
from ias.billing.api.schemas import UsdText
from ias.billing.core.budget_raises import NewRaise
from ias.billing.store.budget_raises import BudgetRaise
from ias.contracts.money import format_usd
from ias.contracts.permissions import Permission
from ias.kit.authorization import Access, requires
from ias.kit.cursors import CursorText, Limit, Page
from ias.kit.moments import Moment
from ias.kit.routing import Router
from ias.kit.web import Answer, Body

router = Router(prefix="/billing/v1/budgets/{budget_id}/raises", tags=["budgets"])


class BudgetRaiseBody(Body):
    """An amount on top of the limit, until a moment."""

    amount_usd: UsdText
    expires_at: Moment | None = Field(
        None,
        description="Within 92 days. Full seconds count. Absent: when the budget's window ends; a rolling one: after its length.",
    )
    reason: Reason


class BudgetRaiseAnswer(Answer):
    """A raise. It is in force until `expires_at`, or until `revoked_at`."""

    id: UUID
    budget_id: UUID
    amount_usd: str
    expires_at: datetime
    reason: str
    created_at: datetime
    created_by: str
    revoked_at: datetime | None


@router.post("", status_code=201)
async def create_budget_raise(
    budget_id: UUID,
    body: BudgetRaiseBody,
    access: Annotated[Access, requires(Permission.BUDGETS_WRITE)],
    budgets: BudgetsPart,
    raises: BudgetRaisesPart,
) -> BudgetRaiseAnswer:
    """Let a budget whose `at_limit` is `require_override` bear more for a while. Gateways heed it within a second, and its end."""
    budget = await budgets.get(budget_id)
    scope = access.in_org(str(budget.org_id))
    return _render(await raises.create(scope, budget, NewRaise(**body.model_dump())))


@router.get("")
async def list_budget_raises(
    *,
    budget_id: UUID,
    access: Annotated[Access, requires(Permission.BUDGETS_READ)],
    budgets: BudgetsPart,
    raises: BudgetRaisesPart,
    cursors: CursorsPart,
    limit: Limit = 50,
    cursor: CursorText = None,
) -> Page[BudgetRaiseAnswer]:
    """A budget's raises, newest first, those that are over too."""
    budget = await budgets.get(budget_id)
    access.in_org(str(budget.org_id))
    filters = f"budget raises\0{budget_id}"
    rows = await raises.list(budget, before=cursors.decode(cursor, filters), limit=limit + 1)
    return cursors.page([_render(row) for row in rows], limit, filters)


@router.delete("/{raise_id}", status_code=204)
async def delete_budget_raise(
    budget_id: UUID,
    raise_id: UUID,
    access: Annotated[Access, requires(Permission.BUDGETS_WRITE)],
    budgets: BudgetsPart,
    raises: BudgetRaisesPart,
) -> None:
    """End a raise before its time. It stays on record."""
    budget = await budgets.get(budget_id)
    await raises.revoke(access.in_org(str(budget.org_id)), budget, raise_id)


def _render(one: BudgetRaise) -> BudgetRaiseAnswer:
    return BudgetRaiseAnswer(
        id=one.id,
        budget_id=one.budget_id,
        amount_usd=format_usd(one.amount_nano_usd),
        expires_at=one.expires_at,
        reason=one.reason,
        created_at=one.created_at,
        created_by=one.created_by,
        revoked_at=one.revoked_at,
    )
