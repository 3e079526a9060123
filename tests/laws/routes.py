"""Every route of every management service, and what it asks of its caller."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from contracts.generate import build_app
from fastapi import FastAPI, routing
from joserfc import jwt
from joserfc.jwk import KeySet, OKPKey
from starlette.datastructures import State

from ias.contracts.permissions import Permission
from ias.kit import authorization
from ias.kit.tokens import ALGORITHM, ISSUER, MANAGEMENT_AUDIENCE, TokenVerifier

SOME_ID = "01900000-0000-7000-8000-000000000000"


@dataclass(frozen=True)
class Guarded:
    """One method on one path."""

    method: str
    path: str
    guards: tuple[str, ...]
    """The permissions, `signed-in` or `internal:…` it declares: exactly one, or none where public."""
    public_reason: str | None

    @property
    def url(self) -> str:
        """The path with some id in each place."""
        parts = [SOME_ID if part.startswith("{") else part for part in self.path.split("/")]
        return "/".join(parts)

    @property
    def permission(self) -> Permission | None:
        """The permission it needs."""
        return next((Permission(guard) for guard in self.guards if guard in set(Permission)), None)

    @property
    def is_internal(self) -> bool:
        """Whether it is for other services of the platform."""
        return any(guard.startswith("internal:") for guard in self.guards)

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


def list_routes(app: FastAPI) -> list[Guarded]:
    """All routes, those outside the OpenAPI document included; not the document itself."""
    found: list[Guarded] = []
    for context in routing.iter_route_contexts(app.routes):
        if context.path == app.openapi_url:
            continue
        extra = getattr(context, "openapi_extra", None) or {}
        guards = tuple(_guards(getattr(context, "dependant", None)))
        methods = sorted(set(context.methods or ()) - {"HEAD"})
        found += [Guarded(method, str(context.path), guards, extra.get("x-ias-public")) for method in methods]
    return found


def _guards(dependant: Any) -> Iterator[str]:
    known = {authorization.authorize, authorization.authenticate, authorization.authorize_service}
    for inner in dependant.dependencies if dependant else ():
        if inner.call in known:
            yield from inner.own_oauth_scopes or ()
        else:
            yield from _guards(inner)


class Issuer:
    """Signs tokens as identity would, with a key of its own."""

    def __init__(self) -> None:
        self._key = OKPKey.generate_key("Ed25519", {"kid": "law", "use": "sig", "alg": ALGORITHM})

    async def jwks(self) -> dict[str, Any]:
        return dict(KeySet([self._key]).as_dict(private=False))

    def token(self, audience: str, *, kind: str = "user", roles: tuple[str, ...] = ()) -> str:
        """A token that holds roles in one org."""
        claims = {
            "iss": ISSUER,
            "aud": audience,
            "sub": SOME_ID,
            "kind": kind,
            "exp": 4_102_444_800,
            "jti": SOME_ID,
            "session_id": SOME_ID,
            "grants": [[SOME_ID, None, role] for role in roles],
        }
        return jwt.encode({"alg": ALGORITHM, "kid": "law"}, claims, self._key, algorithms=[ALGORITHM])


def build_guarded_app(service: str, issuer: Issuer) -> FastAPI:
    """The service's app that trusts the issuer and has nothing behind its doors: whoever gets in gets a 500."""
    app = build_app(service)
    parts: defaultdict[str, Any] = defaultdict(object, app.state._state)
    parts["verifier"] = TokenVerifier(issuer.jwks, audience=MANAGEMENT_AUDIENCE)
    parts["service_verifier"] = TokenVerifier(issuer.jwks, audience=service)
    parts["tracing"] = None
    parts["denials"] = None
    app.state = State(parts)
    return app
