"""Questions to analytics: what the usage records that it has stored add up to."""

from datetime import datetime
from typing import Any
from uuid import UUID

import httpx

from ias.billing.store.book_sums import Figures, Hour
from ias.contracts.ids import request_id_of
from ias.kit.tokens import ServiceTokens

_NAMES = {
    "requests": "requests",
    "input_tokens": "input_tokens",
    "cached_input_tokens": "cached_input_tokens",
    "output_tokens": "output_tokens",
    "cost_nano_usd": "settled_nano_usd",
}


class AnalyticsClient:
    """Asks `/internal/analytics`. Raises `httpx.HTTPError` when analytics, or identity for the token, is away or refuses."""

    def __init__(self, http: httpx.AsyncClient, tokens: ServiceTokens, base_url: str) -> None:
        self._http = http
        self._tokens = tokens
        self._base_url = base_url.rstrip("/")

    async def sum_hours(self, start: datetime, end: datetime) -> tuple[dict[Hour, Figures], dict[Hour, Figures]]:
        """Every org's hours, by the records and by their rollups."""
        answer = await self._get("hour-sums", {"start": start.isoformat(), "end": end.isoformat()})
        records, rollups = (
            {
                (UUID(one["org_id"]), datetime.fromisoformat(one["hour"])): {
                    ours: int(one[theirs]) for theirs, ours in _NAMES.items()
                }
                for one in answer[kind]
            }
            for kind in ("records", "rollups")
        )
        return records, rollups

    async def list_requests(self, org_id: UUID, start: datetime, end: datetime) -> set[str]:
        """The requests of an org that have a record."""
        told = {"org_id": str(org_id), "start": start.isoformat(), "end": end.isoformat()}
        answer = await self._get("record-ids", told)
        return {request_id_of(UUID(one)) for one in answer["ids"]}

    async def _get(self, name: str, parameters: dict[str, str]) -> Any:
        token = await self._tokens.get("analytics")
        answer = await self._http.get(
            f"{self._base_url}/internal/analytics/{name}",
            params=parameters,
            headers={"authorization": f"Bearer {token}"},
        )
        answer.raise_for_status()
        return answer.json()
