"""Orgs."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from fastapi import Response
from pydantic import Field

from ias.contracts.permissions import Permission
from ias.identity.api.fields import IN_FORCE, Domains, ModelNames, Name, OrgNetworks, say_in_force
from ias.identity.api.parts import OriginOf, PartsOf
from ias.identity.core.orgs import TenantChanges
from ias.kit.authorization import Access, requires
from ias.kit.cursors import CursorText, Limit, Page
from ias.kit.routing import Router
from ias.kit.web import Answer, Body

router = Router(prefix="/identity/v1/orgs", tags=["orgs"])


class NewOrg(Body):
    """An org to create."""

    name: Name
    models: ModelNames = None


class OrgPatch(Body):
    """What to change; what is absent stays. `suspended` stops all its traffic, `active` restores it.

    What the platform's administrators suspended they alone restore. `ip_networks` are owners' to set.
    """

    name: Name | None = None
    status: Literal["active", "suspended"] | None = None
    models: ModelNames = None
    key_lifetime_days_max: Annotated[
        int | None, Field(ge=1, le=3650, description="New keys expire at most so many days later; null is never.")
    ] = None
    sign_in_domains: Domains = None
    ip_networks: OrgNetworks = None

    def changes(self) -> TenantChanges:
        """The changes. Null means nothing for `name` and `status`, and lifts the limit of the others."""
        given = {field for field in self.model_fields_set if field not in ("name", "status") or getattr(self, field)}
        return TenantChanges(frozenset(given), **dict(self))


class OrgAnswer(Answer):
    """An org. `version` grows with every change. What was suspended before it was deleted is suspended when it is restored."""

    id: UUID
    name: str
    status: Literal["active", "suspended", "deleted"]
    suspended_by: Literal["org", "platform"] | None
    deleted_by: Literal["org", "platform"] | None
    models: list[str] | None
    key_lifetime_days_max: int | None
    sign_in_domains: list[str] | None
    ip_networks: list[str] | None
    version: int
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None


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
    """Rename an org, suspend or restore it, or set what it may use and who may act in it."""
    org, in_force = await parts.orgs.update(access, org_id, body.changes(), origin)
    say_in_force(response, in_force)
    return OrgAnswer.model_validate(org)


@router.delete("/{org_id}", status_code=204, responses={204: {"headers": IN_FORCE}})
async def delete_org(
    org_id: UUID,
    access: Annotated[Access, requires(Permission.ORGS_DELETE)],
    parts: PartsOf,
    origin: OriginOf,
    response: Response,
) -> None:
    """Delete an org: its keys stop at once. Deleting it again changes nothing.

    Its owners can restore it until it is purged; what the platform's administrators deleted, they alone.
    """
    say_in_force(response, await parts.orgs.delete(access, org_id, origin))


@router.post("/{org_id}/restore", responses={200: {"headers": IN_FORCE}})
async def restore_org(
    org_id: UUID,
    access: Annotated[Access, requires(Permission.ORGS_DELETE)],
    parts: PartsOf,
    origin: OriginOf,
    response: Response,
) -> OrgAnswer:
    """Take a deletion back. Restoring what is not deleted changes nothing; what was suspended is so again."""
    org, in_force = await parts.orgs.restore(access, org_id, origin)
    say_in_force(response, in_force)
    return OrgAnswer.model_validate(org)
