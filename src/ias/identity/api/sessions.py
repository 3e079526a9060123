"""Signing in, staying signed in, seeing where one is signed in, signing out."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from fastapi import Request, Response
from pydantic import ConfigDict, Field, SecretStr

from ias.identity.api.parts import OriginOf, PartsOf
from ias.identity.core.sessions import SignedIn
from ias.identity.core.sign_ins import Challenge
from ias.identity.store.sessions import Session
from ias.kit.authorization import public, signed_in
from ias.kit.browser_sessions import delete_cookies, find_refresh_token, refuse_foreign_page, set_cookies
from ias.kit.cursors import CursorText, Limit, Page
from ias.kit.problems import UnauthenticatedError
from ias.kit.routing import Router
from ias.kit.tokens import Claims
from ias.kit.web import Answer, Body

router = Router(prefix="/identity/v1/sessions", tags=["sessions"])

Transport = Annotated[
    Literal["body", "cookies"],
    Field(
        description="Where the tokens go: into the answer's body, or into cookies that only the browser sees."
        " For cookies the request needs the header `x-ias-csrf: 1`."
    ),
]


class Credentials(Body):
    """Who signs in. Spaces in a password count."""

    model_config = ConfigDict(str_strip_whitespace=False)

    email: Annotated[str, Field(max_length=320)]
    password: Annotated[SecretStr, Field(min_length=1, max_length=1000)]
    transport: Transport = "body"


class RefreshToken(Body):
    """A refresh token, which is used up; null for the one in the browser's cookie."""

    refresh_token: Annotated[SecretStr, Field(min_length=1, max_length=200)] | None = None


class SignedInAnswer(Answer):
    """What a client holds now. `expires_at` is the access token's; the refresh token works once, until `session_expires_at`.

    Both are null where they went into cookies.
    """

    session_id: UUID
    token_type: str
    access_token: str | None
    expires_at: datetime
    refresh_token: str | None
    session_expires_at: datetime


class ChallengeAnswer(Answer):
    """The password was right; `POST /identity/v1/sessions/second-factor` takes the challenge and a code until `expires_at`."""

    challenge: str
    expires_at: datetime


class ChallengeReply(Body):
    """A challenge, and a code of the app or a recovery code."""

    challenge: Annotated[SecretStr, Field(min_length=1, max_length=200)]
    code: Annotated[SecretStr, Field(min_length=1, max_length=50)]
    transport: Transport = "body"


class SessionAnswer(Answer):
    """A place where somebody is signed in. `last_used_at` is when it was last refreshed."""

    id: UUID
    created_at: datetime
    last_used_at: datetime
    expires_at: datetime
    source_ip: str | None
    user_agent: str | None
    current: bool


@router.post(
    "",
    status_code=201,
    response_model=None,
    responses={
        201: {"model": SignedInAnswer},
        202: {"model": ChallengeAnswer, "description": "The second factor is wanted as well."},
    },
    openapi_extra=public("signing in is how a caller gets a token"),
)
async def create_session(
    body: Credentials, parts: PartsOf, origin: OriginOf, request: Request, response: Response
) -> SignedInAnswer | ChallengeAnswer:
    """Sign in with e-mail and password."""
    if body.transport == "cookies":
        refuse_foreign_page(request)
    signed = await parts.sign_ins.sign_in(body.email, body.password.get_secret_value(), origin)
    if isinstance(signed, Challenge):
        response.status_code = 202
        return ChallengeAnswer(challenge=signed.token, expires_at=signed.expires_at)
    return hand_over(signed, body.transport, request, response)


@router.post("/second-factor", status_code=201, openapi_extra=public("the challenge and the code are the proof"))
async def complete_session(
    body: ChallengeReply, parts: PartsOf, origin: OriginOf, request: Request, response: Response
) -> SignedInAnswer:
    """Sign in with the second factor, after the password."""
    if body.transport == "cookies":
        refuse_foreign_page(request)
    signed = await parts.sign_ins.complete(body.challenge.get_secret_value(), body.code.get_secret_value(), origin)
    return hand_over(signed, body.transport, request, response)


@router.post("/refresh", openapi_extra=public("the refresh token is the proof"))
async def refresh_session(
    body: RefreshToken, parts: PartsOf, origin: OriginOf, request: Request, response: Response
) -> SignedInAnswer:
    """New tokens for old. A refresh token that is used a second time ends its session."""
    if body.refresh_token is not None:
        signed = await parts.sessions.refresh(body.refresh_token.get_secret_value(), origin, shared=False)
        return hand_over(signed, "body", request, response)
    token = find_refresh_token(request)
    if token is None:
        raise UnauthenticatedError("There is no refresh token.", code="invalid_refresh_token")
    return hand_over(await parts.sessions.refresh(token, origin, shared=True), "cookies", request, response)


@router.get("")
async def list_sessions(
    actor: Annotated[Claims, signed_in()], parts: PartsOf, limit: Limit = 50, cursor: CursorText = None
) -> Page[SessionAnswer]:
    """Where the caller is signed in, newest first."""
    filters = f"sessions {actor.sub}"
    after = parts.cursors.decode(cursor, filters)
    rows = await parts.sessions.list_own(actor, after=after, limit=limit + 1)
    answers = [show(row, actor) for row in rows]
    return parts.cursors.page(answers, limit, filters)


@router.delete("/current", status_code=204)
async def delete_current_session(
    actor: Annotated[Claims, signed_in()], parts: PartsOf, origin: OriginOf, request: Request, response: Response
) -> None:
    """Sign out: the session's tokens are refused from now on."""
    await parts.sessions.sign_out(actor, origin)
    delete_cookies(request, response)


@router.delete("/others", status_code=204)
async def delete_other_sessions(actor: Annotated[Claims, signed_in()], parts: PartsOf, origin: OriginOf) -> None:
    """Sign out everywhere else."""
    await parts.sessions.revoke_others(actor, origin)


@router.delete("/{session_id}", status_code=204)
async def delete_session(
    session_id: UUID, actor: Annotated[Claims, signed_in()], parts: PartsOf, origin: OriginOf
) -> None:
    """Sign out in one place."""
    await parts.sessions.revoke_own(actor, session_id, origin)


def show(row: Session, actor: Claims) -> SessionAnswer:
    """A session, as seen from another."""
    return SessionAnswer(
        id=row.id,
        created_at=row.created_at,
        last_used_at=row.last_used_at,
        expires_at=row.expires_at,
        source_ip=row.source_ip,
        user_agent=row.user_agent,
        current=str(row.id) == actor.session_id,
    )


def hand_over(signed: SignedIn, transport: str, request: Request, response: Response) -> SignedInAnswer:
    """The tokens, in the answer or in its cookies."""
    if transport == "cookies":
        set_cookies(
            request,
            response,
            access_token=signed.access_token.text,
            expires_at=signed.access_token.expires_at,
            refresh_token=signed.refresh_token,
            session_expires_at=signed.session.expires_at,
        )
    return SignedInAnswer(
        session_id=signed.session.id,
        token_type="Bearer",  # noqa: S106  # the scheme's name
        access_token=None if transport == "cookies" else signed.access_token.text,
        expires_at=signed.access_token.expires_at,
        refresh_token=None if transport == "cookies" else signed.refresh_token,
        session_expires_at=signed.session.expires_at,
    )
