"""The rules of backends."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal
from uuid import UUID

from ias.contracts.ids import uuid7
from ias.contracts.routes import Group
from ias.kit.database import Database
from ias.kit.egress import EgressPolicy
from ias.kit.problems import FieldError, InvalidError, NotFoundError
from ias.kit.writes import check_version
from ias.registry.core.adapters import check_is_no_adapter, delete_adapters_of
from ias.registry.core.canaries import check_canaries_left, list_models_of_canary
from ias.registry.core.changes import Author, Change, Changes
from ias.registry.core.credentials import CredentialAwayError, Credentials
from ias.registry.store.backends import (
    Backend,
    BackendStatus,
    Engine,
    find_backend,
    insert_backend,
    list_backends,
    replace_backend,
)
from ias.registry.store.models import find_model

Switch = Literal["disable", "enable", "drain", "resume"]
"""`disable` is the kill switch: nothing new, and what it serves is cut. `drain` lets that end."""

_SWITCHES: Mapping[Switch, Mapping[str, Any]] = {
    "disable": {"status": "disabled"},
    "enable": {"status": "enabled"},
    "drain": {"draining": True},
    "resume": {"draining": False},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class NewBackend:
    """What a new backend is made of."""

    url: str
    weight: int
    upstream_model: str | None
    """None: the model's public name."""
    engine: Engine
    credential: str | None
    credential_from: str | None
    """A reference to it instead."""
    tier: int
    group: Group
    concurrency_max: int | None
    environment: str | None
    draining: bool
    status: BackendStatus


class Backends:
    """Backends, and what may be done to them."""

    def __init__(self, database: Database, changes: Changes, egress: EgressPolicy, credentials: Credentials) -> None:
        self._database = database
        self._changes = changes
        self._egress = egress
        self._credentials = credentials

    async def create_backend(self, model_id: UUID, new: NewBackend, author: Author) -> Backend:
        """A new backend of a model.

        Raises:
            NotFoundError: there is no such model.
            EgressRefusedError: the URL leads where the platform does not send requests.
            InvalidError: its credential is kept elsewhere, and cannot be read there.
        """
        url = await self._egress.admit(new.url)
        await self._check_reference(new.credential_from)
        async with self._changes.make(author) as change:
            model = await find_model(change.connection, model_id)
            if model is None:
                raise NotFoundError
            backend = Backend(
                id=uuid7(),
                model_id=model_id,
                url=url,
                weight=new.weight,
                upstream_model=new.upstream_model or model.name,
                engine=new.engine,
                sealed_credential=self._credentials.seal(new.credential) if new.credential else None,
                credential_from=new.credential_from,
                tier=new.tier,
                group=new.group,
                concurrency_max=new.concurrency_max,
                environment=new.environment,
                draining=new.draining,
                status=new.status,
                version=1,
                created_at=change.at,
                updated_at=change.at,
                deleted_at=None,
            )
            await insert_backend(change.connection, backend)
            change.record("backend.create", backend.id, None, _describe(backend))
        return backend

    async def get_backend(self, backend_id: UUID) -> Backend:
        """The backend. Raises NotFoundError."""
        async with self._database.transaction() as connection:
            return _present(await find_backend(connection, backend_id))

    async def list_backends(self, model_id: UUID, *, after: UUID | None, limit: int) -> list[Backend]:
        """Backends of a model, newest first, after an id. Raises NotFoundError when there is no such model."""
        async with self._database.transaction() as connection:
            if await find_model(connection, model_id) is None:
                raise NotFoundError
            return await list_backends(connection, model_id=model_id, after=after, limit=limit)

    async def update_backend(self, backend_id: UUID, fields: dict[str, Any], author: Author) -> Backend:
        """The backend with the given fields replaced; nothing happens when they are what they were.

        A new `credential` or `credential_from` replaces whichever there was, None removes it.

        Raises:
            NotFoundError: there is no such backend.
            PreconditionFailedError: the change is meant for another version.
            EgressRefusedError: the new URL leads where the platform does not send requests.
            InvalidError: its credential is kept elsewhere, and cannot be read there.
            ConflictError: it is a model's last canary, and the route policy gives canaries a share; or one of its adapters has
                the new `upstream_model` for its name.
        """
        stored = dict(fields)
        if "url" in stored:
            stored["url"] = await self._egress.admit(stored["url"])
        if "credential" in stored:
            credential = stored.pop("credential")
            stored["sealed_credential"] = self._credentials.seal(credential) if credential else None
            stored.setdefault("credential_from", None)
        elif stored.get("credential_from") is not None:
            stored["sealed_credential"] = None
        await self._check_reference(stored.get("credential_from"))
        async with self._changes.make(author) as change:
            backend = _present(await find_backend(change.connection, backend_id))
            check_version(backend.version)
            if replace(backend, **stored) == backend:
                return backend
            updated = replace(backend, **stored, version=backend.version + 1, updated_at=change.at)
            if updated.upstream_model != backend.upstream_model:
                await check_is_no_adapter(change, backend_id, updated.upstream_model)
            await replace_backend(change.connection, updated)
            if updated.group != backend.group:
                await check_canaries_left(change, await list_models_of_canary(change, backend))
            before, after = _describe(backend), _describe(updated)
            if backend.sealed_credential != updated.sealed_credential:
                after["credential_replaced"] = True
            change.record("backend.update", backend.id, before, after)
        return updated

    async def _check_reference(self, reference: str | None) -> None:
        if reference is None:
            return
        try:
            await asyncio.to_thread(self._credentials.read, reference)
        except CredentialAwayError as error:
            problem = FieldError(pointer="/credential_from", detail=str(error))
            raise InvalidError("The credential cannot be read where it is said to be.", errors=[problem]) from error

    async def switch_backend(self, backend_id: UUID, switch: Switch, reason: str | None, author: Author) -> Backend:
        """The backend, switched; nothing happens when it was so before. The reason is kept with the change.

        Raises:
            NotFoundError: there is no such backend.
        """
        async with self._changes.make(author) as change:
            backend = _present(await find_backend(change.connection, backend_id))
            wanted = _SWITCHES[switch]
            if replace(backend, **wanted) == backend:
                return backend
            updated = replace(backend, **wanted, version=backend.version + 1, updated_at=change.at)
            await replace_backend(change.connection, updated)
            after = _describe(updated) | ({"reason": reason} if reason else {})
            change.record(f"backend.{switch}", backend.id, _describe(backend), after)
        return updated

    async def delete_backend(self, backend_id: UUID, author: Author) -> None:
        """Take the backend away, and its credential with it. Raises as `update_backend` does."""
        async with self._changes.make(author) as change:
            backend = _present(await find_backend(change.connection, backend_id))
            check_version(backend.version)
            models = await list_models_of_canary(change, backend)
            await _delete(change, backend)
            await check_canaries_left(change, models)


async def delete_backends_of(change: Change, model_id: UUID) -> None:
    """Take all backends of a model that goes away, as part of a greater change. Raises as `delete_backend` does."""
    others: set[UUID] = set()
    for backend in await list_backends(change.connection, model_id=model_id, after=None, limit=None):
        others |= await list_models_of_canary(change, backend)
        await _delete(change, backend)
    await check_canaries_left(change, others - {model_id})


async def _delete(change: Change, backend: Backend) -> None:
    await delete_adapters_of(change, backend_id=backend.id)
    deleted = replace(
        backend,
        sealed_credential=None,
        credential_from=None,
        version=backend.version + 1,
        updated_at=change.at,
        deleted_at=change.at,
    )
    await replace_backend(change.connection, deleted)
    change.record("backend.delete", backend.id, _describe(backend), None)


def _present(backend: Backend | None) -> Backend:
    if backend is None:
        raise NotFoundError
    return backend


def _describe(backend: Backend) -> dict[str, Any]:
    """A backend as the list of changes may show it: the credential is there or not, never what it is."""
    return {
        "model_id": str(backend.model_id),
        "url": backend.url,
        "weight": backend.weight,
        "upstream_model": backend.upstream_model,
        "engine": backend.engine,
        "has_credential": backend.has_credential,
        "credential_from": backend.credential_from,
        "tier": backend.tier,
        "group": backend.group,
        "concurrency_max": backend.concurrency_max,
        "environment": backend.environment,
        "draining": backend.draining,
        "status": backend.status,
    }
