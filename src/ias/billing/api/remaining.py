"""`/billing/v1/remaining`: what a scope may still spend."""

from decimal import Decimal
from typing import Annotated
from uuid import UUID

from fastapi import Depends, Query
from pydantic import Field

from ias.billing.api.budgets import BudgetAnswer, render_budgets
from ias.billing.api.parts import BudgetsPart
from ias.billing.api.schemas import ModelName
from ias.contracts.permissions import Permission
from ias.contracts.spending import ScopeKind
from ias.kit.authorization import Access, requires
from ias.kit.routing import Router
from ias.kit.web import Answer

router = Router(prefix="/billing/v1/remaining", tags=["budgets"])


class RemainingAnswer(Answer):
    """What is left to an org, or to its project, API key, user and model that were named."""

    org_id: UUID
    remaining_usd: str | None = Field(
        description="The least that one of the budgets has left, of those that refuse (`hard`, `soft`). Null: none of them refuses"
        " anything; or the counters cannot be read, and then the budgets' own figures are null, too."
    )
    budget_id: UUID | None = Field(description="The budget that has least left.")
    budgets: list[BudgetAnswer] = Field(description="All that were asked about, those that refuse nothing too.")


class RemainingQuery(Answer):
    """Whose budgets are asked about besides the org's. A request of an API key is under those of its project and user, too."""

    project_id: UUID | None = None
    api_key_id: UUID | None = None
    user_id: UUID | None = None
    model: ModelName | None = None

    def scopes(self) -> list[tuple[ScopeKind, str]]:
        """Kind and id of each."""
        named: list[tuple[ScopeKind, object]] = [
            ("project", self.project_id),
            ("api_key", self.api_key_id),
            ("user", self.user_id),
            ("model", self.model),
        ]
        return [(kind, str(scope_id)) for kind, scope_id in named if scope_id is not None]


@router.get("")
async def get_remaining(
    access: Annotated[Access, requires(Permission.BUDGETS_READ)],
    budgets: BudgetsPart,
    org_id: Annotated[UUID, Query()],
    wanted: Annotated[RemainingQuery, Depends()],
) -> RemainingAnswer:
    """What may still be spent, by the org's budgets and by those of the project, API key, user and model that are named."""
    scope = access.in_org(str(org_id))
    rows = await budgets.list_of_scopes(scope, [("org", scope.org_id), *wanted.scopes()])
    rendered = await render_budgets(budgets, rows)
    refusing = [one for one in rendered if one.mode != "alert" and one.remaining_usd is not None]
    tightest = min(refusing, key=lambda one: Decimal(one.remaining_usd or 0), default=None)
    return RemainingAnswer(
        org_id=org_id,
        remaining_usd=None if tightest is None else tightest.remaining_usd,
        budget_id=None if tightest is None else tightest.id,
        budgets=rendered,
    )
