"""Which access tokens are no longer good, although their time has not come.

Identity tells Redis of each session that ended and of each user who lost something; every service asks before it believes a
token, and remembers the answer for a second. Both entries live as long as a token can, so there are never many.

While Redis is away a token is believed: it lives minutes, and management must be possible when a part of the platform is not
(`docs/decisions/0010-sign-in.md`).
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog
from redis.exceptions import RedisError

from ias.contracts import redis_keys

if TYPE_CHECKING:
    from redis.asyncio import Redis

log = structlog.get_logger("ias.kit.revocations")

REMEMBERED_S = 1.0
"""How long a service may go by what it was told before: the longest that a revoked token is still believed."""
_REMEMBERED_MAX = 20_000

_SET_IF_GREATER = """
local stored = tonumber(redis.call('GET', KEYS[1]))
if stored and stored > tonumber(ARGV[1]) then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
return 1
"""


@dataclass(frozen=True, slots=True)
class _Known:
    until: float
    session_ended: bool
    token_version_min: int


class Revocations:
    """Asks Redis, and remembers for a moment. `tell` is identity's."""

    def __init__(self, redis: "Redis", *, remembered_s: float = REMEMBERED_S) -> None:
        self._redis = redis
        self._set_if_greater = redis.register_script(_SET_IF_GREATER)
        self._remembered_s = remembered_s
        self._known: dict[tuple[str, str], _Known] = {}
        self._away_until = 0.0

    async def is_revoked(self, user_id: str, session_id: str, token_version: int) -> bool:
        """Whether a token of this user, session and version must not be believed any more."""
        known = self._known.get((user_id, session_id))
        if known is None or known.until < time.monotonic():
            known = await self._ask(user_id, session_id)
        return known.session_ended or token_version < known.token_version_min

    async def tell(
        self, session_ids: Sequence[str], token_versions: Mapping[str, int], *, token_lifetime_s: int
    ) -> None:
        """Let the tokens of these sessions be refused, and those of these users that are older than the version given.

        Raises:
            RedisError: Redis was not told, or not of everything.
        """
        self._known.clear()
        async with self._redis.pipeline(transaction=False) as pipeline:
            for session_id in session_ids:
                pipeline.set(redis_keys.ended_session(session_id), b"1", ex=token_lifetime_s)
            for user_id, version in token_versions.items():
                key = redis_keys.token_version(user_id)
                await self._set_if_greater(keys=[key], args=[version, token_lifetime_s], client=pipeline)
            await pipeline.execute()

    async def _ask(self, user_id: str, session_id: str) -> _Known:
        now = time.monotonic()
        if now < self._away_until:
            return _Known(now, session_ended=False, token_version_min=0)
        try:
            async with self._redis.pipeline(transaction=False) as pipeline:
                pipeline.get(redis_keys.ended_session(session_id))
                pipeline.get(redis_keys.token_version(user_id))
                ended, version = await pipeline.execute()
        except (RedisError, OSError) as error:
            log.warning("tokens are believed without asking whether they were revoked", error=type(error).__name__)
            self._away_until = time.monotonic() + self._remembered_s
            return _Known(now, session_ended=False, token_version_min=0)
        if len(self._known) >= _REMEMBERED_MAX:
            self._known.clear()
        known = _Known(now + self._remembered_s, ended is not None, int(version or 0))
        self._known[user_id, session_id] = known
        return known
