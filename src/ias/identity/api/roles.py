"""Roles of an org's own, and who holds them."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import Field

from ias.contracts.permissions import Permission
from ias.identity.api.fields import IN_FORCE
from ias.identity.api.parts import OriginOf, PartsOf
from ias.kit.authorization import Access, requires
from ias.kit.cursors import CursorText, Limit, Page
from ias.kit.routing import Router
from ias.kit.web import Answer, Body

router = Router(prefix="/identity/v1/orgs/{org_id}", tags=["roles"])

RoleName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{1,59}$", description="Unlike that of any built-in role.")]
Permissions = Annotated[list[Permission], Field(max_length=200, description="None of them the platform's own.")]


class NewRole(Body):
    """A role to create: permissions that the caller holds, under a name."""

    name: RoleName
    permissions: Permissions


class RolePatch(Body):
    """What to change; what is absent stays. What is taken from the role is gone for its holders at once."""

    name: RoleName | None = None
    permissions: Permissions | None = None


class RoleAnswer(Answer):
    """A role of an org's own."""

    id: UUID
    org_id: UUID
    name: str
    permissions: list[str]
    version: int
    created_at: datetime
    updated_at: datetime


class NewRoleAssignment(Body):
    """Who shall hold which role; in one project, or everywhere in the org."""

    role_id: UUID
    user_id: UUID
    project_id: UUID | None = None


class RoleAssignmentAnswer(Answer):
    """That a member holds a role; in the whole org where `project_id` is null."""

    id: UUID
    org_id: UUID
    role_id: UUID
    user_id: UUID
    project_id: UUID | None
    created_at: datetime


@router.post("/roles", status_code=201)
async def create_role(
    org_id: UUID,
    body: NewRole,
    access: Annotated[Access, requires(Permission.MEMBERS_WRITE)],
    parts: PartsOf,
    origin: OriginOf,
) -> RoleAnswer:
    """Create a role."""
    return RoleAnswer.model_validate(await parts.roles.create(access, org_id, body.name, body.permissions, origin))


@router.get("/roles")
async def list_roles(
    org_id: UUID,
    access: Annotated[Access, requires(Permission.MEMBERS_READ)],
    parts: PartsOf,
    limit: Limit = 50,
    cursor: CursorText = None,
) -> Page[RoleAnswer]:
    """The org's own roles, newest first. Built-in ones are not among them."""
    filters = f"roles {org_id}"
    after = parts.cursors.decode(cursor, filters)
    rows = await parts.roles.list_roles(access, org_id, after=after, limit=limit + 1)
    return parts.cursors.page([RoleAnswer.model_validate(row) for row in rows], limit, filters)


@router.get("/roles/{role_id}")
async def get_role(
    org_id: UUID, role_id: UUID, access: Annotated[Access, requires(Permission.MEMBERS_READ)], parts: PartsOf
) -> RoleAnswer:
    """One role."""
    return RoleAnswer.model_validate(await parts.roles.get(access, org_id, role_id))


@router.patch("/roles/{role_id}", responses={200: {"headers": IN_FORCE}})
async def update_role(
    *,
    org_id: UUID,
    role_id: UUID,
    body: RolePatch,
    access: Annotated[Access, requires(Permission.MEMBERS_WRITE)],
    parts: PartsOf,
    origin: OriginOf,
) -> RoleAnswer:
    """Rename a role, or change what it permits."""
    role = await parts.roles.update(
        access, org_id, role_id, name=body.name, permissions=body.permissions, origin=origin
    )
    return RoleAnswer.model_validate(role)


@router.delete("/roles/{role_id}", status_code=204)
async def delete_role(
    org_id: UUID,
    role_id: UUID,
    access: Annotated[Access, requires(Permission.MEMBERS_WRITE)],
    parts: PartsOf,
    origin: OriginOf,
) -> None:
    """Remove a role that nobody holds."""
    await parts.roles.delete(access, org_id, role_id, origin)


@router.post("/role-assignments", status_code=201, responses={201: {"headers": IN_FORCE}})
async def create_role_assignment(
    org_id: UUID,
    body: NewRoleAssignment,
    access: Annotated[Access, requires(Permission.MEMBERS_WRITE)],
    parts: PartsOf,
    origin: OriginOf,
) -> RoleAssignmentAnswer:
    """Give a member one of the org's own roles, beside what they hold. It shows in their next access token."""
    made = await parts.roles.assign(
        access, org_id, body.role_id, body.user_id, project_id=body.project_id, origin=origin
    )
    return RoleAssignmentAnswer.model_validate(made)


@router.get("/role-assignments")
async def list_role_assignments(
    org_id: UUID,
    access: Annotated[Access, requires(Permission.MEMBERS_READ)],
    parts: PartsOf,
    limit: Limit = 50,
    cursor: CursorText = None,
) -> Page[RoleAssignmentAnswer]:
    """Who holds which of the org's own roles where, newest first."""
    filters = f"role_assignments {org_id}"
    after = parts.cursors.decode(cursor, filters)
    rows = await parts.roles.list_assignments(access, org_id, after=after, limit=limit + 1)
    return parts.cursors.page([RoleAssignmentAnswer.model_validate(row) for row in rows], limit, filters)


@router.delete("/role-assignments/{assignment_id}", status_code=204, responses={204: {"headers": IN_FORCE}})
async def delete_role_assignment(
    org_id: UUID,
    assignment_id: UUID,
    access: Annotated[Access, requires(Permission.MEMBERS_WRITE)],
    parts: PartsOf,
    origin: OriginOf,
) -> None:
    """Take a role from a member, at once."""
    await parts.roles.unassign(access, org_id, assignment_id, origin)
