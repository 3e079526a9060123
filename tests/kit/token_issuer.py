"""Signs access tokens as identity does, with a key of the test's own."""

import time
from typing import Any
from uuid import uuid4

from joserfc import jwt
from joserfc.jwk import OKPKey

from ias.contracts.permissions import Role
from ias.kit.tokens import ALGORITHM, ISSUER, MANAGEMENT_AUDIENCE, ServiceTokens


class TokenIssuer:
    """One Ed25519 key, its JWKS, and tokens signed with it."""

    def __init__(self, kid: str = "test") -> None:
        self.key = OKPKey.generate_key("Ed25519", parameters={"kid": kid})

    async def fetch_jwks(self) -> dict[str, Any]:
        return {"keys": [self.key.as_dict(private=False)]}

    def sign(self, **claims: Any) -> str:
        """A valid token of a user without grants; `claims` replace or add."""
        whole = {
            "iss": ISSUER,
            "aud": MANAGEMENT_AUDIENCE,
            "sub": str(uuid4()),
            "kind": "user",
            "jti": uuid4().hex,
            "exp": int(time.time()) + 300,
            "platform_admin": False,
            "grants": [],
        } | claims
        return jwt.encode({"alg": ALGORITHM, "kid": self.key.kid}, whole, self.key, algorithms=[ALGORITHM])

    def platform_admin(self) -> dict[str, str]:
        """The headers of a platform admin."""
        return bearer(self.sign(platform_admin=True))

    def member(self, org_id: str, role: Role, project_id: str | None = None) -> dict[str, str]:
        """The headers of a user with one role."""
        return bearer(self.sign(grants=[[org_id, project_id, role.value]]))


class SignedTokens(ServiceTokens):
    """A service's own tokens, as identity signs them; for another audience than asked where a test says so."""

    def __init__(self, issuer: TokenIssuer, service: str, *, audience: str | None = None) -> None:
        self._issuer = issuer
        self._service = service
        self._audience = audience

    async def get(self, audience: str) -> str:
        return self._issuer.sign(aud=self._audience or audience, kind="service", sub=self._service)


def bearer(token: str) -> dict[str, str]:
    """The headers that carry a token."""
    return {"Authorization": f"Bearer {token}"}
