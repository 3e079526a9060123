"""Rate limits of the management APIs: how often an address, and a caller, may ask. Shared by all processes, in Redis.

Each limit is a GCRA: the whole quota may be used at once, and comes back evenly over its window. Redis keeps one number per
limit and caller. While Redis is away each process counts for itself: the APIs stay usable, and every process stays bounded.

Headers are those of the IETF's draft (draft-ietf-httpapi-ratelimit-headers-10): `RateLimit-Policy` names each limit that applies
with its quota and window, `RateLimit` what remains of it and after how many seconds all of it is back.
"""

import math
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address, ip_network

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from ias.kit.problems import TooManyRequestsError
from ias.kit.settings import ServiceSettings

log = structlog.get_logger("ias.request_limits")

WINDOW_S = 60
_KEY_PREFIX = "ias:management-rate:"
_AWAY_FOR_S = 1.0
"""How long Redis is not asked again after it did not answer: a dead Redis must not cost every request its deadline."""
_OWN_CALLERS_MAX = 10_000

# The key holds the moment at which the whole quota is back. A request moves it on by its share of the window.
_TAKE = """
local now = redis.call('TIME')
now = now[1] + now[2] / 1000000
local share, window = tonumber(ARGV[1]), tonumber(ARGV[2])
local full_at = math.max(tonumber(redis.call('GET', KEYS[1]) or '0'), now)
if full_at + share - now > window + 0.0005 then return {0, tostring(full_at - now)} end
full_at = full_at + share
redis.call('SET', KEYS[1], string.format('%.6f', full_at), 'PX', math.ceil((full_at - now) * 1000) + 1)
return {1, tostring(full_at - now)}
"""


@dataclass(frozen=True, slots=True)
class Limit:
    """So many requests a minute, under a name that callers see."""

    name: str
    requests: int


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a caller stands with a limit after a request."""

    limit: Limit
    allowed: bool
    full_after_s: float
    """After how long the whole quota is back."""

    @property
    def remaining(self) -> int:
        """Requests that may follow at once."""
        return max(0, math.floor((WINDOW_S - self.full_after_s) * self.limit.requests / WINDOW_S + 0.01))

    @property
    def retry_after_s(self) -> int:
        """Whole seconds until another request is allowed."""
        return max(1, math.ceil(self.full_after_s + WINDOW_S / self.limit.requests - WINDOW_S))


class RequestLimits:
    """The limits of one service."""

    def __init__(self, redis: Redis, settings: ServiceSettings) -> None:
        self._redis = redis
        self._take = redis.register_script(_TAKE)
        self._own: OrderedDict[str, float] = OrderedDict()
        self._away_until = 0.0
        self.address = Limit("address", settings.rate_limit_address_per_minute)
        self.credentials = Limit("credentials", settings.rate_limit_credentials_per_minute)
        self.reads = Limit("reads", settings.rate_limit_reads_per_minute)
        self.writes = Limit("writes", settings.rate_limit_writes_per_minute)

    async def take(self, limit: Limit, who: str, seen: list[Standing]) -> None:
        """Count a request of somebody against a limit; where they stand now is added to `seen`.

        Raises:
            TooManyRequestsError: the quota is used up.
        """
        if limit.requests == 0:
            return
        standing = await self._count(limit, f"{_KEY_PREFIX}{limit.name}:{who}")
        seen.append(standing)
        if not standing.allowed:
            raise TooManyRequestsError(
                f"More than {limit.requests} requests a minute ({limit.name}). Wait {standing.retry_after_s} s.",
                headers={"Retry-After": str(standing.retry_after_s)},
            )

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()

    async def _count(self, limit: Limit, key: str) -> Standing:
        share_s = WINDOW_S / limit.requests
        if time.monotonic() >= self._away_until:
            try:
                allowed, full_after_s = await self._take(keys=[key], args=[share_s, WINDOW_S])
                return Standing(limit, bool(allowed), float(full_after_s))
            except (RedisError, OSError) as error:
                self._away_until = time.monotonic() + _AWAY_FOR_S
                log.warning("rate limits are counted by this process alone", error=type(error).__name__)
        return self._count_alone(limit, key, share_s)

    def _count_alone(self, limit: Limit, key: str, share_s: float) -> Standing:
        now = time.monotonic()
        full_at = max(self._own.pop(key, 0.0), now)
        allowed = full_at + share_s - now <= WINDOW_S
        if allowed:
            full_at += share_s
        self._own[key] = full_at
        if len(self._own) > _OWN_CALLERS_MAX:
            self._own.popitem(last=False)
        return Standing(limit, allowed, full_at - now)


def name_address(address: str) -> str:
    """Who an address is, to a limit: an IPv6 caller has a whole /64."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return "unknown"
    if isinstance(parsed, IPv6Address):
        parsed = parsed.ipv4_mapped or parsed
    return str(ip_network((parsed, 64), strict=False)) if isinstance(parsed, IPv6Address) else str(parsed)


def render_headers(standings: Sequence[Standing]) -> list[tuple[bytes, bytes]]:
    """The headers that tell a caller where they stand."""
    if not standings:
        return []
    policies = ", ".join(f'"{one.limit.name}";q={one.limit.requests};w={WINDOW_S}' for one in standings)
    left = ", ".join(f'"{one.limit.name}";r={one.remaining};t={math.ceil(one.full_after_s)}' for one in standings)
    return [(b"ratelimit-policy", policies.encode()), (b"ratelimit", left.encode())]
