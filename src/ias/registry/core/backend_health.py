"""What the API tells of a backend's health: what the prober published last, and how it came to that."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast
from uuid import UUID

import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError

from ias.contracts import redis_keys
from ias.contracts.backend_states import STALE_AFTER_S, BackendState, BackendStates
from ias.kit.database import Database
from ias.kit.problems import NotFoundError
from ias.registry.store.backend_transitions import BackendTransition, list_transitions
from ias.registry.store.backends import find_backend


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendHealth:
    """One backend's state, and its last transitions, newest first."""

    backend_id: UUID
    state: BackendState
    history: list[BackendTransition]


class BackendHealths:
    """Reads what the prober, in whichever process it is, has found."""

    def __init__(self, database: Database, redis: "Redis") -> None:
        self._database = database
        self._redis = redis

    async def get_backend_health(self, backend_id: UUID) -> BackendHealth:
        """The health of a backend; `unknown` when no prober tells. Raises NotFoundError."""
        async with self._database.transaction() as connection:
            if await find_backend(connection, backend_id) is None:
                raise NotFoundError
            history = await list_transitions(connection, backend_id)
        (state,) = await self.find_states([str(backend_id)])
        return BackendHealth(backend_id=backend_id, state=state, history=history)

    async def find_states(self, ids: Sequence[str]) -> list[BackendState]:
        """The states of backends and adapters; `unknown` when no prober tells."""
        try:
            document = cast("bytes | None", await self._redis.get(redis_keys.BACKEND_STATES))
            states = msgspec.json.decode(document or b"", type=BackendStates)
        except (RedisError, OSError):
            return [_unknown("Redis, through which the prober tells, does not answer")] * len(ids)
        except msgspec.MsgspecError:
            return [_unknown("no prober has told anything yet")] * len(ids)
        if time.time() - states.written_at > STALE_AFTER_S:
            return [_unknown("no prober is at work")] * len(ids)
        missing = _unknown("it is not in the route table, or was not for long")
        return [states.states.get(backend_id, missing) for backend_id in ids]


def _unknown(reason: str) -> BackendState:
    return BackendState(health="unknown", reason=reason, since=int(time.time()))
