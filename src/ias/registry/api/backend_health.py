"""`/registry/v1/backends/{backend_id}/health`."""

from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID

from pydantic import Field

from ias.contracts.backend_states import Circuit, Health
from ias.contracts.permissions import Permission
from ias.kit.authorization import Access, requires
from ias.kit.routing import Router
from ias.kit.web import Answer
from ias.registry.api.parts import BackendHealthsPart
from ias.registry.core.backend_health import BackendHealth

router = Router(prefix="/registry/v1/backends/{backend_id}/health", tags=["backends"])


class TransitionAnswer(Answer):
    """Into which state the backend went."""

    at: datetime
    health: Health
    circuit: Circuit
    reason: str


class BackendHealthAnswer(Answer):
    """A backend's state as gateways are told, and how it came to that."""

    backend_id: UUID
    health: Health = Field(
        description="`cold` sleeps and wakes when asked; `unready` does not answer or lacks the model."
    )
    circuit: Circuit = Field(description="Breaks when requests fail: `open` gets none, `half_open` a few to see.")
    reason: str
    since: datetime
    ramps_until: datetime | None = Field(description="Recovered a moment ago: until then it gets less than its share.")
    running: int | None = Field(description="Requests it computes; null, here and below: it does not tell.")
    waiting: int | None
    kv_cache_usage: float | None
    scraped_at: datetime | None
    adapters: list[str] = Field(description="LoRA adapters that its server lists. One is served as a model of its own.")
    history: list[TransitionAnswer] = Field(description="Its last changes of state, newest first, at most 100.")


@router.get("")
async def get_backend_health(
    backend_id: UUID,
    access: Annotated[Access, requires(Permission.BACKENDS_READ)],
    healths: BackendHealthsPart,
) -> BackendHealthAnswer:
    """Show whether a backend can serve, how busy it is, and what happened to it."""
    access.on_platform()
    return _render(await healths.get_backend_health(backend_id))


def _render(health: BackendHealth) -> BackendHealthAnswer:
    state = health.state
    return BackendHealthAnswer(
        backend_id=health.backend_id,
        health=state.health,
        circuit=state.circuit,
        reason=state.reason,
        since=_moment(state.since),
        ramps_until=None if state.ramps_until is None else _moment(state.ramps_until),
        running=state.running,
        waiting=state.waiting,
        kv_cache_usage=state.kv_cache_usage,
        scraped_at=None if state.scraped_at is None else _moment(state.scraped_at),
        adapters=[*state.adapters],
        history=[TransitionAnswer.model_validate(one) for one in health.history],
    )


def _moment(unix_s: float) -> datetime:
    return datetime.fromtimestamp(unix_s, UTC)
