"""Identity providers: the platform's administrators keep them, everybody may sign in with them."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from fastapi import Request, Response
from pydantic import Field, SecretStr

from ias.contracts.permissions import Permission
from ias.identity.api.fields import Name
from ias.identity.api.parts import OriginOf, PartsOf
from ias.identity.api.sessions import SignedInAnswer, Transport, hand_over
from ias.identity.core.identity_providers import IdentityProviderChanges
from ias.identity.core.identity_providers import NewIdentityProvider as Wanted
from ias.identity.core.oidc_sign_ins import LIFETIME
from ias.kit.authorization import Access, public, requires
from ias.kit.browser_sessions import delete_passing_cookie, refuse_foreign_page, set_passing_cookie
from ias.kit.routing import Router
from ias.kit.web import Answer, Body

router = Router(prefix="/identity/v1/identity-providers", tags=["identity providers"])
sign_in_router = Router(prefix="/identity/v1", tags=["sessions"])

COOKIE = "__Host-ias-sign-in"

Domains = Annotated[
    list[Annotated[str, Field(min_length=1, max_length=253)]] | None,
    Field(max_length=200, description="Domains of the e-mails that the provider is believed for; null is all."),
]
CreatesUsers = Annotated[
    bool, Field(description="Whether it lets in whoever it vouches for, or only users and those who are invited.")
]
ClientSecret = Annotated[SecretStr, Field(min_length=1, max_length=1000)]
ClientId = Annotated[str, Field(min_length=1, max_length=500)]


class NewIdentityProvider(Body):
    """An OpenID Connect provider to add. `issuer` is what it calls itself; it is asked for its configuration."""

    name: Name
    issuer: Annotated[str, Field(min_length=1, max_length=1000)]
    client_id: ClientId
    client_secret: ClientSecret | None = None
    domains: Domains = None
    creates_users: CreatesUsers = False


class IdentityProviderPatch(Body):
    """What to change; what is absent stays. Null means something for `domains` and `client_secret` alone: none."""

    name: Name | None = None
    client_id: ClientId | None = None
    client_secret: ClientSecret | None = None
    domains: Domains = None
    creates_users: CreatesUsers | None = None
    status: Literal["enabled", "disabled"] | None = None

    def changes(self) -> IdentityProviderChanges:
        """The changes."""
        nullable = {"domains", "client_secret"}
        given = {name for name in self.model_fields_set if name in nullable or getattr(self, name) is not None}
        return IdentityProviderChanges(
            frozenset(given),
            name=self.name,
            client_id=self.client_id,
            client_secret=self.client_secret.get_secret_value() if self.client_secret else None,
            domains=self.domains,
            creates_users=self.creates_users,
            status=self.status,
        )


class IdentityProviderAnswer(Answer):
    """An identity provider. Its client secret is never shown."""

    id: UUID
    name: str
    issuer: str
    client_id: str
    domains: list[str] | None
    creates_users: bool
    status: Literal["enabled", "disabled"]
    version: int
    created_at: datetime
    updated_at: datetime


class IdentityProvidersAnswer(Answer):
    """All of them; there are never many."""

    data: list[IdentityProviderAnswer]


class SignInProviderAnswer(Answer):
    """What may be chosen instead of a password."""

    id: UUID
    name: str


class SignInProvidersAnswer(Answer):
    """All that may be chosen."""

    data: list[SignInProviderAnswer]


class DepartureAnswer(Answer):
    """Where to send the browser. It comes back to `/sign-in/callback` with `state` and `code`."""

    authorization_url: str


class Arrival(Body):
    """What the browser came back with: `state`, `code`, and `iss` where the provider sends it."""

    state: Annotated[SecretStr, Field(min_length=1, max_length=200)]
    code: Annotated[SecretStr, Field(min_length=1, max_length=4000)]
    iss: Annotated[str, Field(max_length=1000)] | None = None
    transport: Transport = "body"


@router.post("", status_code=201)
async def create_identity_provider(
    body: NewIdentityProvider,
    access: Annotated[Access, requires(Permission.IDENTITY_PROVIDERS_WRITE)],
    parts: PartsOf,
    origin: OriginOf,
) -> IdentityProviderAnswer:
    """Add an identity provider."""
    secret = body.client_secret.get_secret_value() if body.client_secret else None
    wanted = Wanted(
        name=body.name,
        issuer=body.issuer,
        client_id=body.client_id,
        client_secret=secret,
        domains=body.domains,
        creates_users=body.creates_users,
    )
    return IdentityProviderAnswer.model_validate(await parts.identity_providers.create(access, wanted, origin))


@router.get("")
async def list_identity_providers(
    access: Annotated[Access, requires(Permission.IDENTITY_PROVIDERS_READ)], parts: PartsOf
) -> IdentityProvidersAnswer:
    """All identity providers, oldest first."""
    rows = await parts.identity_providers.list_providers(access)
    return IdentityProvidersAnswer(data=[IdentityProviderAnswer.model_validate(row) for row in rows])


@router.get("/{provider_id}")
async def get_identity_provider(
    provider_id: UUID, access: Annotated[Access, requires(Permission.IDENTITY_PROVIDERS_READ)], parts: PartsOf
) -> IdentityProviderAnswer:
    """One identity provider."""
    return IdentityProviderAnswer.model_validate(await parts.identity_providers.get(access, provider_id))


@router.patch("/{provider_id}")
async def update_identity_provider(
    provider_id: UUID,
    body: IdentityProviderPatch,
    access: Annotated[Access, requires(Permission.IDENTITY_PROVIDERS_WRITE)],
    parts: PartsOf,
    origin: OriginOf,
) -> IdentityProviderAnswer:
    """Change an identity provider. Nobody signs in with a disabled one; sessions that it opened go on."""
    changed = await parts.identity_providers.update(access, provider_id, body.changes(), origin)
    return IdentityProviderAnswer.model_validate(changed)


@sign_in_router.get("/sign-in-providers", openapi_extra=public("whoever asks is about to sign in"))
async def list_sign_in_providers(parts: PartsOf) -> SignInProvidersAnswer:
    """What may be chosen instead of a password."""
    rows = await parts.identity_providers.list_enabled()
    return SignInProvidersAnswer(data=[SignInProviderAnswer(id=row.id, name=row.name) for row in rows])


@sign_in_router.post("/sign-in-providers/{provider_id}/begin", openapi_extra=public("whoever asks is about to sign in"))
async def begin_oidc_session(
    provider_id: UUID, parts: PartsOf, request: Request, response: Response
) -> DepartureAnswer:
    """Begin to sign in with an identity provider. The cookie that comes along must come back."""
    refuse_foreign_page(request)
    departure = await parts.oidc_sign_ins.begin(provider_id)
    set_passing_cookie(response, COOKIE, departure.browser_secret, lifetime_s=int(LIFETIME.total_seconds()))
    return DepartureAnswer(authorization_url=departure.authorization_url)


@sign_in_router.post("/sessions/oidc", status_code=201, openapi_extra=public("the provider's code is the proof"))
async def create_oidc_session(
    body: Arrival, parts: PartsOf, origin: OriginOf, request: Request, response: Response
) -> SignedInAnswer:
    """Sign in with what the browser came back with."""
    refuse_foreign_page(request)
    signed = await parts.oidc_sign_ins.complete(
        body.state.get_secret_value(),
        body.code.get_secret_value(),
        browser_secret=request.cookies.get(COOKIE),
        response_issuer=body.iss,
        origin=origin,
    )
    delete_passing_cookie(response, COOKIE)
    return hand_over(signed, body.transport, request, response)
