"""The rules of LoRA adapters: what a backend's server has loaded beside its model, served to clients as a model of its own.

In the route table an adapter is one more backend of its model: its backend's server, weight, tier, group and switches, under the
adapter's own id and name. So it is probed, breaks its circuit and is counted by itself, and goes with its backend.
"""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from ias.contracts.ids import uuid7
from ias.kit.database import Database
from ias.kit.problems import ConflictError, FieldError, InvalidError, NotFoundError
from ias.registry.core.canaries import check_canaries_left
from ias.registry.core.changes import Author, Change, Changes
from ias.registry.store.adapters import Adapter, find_adapter, insert_adapter, list_adapters, mark_adapter_deleted
from ias.registry.store.backends import Backend, find_backend
from ias.registry.store.models import find_model


@dataclass(frozen=True, slots=True, kw_only=True)
class NewAdapter:
    """What a new adapter is made of."""

    name: str
    model_id: UUID


class Adapters:
    """Adapters, and what may be done to them."""

    def __init__(self, database: Database, changes: Changes) -> None:
        self._database = database
        self._changes = changes

    async def create_adapter(self, backend_id: UUID, new: NewAdapter, author: Author) -> Adapter:
        """Serve a model by an adapter of a backend.

        Raises:
            NotFoundError: there is no such backend.
            InvalidError: there is no such model, or it is the backend's own.
            ConflictError: the backend has an adapter of that name already, or it is the name of its model.
        """
        async with self._changes.make(author) as change:
            backend = await find_backend(change.connection, backend_id)
            if backend is None:
                raise NotFoundError
            await _check(change, backend, new)
            adapter = Adapter(
                id=uuid7(),
                backend_id=backend_id,
                model_id=new.model_id,
                name=new.name,
                created_at=change.at,
                deleted_at=None,
            )
            await insert_adapter(change.connection, adapter)
            change.record("adapter.create", adapter.id, None, _describe(adapter))
        return adapter

    async def list_adapters(self, backend_id: UUID, *, after: UUID | None, limit: int) -> list[Adapter]:
        """A backend's adapters, newest first, after an id. Raises NotFoundError when there is no such backend."""
        async with self._database.transaction() as connection:
            if await find_backend(connection, backend_id) is None:
                raise NotFoundError
            return await list_adapters(connection, backend_id=backend_id, after=after, limit=limit)

    async def get_served(self, adapter_id: UUID) -> tuple[Adapter, Backend]:
        """The adapter and the backend that has it. Raises NotFoundError."""
        async with self._database.transaction() as connection:
            adapter = await find_adapter(connection, adapter_id)
            backend = None if adapter is None else await find_backend(connection, adapter.backend_id)
        if adapter is None or backend is None:
            raise NotFoundError
        return adapter, backend

    async def delete_adapter(self, adapter_id: UUID, author: Author) -> None:
        """Serve its model by this adapter no more; on the server it stays loaded.

        Raises:
            NotFoundError: there is no such adapter.
            ConflictError: it is its model's last canary, and the route policy gives canaries a share.
        """
        async with self._changes.make(author) as change:
            adapter = await find_adapter(change.connection, adapter_id)
            if adapter is None:
                raise NotFoundError
            await _delete(change, adapter)
            await check_canaries_left(change, {adapter.model_id})


async def delete_adapters_of(change: Change, *, backend_id: UUID | None = None, model_id: UUID | None = None) -> None:
    """Take all adapters of a backend or of a model away, as part of a greater change."""
    for adapter in await list_adapters(change.connection, backend_id=backend_id, model_id=model_id):
        await _delete(change, adapter)


async def check_is_no_adapter(change: Change, backend_id: UUID, name: str) -> None:
    """Raises ConflictError: the backend serves one of its adapters by this name."""
    if any(adapter.name == name for adapter in await list_adapters(change.connection, backend_id=backend_id)):
        raise _taken(name)


async def _check(change: Change, backend: Backend, new: NewAdapter) -> None:
    if new.model_id == backend.model_id or await find_model(change.connection, new.model_id) is None:
        detail = "is the backend's own model" if new.model_id == backend.model_id else "is no model"
        raise InvalidError(f"model_id {detail}.", errors=[FieldError(pointer="/model_id", detail=detail)])
    if new.name == backend.upstream_model:
        raise _taken(new.name)
    await check_is_no_adapter(change, backend.id, new.name)


def _taken(name: str) -> ConflictError:
    return ConflictError(f"The backend serves something as {name!r} already.", code="name_taken")


async def _delete(change: Change, adapter: Adapter) -> None:
    await mark_adapter_deleted(change.connection, adapter.id, change.at)
    change.record("adapter.delete", adapter.id, _describe(adapter), None)


def _describe(adapter: Adapter) -> dict[str, Any]:
    return {"backend_id": str(adapter.backend_id), "model_id": str(adapter.model_id), "name": adapter.name}
