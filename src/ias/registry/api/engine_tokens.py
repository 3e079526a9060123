"""`/internal/registry/engine-tokens`: what engines themselves counted, for billing to hold its books against."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import Query
from pydantic import Field

from ias.kit.authorization import internal
from ias.kit.moments import Moment
from ias.kit.routing import Router
from ias.kit.tokens import Claims
from ias.kit.web import Answer
from ias.registry.api.parts import EngineTokenSumsPart
from ias.registry.core.engine_tokens import EngineSum

router = Router(prefix="/internal/registry", tags=["internal"])


class TokenSumAnswer(Answer):
    """What a server's engine counted from `first_at` to `last_at`, less what restarts took with them."""

    server: str
    served_ids: list[UUID] = Field(description="The backends and adapters at that server.")
    first_at: datetime
    last_at: datetime
    prompt_tokens: int
    generation_tokens: int
    restarts: int


class TokenSumsAnswer(Answer):
    """Of each server whose engine tells, in a period."""

    engines: list[TokenSumAnswer]


@router.get("/engine-tokens")
async def sum_engine_tokens(
    _: Annotated[Claims, internal("registry")],
    sums: EngineTokenSumsPart,
    start: Annotated[Moment, Query()],
    end: Annotated[Moment, Query()],
) -> TokenSumsAnswer:
    """What engines counted between their first and their last reading in a period."""
    return TokenSumsAnswer(engines=[_render(one) for one in await sums.list_sums(start, end)])


def _render(engine: EngineSum) -> TokenSumAnswer:
    counted = engine.counted
    return TokenSumAnswer(
        server=engine.server,
        served_ids=engine.served_ids,
        first_at=counted.first_at,
        last_at=counted.last_at,
        prompt_tokens=counted.prompt_tokens,
        generation_tokens=counted.generation_tokens,
        restarts=counted.restarts,
    )
