"""Members of an org."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from fastapi import Response
from pydantic import ConfigDict, Field, SecretStr

from ias.contracts.permissions import Permission, Role
from ias.identity.api.fields import IN_FORCE, say_in_force
from ias.identity.api.parts import OriginOf, PartsOf
from ias.identity.api.sessions import SessionAnswer, show
from ias.identity.core.members import MemberChanges
from ias.identity.core.members import NewMember as Wanted
from ias.kit.authorization import Access, requires
from ias.kit.cursors import CursorText, Limit, Page
from ias.kit.routing import Router
from ias.kit.web import Answer, Body

router = Router(prefix="/identity/v1/orgs/{org_id}/members", tags=["members"])


class NewMember(Body):
    """Who shall belong to the org. `password` makes a user of somebody who is none; a user who exists keeps theirs."""

    model_config = ConfigDict(str_strip_whitespace=False)

    email: Annotated[str, Field(max_length=320)]
    role: Role
    password: Annotated[SecretStr, Field(min_length=1, max_length=1000)] | None = None


class MemberPatch(Body):
    """What to change; absent or null stays. A suspended member keeps their role and their keys, and neither opens anything."""

    role: Role | None = None
    status: Literal["active", "suspended"] | None = None


class MemberAnswer(Answer):
    """A member of an org."""

    id: UUID
    org_id: UUID
    user_id: UUID
    email: str
    name: str
    role: Role
    status: Literal["active", "suspended"]
    version: int
    created_at: datetime
    updated_at: datetime


@router.post("", status_code=201)
async def create_member(
    org_id: UUID,
    body: NewMember,
    access: Annotated[Access, requires(Permission.USERS_WRITE)],
    parts: PartsOf,
    origin: OriginOf,
) -> MemberAnswer:
    """Put somebody into an org without asking them: for administrators of the platform. Everybody else invites."""
    password = body.password.get_secret_value() if body.password else None
    member = await parts.members.add(access, org_id, Wanted(body.email, body.role, password), origin)
    return MemberAnswer.model_validate(member)


@router.get("")
async def list_members(
    org_id: UUID,
    access: Annotated[Access, requires(Permission.MEMBERS_READ)],
    parts: PartsOf,
    limit: Limit = 50,
    cursor: CursorText = None,
) -> Page[MemberAnswer]:
    """The members of an org, newest first."""
    filters = f"members {org_id}"
    after = parts.cursors.decode(cursor, filters)
    rows = await parts.members.list_members(access, org_id, after=after, limit=limit + 1)
    return parts.cursors.page([MemberAnswer.model_validate(row) for row in rows], limit, filters)


@router.patch("/{user_id}", responses={200: {"headers": IN_FORCE}})
async def update_member(
    *,
    org_id: UUID,
    user_id: UUID,
    body: MemberPatch,
    access: Annotated[Access, requires(Permission.MEMBERS_WRITE)],
    parts: PartsOf,
    origin: OriginOf,
    response: Response,
) -> MemberAnswer:
    """Give a member another role, suspend or restore them. Their access tokens are refused from now on and must be refreshed."""
    member, in_force = await parts.members.update(access, org_id, user_id, MemberChanges(**dict(body)), origin)
    say_in_force(response, in_force)
    return MemberAnswer.model_validate(member)


@router.delete("/{user_id}", status_code=204, responses={204: {"headers": IN_FORCE}})
async def delete_member(
    *,
    org_id: UUID,
    user_id: UUID,
    access: Annotated[Access, requires(Permission.MEMBERS_WRITE)],
    parts: PartsOf,
    origin: OriginOf,
    response: Response,
) -> None:
    """Remove a member, and revoke the keys that are their own."""
    say_in_force(response, await parts.members.remove(access, org_id, user_id, origin))


@router.get("/{user_id}/sessions")
async def list_member_sessions(
    *,
    org_id: UUID,
    user_id: UUID,
    access: Annotated[Access, requires(Permission.MEMBERS_WRITE)],
    parts: PartsOf,
    limit: Limit = 50,
    cursor: CursorText = None,
) -> Page[SessionAnswer]:
    """Where a member is signed in, newest first."""
    filters = f"sessions {user_id}"
    after = parts.cursors.decode(cursor, filters)
    rows = await parts.sessions.list_of_member(access, org_id, user_id, after=after, limit=limit + 1)
    return parts.cursors.page([show(row, access.actor) for row in rows], limit, filters)


@router.delete("/{user_id}/sessions", status_code=204)
async def delete_member_sessions(
    org_id: UUID,
    user_id: UUID,
    access: Annotated[Access, requires(Permission.MEMBERS_WRITE)],
    parts: PartsOf,
    origin: OriginOf,
) -> None:
    """Sign a member out everywhere: for a device that was lost. They may sign in again; suspend them if they must not."""
    await parts.sessions.revoke_of_member(access, org_id, user_id, origin)
