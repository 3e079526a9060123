"""Who holds a role in one project alone."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from ias.contracts.permissions import Permission, Role
from ias.identity.api.fields import IN_FORCE
from ias.identity.api.parts import OriginOf, PartsOf
from ias.kit.authorization import Access, requires
from ias.kit.cursors import CursorText, Limit, Page
from ias.kit.routing import Router
from ias.kit.web import Answer, Body

router = Router(prefix="/identity/v1/projects/{project_id}/members", tags=["projects"])


class ProjectRole(Body):
    """The role to hold in the project, beside the one held in the org. Owners are of whole orgs."""

    role: Literal[Role.ADMIN, Role.DEVELOPER, Role.FINANCE, Role.VIEWER]


class ProjectMemberAnswer(Answer):
    """A member of the org, and their role in the project."""

    id: UUID
    org_id: UUID
    project_id: UUID
    user_id: UUID
    email: str
    name: str
    role: Role
    created_at: datetime


@router.get("")
async def list_project_members(
    project_id: UUID,
    access: Annotated[Access, requires(Permission.MEMBERS_READ)],
    parts: PartsOf,
    limit: Limit = 50,
    cursor: CursorText = None,
) -> Page[ProjectMemberAnswer]:
    """Who holds a role in the project itself, newest first. Roles in the org, which hold in all projects, are its members'."""
    filters = f"project_members {project_id}"
    after = parts.cursors.decode(cursor, filters)
    rows = await parts.project_members.list_members(access, project_id, after=after, limit=limit + 1)
    return parts.cursors.page([ProjectMemberAnswer.model_validate(row) for row in rows], limit, filters)


@router.put("/{user_id}", responses={200: {"headers": IN_FORCE}})
async def put_project_member(
    *,
    project_id: UUID,
    user_id: UUID,
    body: ProjectRole,
    access: Annotated[Access, requires(Permission.MEMBERS_WRITE)],
    parts: PartsOf,
    origin: OriginOf,
) -> ProjectMemberAnswer:
    """Let a member of the org hold a role in the project, in place of the one they held there."""
    return ProjectMemberAnswer.model_validate(
        await parts.project_members.put(access, project_id, user_id, body.role, origin)
    )


@router.delete("/{user_id}", status_code=204, responses={204: {"headers": IN_FORCE}})
async def delete_project_member(
    project_id: UUID,
    user_id: UUID,
    access: Annotated[Access, requires(Permission.MEMBERS_WRITE)],
    parts: PartsOf,
    origin: OriginOf,
) -> None:
    """Take the role that a member holds in the project, at once."""
    await parts.project_members.remove(access, project_id, user_id, origin)
