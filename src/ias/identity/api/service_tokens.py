"""Tokens with which the platform's processes call each other's `/internal` routes."""

from datetime import datetime
from typing import Annotated

from pydantic import Field, SecretStr

from ias.identity.api.parts import PartsOf
from ias.identity.core.service_tokens import Audience
from ias.kit.authorization import public
from ias.kit.routing import Router
from ias.kit.web import Answer, Body

router = Router(prefix="/internal", tags=["internal"])


class ClientCredentials(Body):
    """Which process asks, its proof, and the service it wants to call."""

    client_id: Annotated[str, Field(min_length=1, max_length=100)]
    client_secret: Annotated[SecretStr, Field(min_length=1, max_length=500)]
    audience: Audience


class ServiceTokenAnswer(Answer):
    """A token for the named service's `/internal` routes."""

    token_type: str
    access_token: str
    expires_at: datetime
    expires_at_unix: int


@router.post("/service-tokens", openapi_extra=public("the client secret is the proof"))
async def create_service_token(body: ClientCredentials, parts: PartsOf) -> ServiceTokenAnswer:
    """Client credentials for a short-lived token that is good for one service."""
    token = await parts.service_tokens.issue(body.client_id, body.client_secret.get_secret_value(), body.audience)
    return ServiceTokenAnswer(
        token_type="Bearer",  # noqa: S106  # the scheme's name
        access_token=token.text,
        expires_at=token.expires_at,
        expires_at_unix=int(token.expires_at.timestamp()),
    )
