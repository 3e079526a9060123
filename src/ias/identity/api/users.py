"""The caller themselves; and all users, for administrators of the platform."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from fastapi import Query, Response

from ias.contracts.permissions import ROLE_PERMISSIONS, Permission, Role
from ias.identity.api.fields import IN_FORCE, say_in_force
from ias.identity.api.parts import OriginOf, PartsOf
from ias.identity.core.grants import as_permissions
from ias.identity.core.users import UserChanges
from ias.kit.authorization import Access, requires, signed_in
from ias.kit.cursors import CursorText, Limit, Page
from ias.kit.routing import Router
from ias.kit.tokens import Claims
from ias.kit.web import Answer, Body

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


class UserAnswer(Answer):
    """A user, whatever orgs they belong to. Until somebody has shown to have the e-mail, `email_confirmed_at` is null."""

    id: UUID
    email: str
    name: str
    platform_admin: bool
    status: Literal["active", "suspended"]
    email_confirmed_at: datetime | None
    version: int
    created_at: datetime
    updated_at: datetime


class UserPatch(Body):
    """What to change; absent or null stays. `suspended` ends everything they do, in every org, until they are `active` again."""

    status: Literal["active", "suspended"] | None = None
    platform_admin: bool | None = None


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
                org_id=item.org_id,
                project_id=item.project_id,
                role=Role(item.role),
                permissions=_permissions(Role(item.role)),
            )
            for item in me.project_roles
            if item.project_id is not None
        ],
        custom_roles=[
            CustomRoleGrantAnswer(
                org_id=item.org_id,
                project_id=item.project_id,
                role_id=UUID(item.role),
                role_name=item.own_name or "",
                permissions=sorted(as_permissions(item.permissions or ())),
            )
            for item in me.own_roles
        ],
    )


@router.delete("/me/memberships/{org_id}", status_code=204, responses={204: {"headers": IN_FORCE}})
async def delete_own_membership(
    org_id: UUID, actor: Annotated[Claims, signed_in()], parts: PartsOf, origin: OriginOf, response: Response
) -> None:
    """Leave an org; the caller's own keys in it are revoked. Its last owner stays: make another one, or delete it."""
    say_in_force(response, await parts.members.leave(actor, org_id, origin))


@router.get("/users")
async def list_users(
    access: Annotated[Access, requires(Permission.USERS_READ)],
    parts: PartsOf,
    email: Annotated[str | None, Query(max_length=320, description="Only the user who has it.")] = None,
    limit: Limit = 50,
    cursor: CursorText = None,
) -> Page[UserAnswer]:
    """Everybody who has an account, newest first."""
    filters = f"users {email}"
    after = parts.cursors.decode(cursor, filters)
    rows = await parts.users.list_users(access, email=email, after=after, limit=limit + 1)
    return parts.cursors.page([UserAnswer.model_validate(row) for row in rows], limit, filters)


@router.get("/users/{user_id}")
async def get_user(
    user_id: UUID, access: Annotated[Access, requires(Permission.USERS_READ)], parts: PartsOf
) -> UserAnswer:
    """One user."""
    return UserAnswer.model_validate(await parts.users.get(access, user_id))


@router.patch("/users/{user_id}", responses={200: {"headers": IN_FORCE}})
async def update_user(
    *,
    user_id: UUID,
    body: UserPatch,
    access: Annotated[Access, requires(Permission.USERS_WRITE)],
    parts: PartsOf,
    origin: OriginOf,
    response: Response,
) -> UserAnswer:
    """Suspend a user or restore them; let them administer the platform, or no more. Somebody always does."""
    user, in_force = await parts.users.update(access, user_id, UserChanges(**dict(body)), origin)
    say_in_force(response, in_force)
    return UserAnswer.model_validate(user)


@router.delete("/users/{user_id}/second-factor", status_code=204)
async def delete_second_factor_of_user(
    user_id: UUID, access: Annotated[Access, requires(Permission.USERS_WRITE)], parts: PartsOf, origin: OriginOf
) -> None:
    """Take the second factor from a user who lost it, and sign them out: make sure that it is them who asks."""
    await parts.second_factors.reset(access, user_id, origin)


def _permissions(role: Role) -> list[Permission]:
    return sorted(ROLE_PERMISSIONS[role])
