"""The one dependency that guards every management route.

A route says what it needs in its signature:

    async def create_budget(access: Annotated[Access, requires(Permission.BUDGETS_WRITE)], ...)

The permission becomes the operation's `security` in the OpenAPI document, which is where the law tests find it. The dependency
refuses a caller without a token (401) and one who holds the permission nowhere (403). `access.in_org(org_id)` then gives the
`OrgScope` that `core` and `store` ask for (both types live in `kit.access`, which knows no web framework): there is no other
way to make one, so no query can forget the tenant.
"""

from typing import Any

from fastapi import Request, Security
from fastapi.security import APIKeyCookie, HTTPBearer, SecurityScopes

from ias.contracts.permissions import Permission
from ias.kit.access import Access, OrgScope
from ias.kit.browser_sessions import ACCESS_COOKIE, CSRF_HEADER, find_access_token
from ias.kit.origins import origin_of
from ias.kit.problems import ForbiddenError, UnauthenticatedError
from ias.kit.row_security import narrow
from ias.kit.tokens import Claims, TokenVerifier

__all__ = ["Access", "OrgScope", "holds", "internal", "public", "requires", "signed_in"]

BEARER = HTTPBearer(
    auto_error=False, scheme_name="bearer", description="An access token from `POST /identity/v1/sessions`."
)
COOKIE = APIKeyCookie(
    auto_error=False,
    scheme_name="cookie",
    name=ACCESS_COOKIE,
    description=f"A browser's session. A request that changes something also needs the header `{CSRF_HEADER}: 1`.",
)

SIGNED_IN = "signed-in"
"""Stands in the OpenAPI document where a route needs a user and no permission."""


def requires(permission: Permission) -> Any:
    """The dependency for a route that needs a permission; gives `Access`."""
    return Security(authorize, scopes=[permission.value])


def signed_in() -> Any:
    """The dependency for a route about the caller alone (`/me`), which every signed-in user may call; gives their `Claims`."""
    return Security(authenticate, scopes=[SIGNED_IN])


def public(reason: str) -> dict[str, Any]:
    """`openapi_extra` of a route that needs no token, with the reason why."""
    return {"x-ias-public": reason}


def internal(audience: str) -> Any:
    """The dependency for an `/internal` route: a service token for this service; gives the calling service's `Claims`."""
    return Security(authorize_service, scopes=[f"internal:{audience}"])


def holds(actor: Claims, permission: Permission) -> bool:
    """Whether the permission is held anywhere at all."""
    return actor.platform_admin or any(actor.allows(role, permission) for _, _, role in actor.grants)


async def authorize(
    request: Request, scopes: SecurityScopes, _: Any = Security(BEARER), __: Any = Security(COOKIE)
) -> Access:
    """See `requires`."""
    actor = await authenticate(request, scopes)
    permission = Permission(scopes.scopes[0])
    if not holds(actor, permission):
        raise ForbiddenError(f"This needs `{permission}`, which your role does not hold.")
    if not actor.platform_admin:
        narrow(org_id for org_id, _, _ in actor.grants)
    return Access(actor, permission, origin_of(request))


async def authenticate(
    request: Request, scopes: SecurityScopes, _: Any = Security(BEARER), __: Any = Security(COOKIE)
) -> Claims:
    """See `signed_in`."""
    request.state.guard = scopes.scopes[0]
    return await identify(request)


async def identify(request: Request) -> Claims:
    """The user who asks. A request's token is verified once; `request.state.actor` is who it belongs to."""
    known: Claims | None = getattr(request.state, "actor", None)
    if known is not None:
        return known
    token = _bearer(request) if "authorization" in request.headers else find_access_token(request)
    if token is None:
        raise UnauthenticatedError
    actor = await _verify(request, request.app.state.verifier, token)
    if actor.kind != "user":
        raise ForbiddenError("A service token opens no management route.")
    request.state.actor = actor
    return actor


async def authorize_service(request: Request, scopes: SecurityScopes, _: Any = Security(BEARER)) -> Claims:
    """See `internal`."""
    request.state.guard = scopes.scopes[0]
    actor = await _verify(request, request.app.state.service_verifier, _bearer(request))
    if actor.kind != "service":
        raise ForbiddenError("This route is for services of the platform.")
    return actor


async def _verify(request: Request, verifier: TokenVerifier, token: str) -> Claims:
    """The token's claims. Who it names is kept with the request, for the record of a denial."""
    try:
        actor = await verifier.verify(token)
    except UnauthenticatedError:
        request.state.actor = await verifier.recognise(token)
        raise
    request.state.actor = actor
    return actor


def _bearer(request: Request) -> str:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise UnauthenticatedError
    return token.strip()
