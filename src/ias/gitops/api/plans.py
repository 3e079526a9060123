"""`/gitops/v1/plans`."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import Query, Request
from pydantic import Field

from ias.contracts.permissions import Permission
from ias.gitops.api.parts import CursorsPart, PlansPart
from ias.gitops.core.billing_budgets import Caller
from ias.gitops.core.plans import NewPlan
from ias.gitops.store.plans import Action, PlanStatus, StepStatus
from ias.kit.authorization import Access, requires
from ias.kit.cursors import CursorText, Limit, Page
from ias.kit.routing import Router, in_steps
from ias.kit.web import Answer, Body

router = Router(prefix="/gitops/v1/plans", tags=["plans"])

DOCUMENTS_MAX = 1000


class CreatePlan(Body):
    """What an org is to have."""

    org_id: UUID
    documents: list[dict[str, Any]] = Field(
        min_length=1,
        max_length=DOCUMENTS_MAX,
        description="Documents as `contracts/desired_state/budget.v1.json` describes them.",
    )
    prune: bool = Field(
        False, strict=True, description="Whether budgets that no document speaks of are deleted, or left as they are."
    )


class StepAnswer(Answer):
    """What is done about one budget. `name` is null for a budget that no document speaks of."""

    position: int
    action: Action
    name: str | None
    budget_id: str | None
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    status: StepStatus
    detail: str | None
    done_at: datetime | None


class PlanSummary(Answer):
    """A plan without its steps. `digest` is equal for plans that do the same."""

    id: UUID
    org_id: UUID
    status: PlanStatus
    prune: bool
    digest: str
    created_at: datetime
    created_by: str
    request_id: str
    applied_at: datetime | None
    applied_by: str | None


class PlanAnswer(PlanSummary):
    """A plan with its documents and steps."""

    documents: list[dict[str, Any]]
    steps: list[StepAnswer]


Reader = Annotated[Access, requires(Permission.DESIRED_STATE_READ)]
Writer = Annotated[Access, requires(Permission.DESIRED_STATE_WRITE)]


@router.post("", status_code=201)
async def create_plan(body: CreatePlan, access: Writer, plans: PlansPart, request: Request) -> PlanAnswer:
    """Plan the way from what the org has to what the documents declare. Only the plan is stored, nothing is changed."""
    scope = access.in_org(str(body.org_id))
    new = NewPlan(documents=body.documents, prune=body.prune)
    return PlanAnswer.model_validate(await plans.create_plan(scope, new, _caller(request, access)))


@router.get("")
async def list_plans(
    *,
    access: Reader,
    plans: PlansPart,
    cursors: CursorsPart,
    org_id: Annotated[UUID, Query()],
    limit: Limit = 50,
    cursor: CursorText = None,
) -> Page[PlanSummary]:
    """List an org's plans, newest first."""
    scope = access.in_org(str(org_id))
    filters = f"plans org_id={org_id}"
    rows = await plans.list_plans(scope, after=cursors.decode(cursor, filters), limit=limit + 1)
    return cursors.page([PlanSummary.model_validate(row) for row in rows], limit, filters)


@router.get("/{plan_id}")
async def get_plan(plan_id: UUID, access: Reader, plans: PlansPart) -> PlanAnswer:
    """Show a plan and how far it was applied."""
    plan = await plans.get_plan(plan_id)
    access.in_org(str(plan.org_id))
    return PlanAnswer.model_validate(plan)


@router.post(
    "/{plan_id}/apply",
    openapi_extra=in_steps("billing makes the changes, one by one, and each is recorded when it is made"),
)
async def apply_plan(plan_id: UUID, access: Writer, plans: PlansPart, request: Request) -> PlanAnswer:
    """Apply a plan. Doing so again is safe: done steps stay done, and a failed application goes on where it stopped."""
    plan = await plans.get_plan(plan_id)
    scope = access.in_org(str(plan.org_id))
    return PlanAnswer.model_validate(await plans.apply_plan(scope, plan_id, _caller(request, access)))


def _caller(request: Request, access: Access) -> Caller:
    """The caller, whose own token goes on to billing."""
    _, _, token = request.headers["authorization"].partition(" ")
    return Caller(access.actor.sub, access.actor.platform_admin, token.strip(), request.state.request_id)
