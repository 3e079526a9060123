"""Access tokens: short-lived JWTs that other services verify without asking (see `ias.kit.tokens`)."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import structlog
from joserfc import jwt
from sqlalchemy.ext.asyncio import AsyncConnection

from ias.contracts.ids import uuid7
from ias.identity.core.grants import HeldRole
from ias.identity.core.signing_keys import SigningKeys
from ias.identity.store.users import User
from ias.kit.tokens import ALGORITHM, ISSUER, MANAGEMENT_AUDIENCE

log = structlog.get_logger("ias.identity.access_tokens")

GRANTS_BYTES_MAX = 16_000
"""Of the roles in a token, as JSON: services refuse headers over 32 KiB, and base 64 adds a third."""


@dataclass(frozen=True, slots=True)
class AccessToken:
    """A signed token and when it stops being valid."""

    text: str
    expires_at: datetime


class AccessTokens:
    """Issues tokens of one lifetime."""

    def __init__(self, signing_keys: SigningKeys, *, lifetime_s: int) -> None:
        self._signing_keys = signing_keys
        self._lifetime_s = lifetime_s

    async def issue_to_user(
        self, connection: AsyncConnection, user: User, session_id: UUID, roles: Sequence[HeldRole]
    ) -> AccessToken:
        """A token for the management APIs that says what the user holds now, as far as a request's header can."""
        told = fit_roles(roles)
        if len(told) < len(roles):
            log.warning(
                "a token does not say all that its user holds", user_id=str(user.id), left_out=len(roles) - len(told)
            )
        return await self._issue(
            connection,
            {
                "sub": str(user.id),
                "kind": "user",
                "aud": MANAGEMENT_AUDIENCE,
                "session_id": str(session_id),
                "token_version": user.token_version,
                "platform_admin": user.platform_admin,
                "grants": [(held.org_id, held.project_id, held.role) for held in told],
                "custom_roles": {held.role: sorted(held.permissions) for held in told if held.role != held.name},
            },
        )

    async def issue_to_service(self, connection: AsyncConnection, client_id: str, audience: str) -> AccessToken:
        """A token for the `/internal` routes of one service and nothing else."""
        return await self._issue(connection, {"sub": client_id, "kind": "service", "aud": audience})

    async def _issue(self, connection: AsyncConnection, claims: dict[str, Any]) -> AccessToken:
        key = await self._signing_keys.get_private_key(connection)
        now = int(datetime.now(UTC).timestamp())
        expires = now + self._lifetime_s
        claims = {**claims, "iss": ISSUER, "iat": now, "exp": expires, "jti": uuid7().hex}
        text = jwt.encode({"alg": ALGORITHM, "kid": key.kid}, claims, key, algorithms=[ALGORITHM])
        return AccessToken(text, datetime.fromtimestamp(expires, UTC))


def fit_roles(roles: Sequence[HeldRole]) -> list[HeldRole]:
    """Those of the roles that a token has room for: each org's first one before any org's second.

    So whoever gives somebody a thousand roles in one org takes nothing from them in another.
    """
    rank_in_org: Counter[str] = Counter()
    ranked = []
    for held in roles:
        ranked.append((rank_in_org[held.org_id], held))
        rank_in_org[held.org_id] += 1
    told, custom, room = [], set(), GRANTS_BYTES_MAX
    for _, held in sorted(ranked, key=lambda one: one[0]):
        size = len(json.dumps([held.org_id, held.project_id, held.role]))
        if held.role != held.name and held.role not in custom:
            size += len(json.dumps({held.role: sorted(held.permissions)}))
        if size > room:
            break
        room -= size
        custom.add(held.role)
        told.append(held)
    return told
