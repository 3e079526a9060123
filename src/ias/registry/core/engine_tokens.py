"""What engines themselves counted: tokens in and out, since each was started. Read now and then, for the books to be held against.

The names are vLLM's (`vllm/v1/metrics/loggers.py`: counters `vllm:prompt_tokens` and `vllm:generation_tokens`, to which Prometheus'
client adds `_total`). A prompt counts whole, its cached part included, when its first token comes.
"""

from collections import defaultdict, deque
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from ias.kit.database import Database
from ias.registry.core.exposition import list_values
from ias.registry.core.server_urls import server_of
from ias.registry.store.engine_tokens import Served, TokenReading, TokenSum, list_served, sum_tokens

_PROMPT = "vllm:prompt_tokens_total"
_GENERATION = "vllm:generation_tokens_total"
_TOKENS_MAX = 2**53
_INTERVAL_S = 60.0
_READINGS_MAX = 10_000


@dataclass(frozen=True, slots=True)
class EngineTokens:
    """Counted since the engine was started; several engines behind one server are added up."""

    prompt: int
    generation: int

    def is_restarted_after(self, earlier: "EngineTokens") -> bool:
        """Whether the engine began to count anew in between."""
        return self.prompt < earlier.prompt or self.generation < earlier.generation


def read_engine_tokens(metrics: str) -> EngineTokens | None:
    """The counts in an exposition of Prometheus' text format; None where the engine does not tell both."""
    prompt, generation = list_values(metrics, _PROMPT), list_values(metrics, _GENERATION)
    if not prompt or not generation:
        return None
    return EngineTokens(*(int(min(sum(values), _TOKENS_MAX)) for values in (prompt, generation)))


@dataclass(frozen=True, slots=True)
class EngineSum:
    """What one server's engine counted between two readings, whichever backends and adapters it serves."""

    server: str
    served_ids: list[UUID]
    counted: TokenSum


class EngineTokenSums:
    """What engines counted, by server: backends and adapters of one server are counted together by its engine."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list_sums(self, start: datetime, end: datetime) -> list[EngineSum]:
        """Of each server whose engine tells, between its first and its last reading in a period."""
        async with self._database.transaction() as connection:
            sums = {one.backend_id: one for one in await sum_tokens(connection, start, end)}
            served = await list_served(connection)
        by_server: dict[str, list[Served]] = defaultdict(list)
        for one in served:
            by_server[server_of(one.url)].append(one)
        return [
            EngineSum(server, [one.id for one in some], max(told, key=lambda one: one.last_at - one.first_at))
            for server, some in sorted(by_server.items())
            if (told := [sums[one.id] for one in some if one.id in sums])
        ]


class TokenReadings:
    """What is to be kept of the scrapes: a reading of each backend a minute, and those before and after a restart."""

    def __init__(self) -> None:
        self.waiting: deque[TokenReading] = deque(maxlen=_READINGS_MAX)
        """What is not yet in PostgreSQL, oldest first; when that is away for very long, the oldest are lost."""
        self._last: dict[str, tuple[float, EngineTokens]] = {}
        self._kept_at: dict[str, float] = {}

    def take(self, backend_id: str, tokens: EngineTokens, now: float) -> None:
        """Take note of a scrape at a time in Unix seconds."""
        before_at, before = self._last.get(backend_id, (now, tokens))
        kept_at = self._kept_at.get(backend_id)
        self._last[backend_id] = now, tokens
        is_restarted = tokens.is_restarted_after(before)
        if is_restarted and kept_at != before_at:
            self._keep(backend_id, before, before_at)
        if is_restarted or kept_at is None or now - kept_at >= _INTERVAL_S:
            self._keep(backend_id, tokens, now)

    def forget(self, backend_id: str) -> None:
        """It is watched no more: its last reading is kept."""
        at, tokens = self._last.pop(backend_id, (0.0, None))
        if tokens is not None and self._kept_at.pop(backend_id, None) != at:
            self._keep(backend_id, tokens, at)

    def _keep(self, backend_id: str, tokens: EngineTokens, at: float) -> None:
        self._kept_at[backend_id] = at
        moment = datetime.fromtimestamp(at, UTC)
        self.waiting.append(TokenReading(UUID(backend_id), moment, tokens.prompt, tokens.generation))
