"""Service accounts."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from fastapi import Response

from ias.contracts.permissions import Permission
from ias.identity.api.fields import IN_FORCE, Name, say_in_force
from ias.identity.api.parts import OriginOf, PartsOf
from ias.kit.authorization import Access, requires
from ias.kit.cursors import CursorText, Limit, Page
from ias.kit.routing import Router
from ias.kit.web import Answer, Body

router = Router(prefix="/identity/v1", tags=["service accounts"])


class NewServiceAccount(Body):
    """A service account to create. Its name is its own within the project."""

    name: Name


class ServiceAccountPatch(Body):
    """What to change; what is absent stays. `suspended` suspends its keys, `active` restores them."""

    name: Name | None = None
    status: Literal["active", "suspended"] | None = None


class ServiceAccountAnswer(Answer):
    """A service account."""

    id: UUID
    org_id: UUID
    project_id: UUID
    name: str
    status: Literal["active", "suspended"]
    version: int
    created_at: datetime
    updated_at: datetime


@router.post("/projects/{project_id}/service-accounts", status_code=201)
async def create_service_account(
    project_id: UUID,
    body: NewServiceAccount,
    access: Annotated[Access, requires(Permission.API_KEYS_WRITE)],
    parts: PartsOf,
    origin: OriginOf,
) -> ServiceAccountAnswer:
    """Create a service account, which may hold keys."""
    account = await parts.service_accounts.create(access, project_id, body.name, origin)
    return ServiceAccountAnswer.model_validate(account)


@router.get("/projects/{project_id}/service-accounts")
async def list_service_accounts(
    project_id: UUID,
    access: Annotated[Access, requires(Permission.API_KEYS_READ)],
    parts: PartsOf,
    limit: Limit = 50,
    cursor: CursorText = None,
) -> Page[ServiceAccountAnswer]:
    """The service accounts of a project, newest first."""
    filters = f"service_accounts {project_id}"
    after = parts.cursors.decode(cursor, filters)
    rows = await parts.service_accounts.list_service_accounts(access, project_id, after=after, limit=limit + 1)
    return parts.cursors.page([ServiceAccountAnswer.model_validate(row) for row in rows], limit, filters)


@router.get("/service-accounts/{account_id}")
async def get_service_account(
    account_id: UUID, access: Annotated[Access, requires(Permission.API_KEYS_READ)], parts: PartsOf
) -> ServiceAccountAnswer:
    """One service account."""
    return ServiceAccountAnswer.model_validate(await parts.service_accounts.get(access, account_id))


@router.patch("/service-accounts/{account_id}", responses={200: {"headers": IN_FORCE}})
async def update_service_account(
    *,
    account_id: UUID,
    body: ServiceAccountPatch,
    access: Annotated[Access, requires(Permission.API_KEYS_WRITE)],
    parts: PartsOf,
    origin: OriginOf,
    response: Response,
) -> ServiceAccountAnswer:
    """Rename a service account, suspend or restore it."""
    account, in_force = await parts.service_accounts.update(
        access, account_id, name=body.name, status=body.status, origin=origin
    )
    say_in_force(response, in_force)
    return ServiceAccountAnswer.model_validate(account)


@router.delete("/service-accounts/{account_id}", status_code=204, responses={204: {"headers": IN_FORCE}})
async def delete_service_account(
    account_id: UUID,
    access: Annotated[Access, requires(Permission.API_KEYS_WRITE)],
    parts: PartsOf,
    origin: OriginOf,
    response: Response,
) -> None:
    """Delete a service account and revoke its keys. Its name may be used again; usage and audit log keep its id."""
    say_in_force(response, await parts.service_accounts.delete(access, account_id, origin))
