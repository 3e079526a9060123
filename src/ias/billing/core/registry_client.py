"""Questions to the registry: what engines themselves counted."""

from dataclasses import dataclass
from datetime import datetime

import httpx

from ias.kit.tokens import ServiceTokens


@dataclass(frozen=True, slots=True)
class EngineSum:
    """What a server's engine counted between two moments. What a restart took with it is not in it."""

    server: str
    served_ids: tuple[str, ...]
    """The backends and adapters at that server: who entries of the ledger say they were served by."""
    first_at: datetime
    last_at: datetime
    input_tokens: int
    output_tokens: int
    restarts: int


class RegistryClient:
    """Asks `/internal/registry`. Raises `httpx.HTTPError` when the registry, or identity for the token, is away or refuses."""

    def __init__(self, http: httpx.AsyncClient, tokens: ServiceTokens, base_url: str) -> None:
        self._http = http
        self._tokens = tokens
        self._base_url = base_url.rstrip("/")

    async def sum_engines(self, start: datetime, end: datetime) -> list[EngineSum]:
        """Of each server whose engine tells, between its first and its last reading in a period."""
        answer = await self._http.get(
            f"{self._base_url}/internal/registry/engine-tokens",
            params={"start": start.isoformat(), "end": end.isoformat()},
            headers={"authorization": f"Bearer {await self._tokens.get('registry')}"},
        )
        answer.raise_for_status()
        return [
            EngineSum(
                server=str(one["server"]),
                served_ids=tuple(one["served_ids"]),
                first_at=datetime.fromisoformat(one["first_at"]),
                last_at=datetime.fromisoformat(one["last_at"]),
                input_tokens=int(one["prompt_tokens"]),
                output_tokens=int(one["generation_tokens"]),
                restarts=int(one["restarts"]),
            )
            for one in answer.json()["engines"]
        ]
