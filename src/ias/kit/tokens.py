"""Access tokens: EdDSA JWTs (alg `Ed25519`) that identity issues and every service verifies offline (RFC 7519, RFC 9864).

A token says who is asking (`sub`, `kind`), and what they hold: `grants`, a list of `[org_id, project_id or null, role]`, and
`platform_admin`. A role is a built-in one's name, or the id of one of the org's own, whose permissions the token carries. Tokens
live minutes; `session_id` and `token_version` let `kit.revocations` end one sooner.
"""

import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Literal, Self

import httpx
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from ias.contracts.permissions import PLATFORM_PERMISSIONS, ROLE_PERMISSIONS, Permission
from ias.kit.problems import UnauthenticatedError, UnavailableError

if TYPE_CHECKING:  # the gateway, which needs service tokens alone, does without redis-py
    from ias.kit.revocations import Revocations

ISSUER = "ias"
MANAGEMENT_AUDIENCE = "ias-management"
ALGORITHM = "Ed25519"
"""The fully specified name of what was called `EdDSA` (RFC 9864)."""

CLOCK_SKEW_S = 5
"""How far the clocks of two machines may be apart before a fresh token looks like one from the future."""

_BUILT_IN: dict[str, frozenset[Permission]] = {role.value: held for role, held in ROLE_PERMISSIONS.items()}

FetchJwks = Callable[[], Awaitable[dict[str, Any]]]


class Claims(BaseModel):
    """What a verified token says."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    sub: str
    kind: Literal["user", "service"]
    aud: str
    exp: int
    jti: str
    session_id: str | None = None
    token_version: int = 0
    """Which state of what the user holds the token shows; grows when something is taken from them."""
    platform_admin: bool = False
    grants: tuple[tuple[str, str | None, str], ...] = ()
    custom_roles: dict[str, tuple[str, ...]] = {}
    """The permissions of the orgs' own roles among the grants, by role id."""

    @model_validator(mode="after")
    def _know_every_role(self) -> Self:
        for _, _, role in self.grants:
            if role not in _BUILT_IN and role not in self.custom_roles:
                raise ValueError(f"{role!r} is no role")
        return self

    def allows(self, role: str, permission: Permission) -> bool:
        """Whether a role among the grants holds a permission. No role of an org's own holds one of the platform's."""
        built_in = _BUILT_IN.get(role)
        if built_in is not None:
            return permission in built_in
        return permission in self.custom_roles.get(role, ()) and permission not in PLATFORM_PERMISSIONS


class TokenVerifier:
    """Verifies tokens for one audience with the key set that identity publishes."""

    def __init__(
        self,
        fetch_jwks: FetchJwks,
        *,
        audience: str,
        revocations: "Revocations | None" = None,
        refetch_after_s: float = 5.0,
    ) -> None:
        """`revocations` None believes a token until it expires: right for service tokens, which cannot be revoked."""
        self._fetch_jwks = fetch_jwks
        self._revocations = revocations
        self._audience = audience
        self._refetch_after_s = refetch_after_s
        self._keys: KeySet | None = None
        self._asked_at = -refetch_after_s
        self._claims = jwt.JWTClaimsRegistry(
            leeway=CLOCK_SKEW_S,
            iss={"essential": True, "value": ISSUER},
            aud={"essential": True, "value": audience},
            exp={"essential": True},
        )

    async def verify(self, token: str) -> Claims:
        """The claims of a valid token.

        Raises:
            UnauthenticatedError: malformed, expired, for another audience, signed by a key that identity does not publish, or
                revoked.
            UnavailableError: identity's keys were never seen and cannot be had now.
        """
        claims = self._try(token, await self._key_set())
        if claims is None and time.monotonic() - self._asked_at >= self._refetch_after_s:
            # The key may be newer than the set we hold: look once more, but not more often than every few seconds.
            claims = self._try(token, await self._key_set(refetch=True))
        if claims is None:
            raise UnauthenticatedError("The token is not valid, or has expired.")
        if self._revocations and claims.session_id and await self._is_revoked(self._revocations, claims):
            raise UnauthenticatedError(
                "The session has ended, or what its user may do has changed: refresh it, or sign in again.",
                code="token_revoked",
            )
        return claims

    async def recognise(self, token: str) -> Claims | None:
        """Who a refused token was issued to, if it was issued at all: for the record, never for access."""
        try:
            decoded = jwt.decode(token, await self._key_set(), algorithms=[ALGORITHM])
            return Claims.model_validate(decoded.claims)
        except (JoseError, ValidationError, ValueError, UnavailableError):
            return None

    async def _is_revoked(self, revocations: "Revocations", claims: Claims) -> bool:
        return await revocations.is_revoked(claims.sub, claims.session_id or "", claims.token_version)

    def _try(self, token: str, keys: KeySet) -> Claims | None:
        try:
            decoded = jwt.decode(token, keys, algorithms=[ALGORITHM])
            self._claims.validate(decoded.claims)
            return Claims.model_validate(decoded.claims)
        except (JoseError, ValidationError, ValueError):
            return None

    async def _key_set(self, *, refetch: bool = False) -> KeySet:
        if self._keys is None or refetch:
            self._asked_at = time.monotonic()
            try:
                document = await self._fetch_jwks()
                self._keys = KeySet.import_key_set(document)  # type: ignore[arg-type]  # a JWKS document is a plain dict
            except (httpx.HTTPError, JoseError, ValueError, KeyError, TypeError) as error:  # the last four: no key set
                if self._keys is None:
                    raise UnavailableError("The keys that verify tokens cannot be had from identity.") from error
        return self._keys


def jwks_over_http(client: httpx.AsyncClient, identity_url: str) -> FetchJwks:
    """Fetch identity's JWKS from where it publishes it."""

    async def fetch() -> dict[str, Any]:
        answer = await client.get(f"{identity_url}/identity/v1/.well-known/jwks.json")
        answer.raise_for_status()
        document: dict[str, Any] = answer.json()
        return document

    return fetch


class ServiceTokens:
    """This process's own token for another service's `/internal` routes, by client credentials, renewed before it expires."""

    def __init__(self, client: httpx.AsyncClient, identity_url: str, *, client_id: str, client_secret: str) -> None:
        self._client = client
        self._url = f"{identity_url}/internal/service-tokens"
        self._client_id = client_id
        self._client_secret = client_secret
        self._tokens: dict[str, tuple[str, float]] = {}

    async def get(self, audience: str) -> str:
        """A token for a service's name. Raises `httpx.HTTPError` when identity is away or refuses."""
        token, renew_at = self._tokens.get(audience, ("", 0.0))
        if time.time() < renew_at:
            return token
        answer = await self._client.post(
            self._url,
            json={"client_id": self._client_id, "client_secret": self._client_secret, "audience": audience},
        )
        answer.raise_for_status()
        body = answer.json()
        token = str(body["access_token"])
        self._tokens[audience] = (token, body["expires_at_unix"] - 30)
        return token
