"""Signing in, refreshing, signing out."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter
from pydantic import ConfigDict, Field, SecretStr

from ias.identity.api.parts import OriginOf, PartsOf
from ias.identity.core.sessions import SignedIn
from ias.kit.authorization import public, signed_in
from ias.kit.tokens import Claims
from ias.kit.web import Answer, Body

router = APIRouter(prefix="/identity/v1/sessions", tags=["sessions"])


class Credentials(Body):
    """Who signs in. Spaces in a password count."""

    model_config = ConfigDict(str_strip_whitespace=False)

    email: Annotated[str, Field(max_length=320)]
    password: Annotated[SecretStr, Field(min_length=1, max_length=1000)]


class RefreshToken(Body):
    """A refresh token, which is used up."""

    refresh_token: Annotated[SecretStr, Field(min_length=1, max_length=200)]


class SessionAnswer(Answer):
    """What a client holds now. `expires_at` is the access token's; the refresh token works once, until `session_expires_at`."""

    session_id: UUID
    token_type: str
    access_token: str
    expires_at: datetime
    refresh_token: str
    session_expires_at: datetime


@router.post("", status_code=201, openapi_extra=public("signing in is how a caller gets a token"))
async def create_session(body: Credentials, parts: PartsOf, origin: OriginOf) -> SessionAnswer:
    """Sign in with e-mail and password."""
    return _answer(await parts.sessions.sign_in(body.email, body.password.get_secret_value(), origin))


@router.post("/refresh", openapi_extra=public("the refresh token is the proof"))
async def refresh_session(body: RefreshToken, parts: PartsOf, origin: OriginOf) -> SessionAnswer:
    """New tokens for old. A refresh token that is used a second time ends its session."""
    return _answer(await parts.sessions.refresh(body.refresh_token.get_secret_value(), origin))


@router.delete("/current", status_code=204)
async def delete_current_session(actor: Annotated[Claims, signed_in()], parts: PartsOf, origin: OriginOf) -> None:
    """Sign out: the session cannot be refreshed any more."""
    await parts.sessions.sign_out(actor, origin)


def _answer(signed: SignedIn) -> SessionAnswer:
    return SessionAnswer(
        session_id=signed.session.id,
        token_type="Bearer",  # noqa: S106  # the scheme's name
        access_token=signed.access_token.text,
        expires_at=signed.access_token.expires_at,
        refresh_token=signed.refresh_token,
        session_expires_at=signed.session.expires_at,
    )
