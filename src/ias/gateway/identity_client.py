"""Questions to identity, for keys that Redis does not know. Off the data path: a plain HTTP client will do."""

import httpx
import msgspec

from ias.contracts.api_keys import KeyRecord, TenantRecord
from ias.kit.tokens import ServiceTokens


class ResolvedKey(msgspec.Struct, frozen=True):
    """Identity's answer about a key."""

    key: KeyRecord | None = None
    org: TenantRecord | None = None
    project: TenantRecord | None = None


class IdentityAwayError(ConnectionError):
    """Identity did not answer, or not with an answer."""


class IdentityClient:
    """Asks identity who a key belongs to."""

    def __init__(self, base_url: str, *, client_secret: str, timeout_s: float) -> None:
        self._base_url = base_url.rstrip("/")
        self._client = httpx.AsyncClient(timeout=timeout_s)
        self._tokens = ServiceTokens(self._client, self._base_url, client_id="gateway", client_secret=client_secret)

    async def resolve(self, digest: str) -> ResolvedKey:
        """The key with this digest (hexadecimal), its org and project; all None when it does not exist.

        Raises:
            IdentityAwayError: see there.
        """
        try:
            token = await self._tokens.get("identity")
            answer = await self._client.post(
                f"{self._base_url}/internal/api-keys/resolve",
                json={"digest": digest},
                headers={"authorization": f"Bearer {token}"},
            )
            answer.raise_for_status()
            return msgspec.json.decode(answer.content, type=ResolvedKey)
        except (httpx.HTTPError, msgspec.MsgspecError, KeyError, ValueError) as error:
            raise IdentityAwayError(str(error) or type(error).__name__) from error

    async def close(self) -> None:
        """Disconnect."""
        await self._client.aclose()
