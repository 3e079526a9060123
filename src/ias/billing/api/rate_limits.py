"""`/billing/v1/rate-limits`."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import Field

from ias.billing.api.pages import OrgPage
from ias.billing.api.parts import RateLimitsPart
from ias.billing.api.schemas import ScopeAnswer, ScopeBody
from ias.billing.core.rate_limits import LARGEST, NewRateLimit
from ias.billing.store.rate_limits import RateLimit
from ias.contracts.permissions import Permission
from ias.contracts.spending import Metric
from ias.kit.authorization import Access, requires
from ias.kit.cursors import Page
from ias.kit.routing import Router
from ias.kit.web import Answer, Body

router = Router(prefix="/billing/v1/rate-limits", tags=["rate limits"])

Ceiling = Annotated[
    int,
    Field(
        ge=1,
        le=max(LARGEST.values()),
        strict=True,
        description="In the units of the metric. After a pause so much may come at once. Tokens: at most 10,000,000,000; "
        "others: at most 100,000,000.",
        examples=[600],
    ),
]


class RateLimitBody(Body):
    """A ceiling on one metric for a scope. A model's bounds what this org makes of the model."""

    org_id: UUID
    scope: ScopeBody
    metric: Metric = Field(
        description="`requests_per_day` counts the days of UTC; `concurrency` is requests being served at a time."
    )
    limit: Ceiling


class RateLimitChange(Body):
    """What may be changed of a rate limit; what is absent stays."""

    limit: Ceiling | None = None


class RateLimitAnswer(Answer):
    """A rate limit."""

    id: UUID
    org_id: UUID
    scope: ScopeAnswer
    metric: Metric
    limit: int
    version: int = Field(description="Grows with every change of the limit.")
    created_at: datetime
    updated_at: datetime


@router.post("", status_code=201)
async def create_rate_limit(
    body: RateLimitBody,
    access: Annotated[Access, requires(Permission.RATE_LIMITS_WRITE)],
    limits: RateLimitsPart,
) -> RateLimitAnswer:
    """Bound how fast an org, project, API key, user or model of an org may be used. A scope has one limit for each metric."""
    scope = access.in_org(str(body.org_id))
    new = NewRateLimit(scope_kind=body.scope.kind, scope_id=body.scope.id, metric=body.metric, limit=body.limit)
    return _render(await limits.create(scope, new))


@router.get("")
async def list_rate_limits(
    access: Annotated[Access, requires(Permission.RATE_LIMITS_READ)], limits: RateLimitsPart, page: OrgPage
) -> Page[RateLimitAnswer]:
    """An org's rate limits, newest first."""
    return page.answer([_render(row) for row in await page.read(access, limits.list)])


@router.get("/{rate_limit_id}")
async def get_rate_limit(
    rate_limit_id: UUID,
    access: Annotated[Access, requires(Permission.RATE_LIMITS_READ)],
    limits: RateLimitsPart,
) -> RateLimitAnswer:
    """A rate limit."""
    limit = await limits.get(rate_limit_id)
    access.in_org(str(limit.org_id))
    return _render(limit)


@router.patch("/{rate_limit_id}")
async def change_rate_limit(
    rate_limit_id: UUID,
    body: RateLimitChange,
    access: Annotated[Access, requires(Permission.RATE_LIMITS_WRITE)],
    limits: RateLimitsPart,
) -> RateLimitAnswer:
    """Change a rate limit. What was used stays counted; gateways hear of it at once."""
    limit = await limits.get(rate_limit_id)
    scope = access.in_org(str(limit.org_id))
    return _render(await limits.change(scope, limit, to=body.limit))


@router.delete("/{rate_limit_id}", status_code=204)
async def delete_rate_limit(
    rate_limit_id: UUID,
    access: Annotated[Access, requires(Permission.RATE_LIMITS_WRITE)],
    limits: RateLimitsPart,
) -> None:
    """Stop enforcing a rate limit."""
    limit = await limits.get(rate_limit_id)
    await limits.delete(access.in_org(str(limit.org_id)), limit)


def _render(limit: RateLimit) -> RateLimitAnswer:
    return RateLimitAnswer(
        id=limit.id,
        org_id=limit.org_id,
        scope=ScopeAnswer(kind=limit.scope_kind, id=limit.scope_id),
        metric=limit.metric,
        limit=limit.limit,
        version=limit.version,
        created_at=limit.created_at,
        updated_at=limit.updated_at,
    )
