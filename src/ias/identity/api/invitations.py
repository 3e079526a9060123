"""Invitations into an org."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import ConfigDict, Field, SecretStr

from ias.contracts.permissions import Permission, Role
from ias.identity.api.fields import Name
from ias.identity.api.parts import OriginOf, PartsOf
from ias.kit.authorization import Access, public, requires, signed_in
from ias.kit.cursors import CursorText, Limit, Page
from ias.kit.routing import Router
from ias.kit.tokens import Claims
from ias.kit.web import Answer, Body

router = Router(prefix="/identity/v1", tags=["invitations"])

Token = Annotated[SecretStr, Field(min_length=1, max_length=200, description="What the link carries.")]


class NewInvitation(Body):
    """Whom to invite, as what."""

    email: Annotated[str, Field(max_length=320)]
    role: Role


class InvitationAnswer(Answer):
    """An invitation. What its link carries is in the e-mail alone; it is good while `sent_by` could still send it."""

    id: UUID
    org_id: UUID
    email: str
    role: Role
    status: Literal["pending", "accepted", "revoked"]
    expires_at: datetime
    sent_at: datetime
    created_by: UUID
    sent_by: UUID
    accepted_by: UUID | None
    version: int
    created_at: datetime
    updated_at: datetime


class InvitationToken(Body):
    """What the link carries."""

    token: Token


class NewUser(Body):
    """What the link carries, and who the new user is. Spaces in a password count."""

    model_config = ConfigDict(str_strip_whitespace=False)

    token: Token
    name: Name
    password: Annotated[SecretStr, Field(min_length=1, max_length=1000)]


class OfferAnswer(Answer):
    """What a link offers. With `has_account` sign in as `email` and accept; else accept as a new user."""

    org_id: UUID
    org_name: str
    email: str
    role: Role
    expires_at: datetime
    has_account: bool


@router.post("/orgs/{org_id}/invitations", status_code=201)
async def create_invitation(
    org_id: UUID,
    body: NewInvitation,
    access: Annotated[Access, requires(Permission.MEMBERS_WRITE)],
    parts: PartsOf,
    origin: OriginOf,
) -> InvitationAnswer:
    """Invite somebody by e-mail."""
    made = await parts.invitations.create(access, org_id, body.email, body.role, origin)
    return InvitationAnswer.model_validate(made)


@router.get("/orgs/{org_id}/invitations")
async def list_invitations(
    org_id: UUID,
    access: Annotated[Access, requires(Permission.MEMBERS_READ)],
    parts: PartsOf,
    limit: Limit = 50,
    cursor: CursorText = None,
) -> Page[InvitationAnswer]:
    """Invitations into an org, newest first, closed ones too."""
    filters = f"invitations {org_id}"
    after = parts.cursors.decode(cursor, filters)
    rows = await parts.invitations.list_invitations(access, org_id, after=after, limit=limit + 1)
    return parts.cursors.page([InvitationAnswer.model_validate(row) for row in rows], limit, filters)


@router.post("/orgs/{org_id}/invitations/{invitation_id}/resend")
async def resend_invitation(
    org_id: UUID,
    invitation_id: UUID,
    access: Annotated[Access, requires(Permission.MEMBERS_WRITE)],
    parts: PartsOf,
    origin: OriginOf,
) -> InvitationAnswer:
    """Send a new link. The one before is void."""
    return InvitationAnswer.model_validate(await parts.invitations.resend(access, org_id, invitation_id, origin))


@router.delete("/orgs/{org_id}/invitations/{invitation_id}", status_code=204)
async def revoke_invitation(
    org_id: UUID,
    invitation_id: UUID,
    access: Annotated[Access, requires(Permission.MEMBERS_WRITE)],
    parts: PartsOf,
    origin: OriginOf,
) -> None:
    """Withdraw an invitation."""
    await parts.invitations.revoke(access, org_id, invitation_id, origin)


@router.post("/invitations/look-up", openapi_extra=public("the link is the proof"))
async def look_up_invitation(body: InvitationToken, parts: PartsOf) -> OfferAnswer:
    """What a link offers."""
    offer = await parts.invitations.look_up(body.token.get_secret_value())
    return OfferAnswer(
        org_id=offer.invitation.org_id,
        org_name=offer.org_name,
        email=offer.invitation.email,
        role=offer.invitation.role,
        expires_at=offer.invitation.expires_at,
        has_account=offer.has_account,
    )


@router.post("/invitations/accept")
async def accept_invitation(
    body: InvitationToken, actor: Annotated[Claims, signed_in()], parts: PartsOf, origin: OriginOf
) -> InvitationAnswer:
    """Join, as the user who is signed in. Refresh the session: its tokens do not show the new org yet."""
    accepted = await parts.invitations.accept(actor, body.token.get_secret_value(), origin)
    return InvitationAnswer.model_validate(accepted)


@router.post("/invitations/accept-as-new-user", openapi_extra=public("the link is the proof"))
async def accept_invitation_as_new_user(body: NewUser, parts: PartsOf, origin: OriginOf) -> InvitationAnswer:
    """Join, as a new user. Signing in comes next."""
    accepted = await parts.invitations.accept_as_new_user(
        body.token.get_secret_value(), body.name.strip(), body.password.get_secret_value(), origin
    )
    return InvitationAnswer.model_validate(accepted)
