"""`/billing/v1/corrections` and `/billing/v1/credits`: entries that a person books."""

from typing import Annotated
from uuid import UUID

from pydantic import Field

from ias.billing.api.ledger import EntryAnswer, RequestId, render_entry
from ias.billing.api.parts import AdjustmentsPart
from ias.billing.api.schemas import UsdText
from ias.billing.core.adjustments import NewCorrection, NewCredit
from ias.contracts.permissions import Permission
from ias.kit.authorization import Access, requires
from ias.kit.routing import Router
from ias.kit.web import Body

router = Router(prefix="/billing/v1", tags=["adjustments"])

Reason = Annotated[
    str,
    Field(
        min_length=1,
        max_length=500,
        pattern=r"^[^\x00]+$",
        description="Why, for whoever reads the ledger.",
        examples=["The engine answered with garbage."],
    ),
]


class CorrectionBody(Body):
    """What a request should have cost in all. The difference to what it cost so far is booked."""

    org_id: UUID
    request_id: RequestId
    cost_usd: UsdText
    reason: Reason


class CreditBody(Body):
    """An amount in an org's favour, or in that of one of its projects."""

    org_id: UUID
    project_id: UUID | None = None
    amount_usd: UsdText
    reason: Reason


@router.post("/corrections", status_code=201)
async def create_correction(
    body: CorrectionBody,
    access: Annotated[Access, requires(Permission.LEDGER_ADJUST)],
    adjustments: AdjustmentsPart,
) -> EntryAnswer:
    """Correct what a request cost. The entry is in the ledger and the budgets of the current windows; the request's own stays."""
    access.on_platform()
    scope = access.in_org(str(body.org_id))
    return render_entry(await adjustments.correct(scope, NewCorrection(**body.model_dump(exclude={"org_id"}))))


@router.post("/credits", status_code=201)
async def create_credit(
    body: CreditBody,
    access: Annotated[Access, requires(Permission.LEDGER_ADJUST)],
    adjustments: AdjustmentsPart,
) -> EntryAnswer:
    """Credit an org with an amount. It counts against what was spent in the current windows of its budgets."""
    access.on_platform()
    scope = access.in_org(str(body.org_id))
    return render_entry(await adjustments.credit(scope, NewCredit(**body.model_dump(exclude={"org_id"}))))
