"""The caller themselves."""

from typing import Annotated
from uuid import UUID

from ias.contracts.permissions import ROLE_PERMISSIONS, Permission, Role
from ias.identity.api.parts import PartsOf
from ias.identity.core.grants import as_permissions
from ias.kit.authorization import signed_in
from ias.kit.routing import Router
from ias.kit.tokens import Claims
from ias.kit.web import Answer

router = Router(prefix="/identity/v1", tags=["users"])


class MembershipAnswer(Answer):
    """An org the caller belongs to."""

    org_id: UUID
    org_name: str
    role: Role
    permissions: list[Permission]


class ProjectRoleAnswer(Answer):
    """A role the caller holds in one project alone."""

    org_id: UUID
    project_id: UUID
    role: Role
    permissions: list[Permission]


class CustomRoleGrantAnswer(Answer):
    """One of an org's own roles that the caller holds; in the whole org where `project_id` is null."""

    org_id: UUID
    project_id: UUID | None
    role_id: UUID
    role_name: str
    permissions: list[Permission]


class MeAnswer(Answer):
    """The caller, and everything they hold."""

    id: UUID
    email: str
    name: str
    platform_admin: bool
    session_id: UUID
    memberships: list[MembershipAnswer]
    project_roles: list[ProjectRoleAnswer]
    custom_roles: list[CustomRoleGrantAnswer]


@router.get("/me")
async def get_me(actor: Annotated[Claims, signed_in()], parts: PartsOf) -> MeAnswer:
    """Who the token belongs to, and what they hold now (the token itself may be minutes older)."""
    me = await parts.users.get_me(actor)
    return MeAnswer(
        id=me.user.id,
        email=me.user.email,
        name=me.user.name,
        platform_admin=me.user.platform_admin,
        session_id=me.session_id,
        memberships=[
            MembershipAnswer(
                org_id=item.org_id, org_name=item.org_name, role=item.role, permissions=_permissions(item.role)
            )
            for item in me.memberships
        ],
        project_roles=[
            ProjectRoleAnswer(
                org_id=UUID(org_id), project_id=UUID(project_id), role=role, permissions=_permissions(role)
            )
            for org_id, project_id, role in me.grants
            if project_id is not None
        ],
        custom_roles=[
            CustomRoleGrantAnswer(
                org_id=UUID(item.org_id),
                project_id=UUID(item.project_id) if item.project_id else None,
                role_id=UUID(item.role_id),
                role_name=item.role_name,
                permissions=sorted(as_permissions(item.permissions)),
            )
            for item in me.custom_grants
        ],
    )


def _permissions(role: Role) -> list[Permission]:
    return sorted(ROLE_PERMISSIONS[role])
