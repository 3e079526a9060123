"""`/registry/v1/backends/{backend_id}/adapters` and `/registry/v1/adapters`."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import Field

from ias.contracts.backend_states import Circuit, Health
from ias.contracts.permissions import Permission
from ias.kit.authorization import Access, requires
from ias.kit.cursors import CursorText, Limit, Page
from ias.kit.routing import Router, changes_nothing
from ias.kit.web import Answer, Body
from ias.registry.api.authors import author_of
from ias.registry.api.backends import UpstreamModel, VerificationAnswer
from ias.registry.api.parts import AdaptersPart, BackendHealthsPart, CursorsPart, VerificationsPart
from ias.registry.core.adapters import NewAdapter
from ias.registry.core.backend_health import BackendHealths
from ias.registry.store.adapters import Adapter

router = Router(prefix="/registry/v1", tags=["adapters"])


class CreateAdapter(Body, strict=True):
    """A LoRA adapter that the backend's server has loaded."""

    name: UpstreamModel
    model_id: Annotated[
        UUID, Field(strict=False, description="The model that it is to clients; not the backend's own.")
    ]


class AdapterAnswer(Answer):
    """An adapter, and whether its server has it."""

    id: UUID
    backend_id: UUID
    model_id: UUID
    name: str
    health: Health = Field(
        description="`ready` when the server's list of models has it; `unknown` before it was looked at."
    )
    circuit: Circuit
    reason: str
    created_at: datetime


Reader = Annotated[Access, requires(Permission.BACKENDS_READ)]
Writer = Annotated[Access, requires(Permission.BACKENDS_WRITE)]


@router.post("/backends/{backend_id}/adapters", status_code=201)
async def create_adapter(
    *, backend_id: UUID, body: CreateAdapter, access: Writer, adapters: AdaptersPart, healths: BackendHealthsPart
) -> AdapterAnswer:
    """Serve a model by an adapter of this backend, under the backend's weight, tier, group and switches."""
    new = NewAdapter(name=body.name, model_id=body.model_id)
    adapter = await adapters.create_adapter(backend_id, new, author_of(access))
    return (await _render([adapter], healths))[0]


@router.get("/backends/{backend_id}/adapters")
async def list_adapters(
    *,
    backend_id: UUID,
    access: Reader,
    adapters: AdaptersPart,
    healths: BackendHealthsPart,
    cursors: CursorsPart,
    limit: Limit = 50,
    cursor: CursorText = None,
) -> Page[AdapterAnswer]:
    """List a backend's adapters, newest first."""
    access.on_platform()
    filters = f"adapters backend_id={backend_id}"
    rows = await adapters.list_adapters(backend_id, after=cursors.decode(cursor, filters), limit=limit + 1)
    return cursors.page(await _render(rows, healths), limit, filters)


@router.delete("/adapters/{adapter_id}", status_code=204)
async def delete_adapter(adapter_id: UUID, access: Writer, adapters: AdaptersPart) -> None:
    """Serve its model by this adapter no more. The server is not told."""
    await adapters.delete_adapter(adapter_id, author_of(access))


@router.post(
    "/adapters/{adapter_id}/verify",
    openapi_extra=changes_nothing("it sends a completion through the adapter and reports"),
)
async def verify_adapter(
    adapter_id: UUID, access: Writer, adapters: AdaptersPart, verifications: VerificationsPart
) -> VerificationAnswer:
    """Ask the server whether it has the adapter, then send one small completion through it. A failure is a 200 with `ok: false`."""
    access.on_platform()
    adapter, backend = await adapters.get_served(adapter_id)
    return VerificationAnswer.model_validate(await verifications.verify_adapter(adapter, backend))


async def _render(rows: Sequence[Adapter], healths: BackendHealths) -> list[AdapterAnswer]:
    states = await healths.find_states([str(row.id) for row in rows])
    return [
        AdapterAnswer(
            id=row.id,
            backend_id=row.backend_id,
            model_id=row.model_id,
            name=row.name,
            health=state.health,
            circuit=state.circuit,
            reason=state.reason,
            created_at=row.created_at,
        )
        for row, state in zip(rows, states, strict=True)
    ]
