"""`/billing/v1/reratings`: a period's requests at the prices that are known by now."""

from typing import Annotated
from uuid import UUID

from pydantic import Field

from ias.billing.api.adjustments import Reason
from ias.billing.api.parts import ReratingsPart
from ias.billing.api.schemas import ModelName
from ias.billing.core.reratings import NewRerating, Rerating
from ias.contracts.money import format_usd
from ias.contracts.permissions import Permission
from ias.kit.authorization import Access, requires
from ias.kit.moments import Moment
from ias.kit.routing import Router
from ias.kit.web import Answer, Body

router = Router(prefix="/billing/v1/reratings", tags=["reratings"])


class ReratingBody(Body):
    """Which requests are rated anew: those admitted from `start` on and before `end`."""

    org_id: UUID
    model: ModelName | None = Field(None, description="Absent: every model.")
    start: Moment
    end: Moment
    reason: Reason


class ModelDifferenceAnswer(Answer):
    """What it does to the requests of one model."""

    model: str
    changed: int
    was_usd: str
    is_usd: str
    difference_usd: str


class ReratingAnswer(Answer):
    """What was booked."""

    id: UUID
    org_id: UUID
    requests: int = Field(description="Requests of the period.")
    unpriced: int = Field(description="Requests that have no price by now either; they keep what is booked.")
    decided: int = Field(
        description="Requests that a person corrected, or whose gateway died; they keep what is booked."
    )
    models: list[ModelDifferenceAnswer] = Field(description="Models with requests whose cost changed.")


@router.post("", status_code=201)
async def create_rerating(
    body: ReratingBody,
    access: Annotated[Access, requires(Permission.LEDGER_ADJUST)],
    reratings: ReratingsPart,
) -> ReratingAnswer:
    """Rate at most 50,000 requests of a period anew, and book the differences as corrections. Doing it again books nothing."""
    access.on_platform()
    new = NewRerating(**body.model_dump(exclude={"org_id"}))
    return _render(body.org_id, await reratings.apply(access.in_org(str(body.org_id)), new))


def _render(org_id: UUID, rerating: Rerating) -> ReratingAnswer:
    return ReratingAnswer(
        id=rerating.id,
        org_id=org_id,
        requests=rerating.seen,
        unpriced=rerating.unpriced,
        decided=rerating.decided,
        models=[
            ModelDifferenceAnswer(
                model=model,
                changed=difference.changed,
                was_usd=format_usd(difference.was_nano_usd),
                is_usd=format_usd(difference.is_nano_usd),
                difference_usd=format_usd(difference.is_nano_usd - difference.was_nano_usd),
            )
            for model, difference in sorted(rerating.models.items())
        ],
    )
