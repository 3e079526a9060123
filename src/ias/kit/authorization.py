"""The one dependency that guards every management route.

A route says what it needs in its signature:

    async def create_budget(access: Annotated[Access, requires(Permission.BUDGETS_WRITE)], ...)

The permission becomes the operation's `security` in the OpenAPI document, which is where the law tests find it. The dependency
refuses a caller without a token (401) and one who holds the permission nowhere (403). `access.in_org(org_id)` then gives the
`OrgScope` that `core` and `store` ask for: there is no other way to make one, so no query can forget the tenant.
"""

from dataclasses import dataclass
from typing import Any

from fastapi import Request, Security
from fastapi.security import HTTPBearer, SecurityScopes

from ias.contracts.permissions import ROLE_PERMISSIONS, Permission
from ias.kit.problems import ForbiddenError, NotFoundError, UnauthenticatedError
from ias.kit.tokens import Claims, TokenVerifier

BEARER = HTTPBearer(
    auto_error=False, scheme_name="bearer", description="An access token from `POST /identity/v1/sessions`."
)


@dataclass(frozen=True, slots=True)
class OrgScope:
    """Proof that the caller may act in an org (or in one of its projects only)."""

    org_id: str
    project_id: str | None
    """Set when the permission is held in this project alone."""
    actor: Claims


@dataclass(frozen=True, slots=True)
class Access:
    """A caller who holds the route's permission somewhere."""

    actor: Claims
    permission: Permission

    def in_org(self, org_id: str) -> OrgScope:
        """The scope of an org.

        Raises:
            NotFoundError: the caller has nothing to do with the org; it might as well not exist.
            ForbiddenError: the caller belongs to the org, but lacks the permission.
        """
        return self._scope(org_id, None)

    def in_project(self, org_id: str, project_id: str) -> OrgScope:
        """The scope of a project: by a role in the org, or by one in the project. Raises as `in_org` does."""
        return self._scope(org_id, project_id)

    def on_platform(self) -> Claims:
        """The caller, who is a platform admin.

        Raises:
            ForbiddenError: they are not.
        """
        if not self.actor.platform_admin:
            raise ForbiddenError(f"This needs `{self.permission}` on the platform.")
        return self.actor

    @property
    def org_ids(self) -> frozenset[str] | None:
        """The orgs in which the caller holds the permission org-wide; None for all of them."""
        if self.actor.platform_admin:
            return None
        return frozenset(
            org_id
            for org_id, project_id, role in self.actor.grants
            if project_id is None and self.permission in ROLE_PERMISSIONS[role]
        )

    def _scope(self, org_id: str, project_id: str | None) -> OrgScope:
        if self.actor.platform_admin:
            return OrgScope(org_id, None, self.actor)
        grants = [grant for grant in self.actor.grants if grant[0] == org_id]
        if not grants:
            raise NotFoundError
        for _, granted_project, role in grants:
            if granted_project in (None, project_id) and self.permission in ROLE_PERMISSIONS[role]:
                return OrgScope(org_id, granted_project, self.actor)
        raise ForbiddenError(f"This needs `{self.permission}`, which your role does not hold here.")


def requires(permission: Permission) -> Any:
    """The dependency for a route that needs a permission; gives `Access`."""
    return Security(authorize, scopes=[permission.value])


def public(reason: str) -> dict[str, Any]:
    """`openapi_extra` of a route that needs no token, with the reason why."""
    return {"x-ias-public": reason}


def internal(audience: str) -> Any:
    """The dependency for an `/internal` route: a service token for this service; gives the calling service's `Claims`."""
    return Security(authorize_service, scopes=[f"internal:{audience}"])


def holds(actor: Claims, permission: Permission) -> bool:
    """Whether the permission is held anywhere at all."""
    return actor.platform_admin or any(permission in ROLE_PERMISSIONS[role] for _, _, role in actor.grants)


async def authorize(request: Request, scopes: SecurityScopes, _: Any = Security(BEARER)) -> Access:
    """See `requires`."""
    verifier: TokenVerifier = request.app.state.verifier
    actor = await verifier.verify(_bearer(request))
    if actor.kind != "user":
        raise ForbiddenError("A service token opens no management route.")
    permission = Permission(scopes.scopes[0])
    if not holds(actor, permission):
        raise ForbiddenError(f"This needs `{permission}`, which your role does not hold.")
    return Access(actor, permission)


async def authorize_service(request: Request, _: Any = Security(BEARER)) -> Claims:
    """See `internal`."""
    verifier: TokenVerifier = request.app.state.service_verifier
    actor = await verifier.verify(_bearer(request))
    if actor.kind != "service":
        raise ForbiddenError("This route is for services of the platform.")
    return actor


def _bearer(request: Request) -> str:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise UnauthenticatedError
    return token.strip()
