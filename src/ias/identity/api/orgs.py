"""Orgs."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Response

from ias.contracts.permissions import Permission
from ias.identity.api.fields import IN_FORCE, ModelNames, Name, say_in_force
from ias.identity.api.parts import OriginOf, PartsOf
from ias.identity.core.orgs import TenantChanges
from ias.kit.authorization import Access, requires
from ias.kit.cursors import CursorText, Limit, Page
from ias.kit.web import Answer, Body

router = APIRouter(prefix="/identity/v1/orgs", tags=["orgs"])


class NewOrg(Body):
    """An org to create."""

    name: Name
    models: ModelNames = None


class OrgPatch(Body):
    """What to change; what is absent stays. `suspended` stops all its traffic, `active` restores it."""

    name: Name | None = None
    status: Literal["active", "suspended"] | None = None
    models: ModelNames = None

    def changes(self) -> TenantChanges:
        """The changes. Null means something for `models` alone: all of them."""
        given = {name for name in self.model_fields_set if name == "models" or getattr(self, name) is not None}
        return TenantChanges(frozenset(given), name=self.name, status=self.status, models=self.models)


class OrgAnswer(Answer):
    """An org. `version` grows with every change."""

    id: UUID
    name: str
    status: Literal["active", "suspended", "deleted"]
    models: list[str] | None
    version: int
    created_at: datetime
    updated_at: datetime


@router.post("", status_code=201, responses={201: {"headers": IN_FORCE}})
async def create_org(
    body: NewOrg,
    access: Annotated[Access, requires(Permission.ORGS_CREATE)],
    parts: PartsOf,
    origin: OriginOf,
    response: Response,
) -> OrgAnswer:
    """Create an org with its default project; the caller owns it."""
    org, in_force = await parts.orgs.create(access, body.name, body.models, origin)
    say_in_force(response, in_force)
    return OrgAnswer.model_validate(org)


@router.get("")
async def list_orgs(
    access: Annotated[Access, requires(Permission.ORGS_READ)],
    parts: PartsOf,
    limit: Limit = 50,
    cursor: CursorText = None,
) -> Page[OrgAnswer]:
    """The orgs the caller may read, newest first."""
    after = parts.cursors.decode(cursor, "orgs")
    rows = await parts.orgs.list_orgs(access, after=after, limit=limit + 1)
    return parts.cursors.page([OrgAnswer.model_validate(row) for row in rows], limit, "orgs")


@router.get("/{org_id}")
async def get_org(org_id: UUID, access: Annotated[Access, requires(Permission.ORGS_READ)], parts: PartsOf) -> OrgAnswer:
    """One org."""
    return OrgAnswer.model_validate(await parts.orgs.get(access, org_id))


@router.patch("/{org_id}", responses={200: {"headers": IN_FORCE}})
async def update_org(
    *,
    org_id: UUID,
    body: OrgPatch,
    access: Annotated[Access, requires(Permission.ORGS_WRITE)],
    parts: PartsOf,
    origin: OriginOf,
    response: Response,
) -> OrgAnswer:
    """Rename an org, suspend or restore it, or set the models it may use."""
    org, in_force = await parts.orgs.update(access, org_id, body.changes(), origin)
    say_in_force(response, in_force)
    return OrgAnswer.model_validate(org)
