"""Questions to identity, for keys that Redis does not know. Off the data path: a plain HTTP client will do."""

import time
from typing import Any

import httpx
import msgspec

from ias.gateway.snapshots import ResolvedKey

_TOKEN_MARGIN_S = 30.0


class IdentityAwayError(ConnectionError):
    """Identity did not answer, or not with an answer."""


class _Token(msgspec.Struct):
    access_token: str
    expires_at: Any


class IdentityClient:
    """Asks identity who a key belongs to, with a service token that it renews."""

    def __init__(self, base_url: str, *, client_secret: str, timeout_s: float) -> None:
        self._client = httpx.AsyncClient(base_url=base_url.rstrip("/"), timeout=timeout_s)
        self._client_secret = client_secret
        self._token: str | None = None
        self._token_until = 0.0

    async def resolve(self, digest: str) -> ResolvedKey:
        """The key with this digest (hexadecimal), its org and project; all None when it does not exist.

        Raises:
            IdentityAwayError: see there.
        """
        try:
            answer = await self._ask(digest)
            if answer.status_code == httpx.codes.UNAUTHORIZED:  # the token was withdrawn early
                self._token = None
                answer = await self._ask(digest)
            if answer.status_code == httpx.codes.NOT_FOUND:
                return ResolvedKey()
            answer.raise_for_status()
            return msgspec.json.decode(answer.content, type=ResolvedKey)
        except (httpx.HTTPError, msgspec.MsgspecError) as error:
            raise IdentityAwayError(str(error) or type(error).__name__) from error

    async def _ask(self, digest: str) -> httpx.Response:
        token = await self._get_token()
        return await self._client.post(
            "/internal/api-keys/resolve", json={"digest": digest}, headers={"authorization": f"Bearer {token}"}
        )

    async def _get_token(self) -> str:
        if self._token is not None and time.monotonic() < self._token_until:
            return self._token
        answer = await self._client.post(
            "/internal/service-tokens",
            json={"client_id": "gateway", "client_secret": self._client_secret, "audience": "identity"},
        )
        answer.raise_for_status()
        token = msgspec.json.decode(answer.content, type=_Token)
        lifetime_s = (float(token.expires_at) - time.time()) if isinstance(token.expires_at, int | float) else 60.0
        self._token = token.access_token
        self._token_until = time.monotonic() + max(0.0, lifetime_s - _TOKEN_MARGIN_S)
        return token.access_token

    async def close(self) -> None:
        """Disconnect."""
        await self._client.aclose()
