"""`/internal/analytics`: what the records add up to, for billing to hold its ledger against."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import Query
from pydantic import Field

from ias.analytics.api.parts import UsagePart
from ias.analytics.store.usage_sums import HourSum
from ias.kit.authorization import internal
from ias.kit.moments import Moment
from ias.kit.routing import Router
from ias.kit.tokens import Claims
from ias.kit.web import Answer

router = Router(prefix="/internal/analytics", tags=["internal"])

IDS_MAX = 100_000


class HourSumAnswer(Answer):
    """An org's requests that were admitted in one hour."""

    org_id: UUID
    hour: datetime
    requests: int
    input_tokens: int
    cached_input_tokens: int
    output_tokens: int
    cost_nano_usd: int = Field(description="What the gateways settled.")


class HourSumsAnswer(Answer):
    """Hours of every org, by the records and by the hourly sums that charts are drawn from."""

    records: list[HourSumAnswer]
    rollups: list[HourSumAnswer]


class IdsAnswer(Answer):
    """Ids of usage records, oldest first."""

    ids: list[UUID]


@router.get("/hour-sums")
async def get_hour_sums(
    _: Annotated[Claims, internal("analytics")],
    usage: UsagePart,
    start: Annotated[Moment, Query()],
    end: Annotated[Moment, Query()],
) -> HourSumsAnswer:
    """What all orgs used, hour by hour. `start` is the first moment of an hour."""
    records, rollups = await usage.sum_hours(start=start, end=end)
    return HourSumsAnswer(records=_render(records), rollups=_render(rollups))


@router.get("/record-ids")
async def list_record_ids(
    *,
    _: Annotated[Claims, internal("analytics")],
    usage: UsagePart,
    org_id: Annotated[UUID, Query()],
    start: Annotated[Moment, Query()],
    end: Annotated[Moment, Query()],
) -> IdsAnswer:
    """Which records of an org there are, at most the first hundred thousand."""
    return IdsAnswer(ids=await usage.list_ids(org_id, start=start, end=end, limit=IDS_MAX))


def _render(sums: list[HourSum]) -> list[HourSumAnswer]:
    return [HourSumAnswer.model_validate(one, from_attributes=True) for one in sums]
