"""`/registry/v1/models/{model_id}/route-policy`."""

from datetime import datetime
from typing import Annotated, ClassVar
from uuid import UUID

from pydantic import Field

from ias.contracts.permissions import Permission
from ias.contracts.routes import Strategy
from ias.kit.authorization import Access, requires
from ias.kit.routing import Router
from ias.kit.web import Answer
from ias.registry.api.authors import author_of
from ias.registry.api.parts import RoutePoliciesPart
from ias.registry.api.patches import Patch

router = Router(prefix="/registry/v1/models/{model_id}/route-policy", tags=["route policies"])

ATTEMPTS_MAX = 10
TIMEOUT_MAX_S = 3600
QUEUE_TIMEOUT_MAX_S = 600

Timeout = Annotated[float, Field(gt=0, le=TIMEOUT_MAX_S, allow_inf_nan=False)]


class PatchRoutePolicy(Patch):
    """What changes of a route policy. Null timeouts are the gateways' own settings."""

    nullable: ClassVar[frozenset[str]] = frozenset({"first_byte_timeout_s", "total_timeout_s", "queue_timeout_s"})

    strategy: Strategy | None = Field(
        None,
        description="`prefix`: the one that has probably cached the prompt's beginning, until it is busier than others;"
        " `least_tokens`: the fewest tokens in flight; `weighted`: by lot; `priority`: the first that has room.",
    )
    is_sticky: bool | None = Field(
        None, description="Requests with the same `x-session-id`, or else the same `user`, stay with their backend."
    )
    canary_percent: Annotated[int, Field(ge=0, le=100)] | None = Field(
        None,
        description="Share of the requests for the group canary. Above 0 there must be one: a backend of it, or an adapter at one.",
    )
    attempts_max: Annotated[int, Field(ge=1, le=ATTEMPTS_MAX)] | None = Field(
        None, description="How many backends a request is sent to at most, before the first byte of an answer."
    )
    first_byte_timeout_s: Timeout | None = None
    total_timeout_s: Timeout | None = None
    queue_timeout_s: Annotated[float, Field(ge=0, le=QUEUE_TIMEOUT_MAX_S, allow_inf_nan=False)] | None = Field(
        None, description="How long a request waits for a place, or for a cold model, before it is refused."
    )


class RoutePolicyAnswer(Answer):
    """How requests for a model are spread, tried again and timed."""

    model_id: UUID
    strategy: Strategy
    is_sticky: bool
    canary_percent: int
    attempts_max: int
    first_byte_timeout_s: float | None
    total_timeout_s: float | None
    queue_timeout_s: float | None
    version: int
    updated_at: datetime


@router.get("")
async def get_route_policy(
    model_id: UUID, access: Annotated[Access, requires(Permission.BACKENDS_READ)], policies: RoutePoliciesPart
) -> RoutePolicyAnswer:
    """Show a model's route policy. Every model has one."""
    access.on_platform()
    return RoutePolicyAnswer.model_validate(await policies.get_route_policy(model_id))


@router.patch("")
async def update_route_policy(
    *,
    model_id: UUID,
    body: PatchRoutePolicy,
    access: Annotated[Access, requires(Permission.BACKENDS_WRITE)],
    policies: RoutePoliciesPart,
) -> RoutePolicyAnswer:
    """Change what was sent of a route policy; gateways know within a second."""
    author = author_of(access)
    return RoutePolicyAnswer.model_validate(await policies.update_route_policy(model_id, body.sent_fields(), author))
