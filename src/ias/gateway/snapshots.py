"""What the worker remembers of keys, tenants, budgets, rate limits, prices and routes, kept true by Redis' invalidation pushes.

Documents that every request needs (routes, prices, the counters' marker) are read as soon as they change. Those of one key
are read when a request first needs them, combined into a Principal, and dropped when any of them changes. A lost
connection drops everything, since a push may be lost with it; only the routes' last good copy stays.
"""

import asyncio
import ipaddress
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar
from zlib import crc32

import msgspec
import structlog

from ias.contracts import redis_keys
from ias.contracts.api_keys import KeyRecord, TenantRecord
from ias.contracts.backend_states import BackendStates
from ias.contracts.routes import RouteTable
from ias.contracts.spending import QUEUE_WEIGHT_USUAL, PriceTable, SpendingPolicy
from ias.gateway.admission_plan import AdmissionPlan
from ias.gateway.clock import Clock
from ias.gateway.identity_client import ResolvedKey
from ias.gateway.record_lines import RecordLines
from ias.gateway.redis_connection import RedisAwayError, RedisConnection, pack

log = structlog.get_logger("ias.gateway.snapshots")

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Document = TypeVar("Document", bound=msgspec.Struct)


AskIdentity = Callable[[str], Awaitable[ResolvedKey]]


class Principal:
    """Who is calling, with all that decides what the caller may do."""

    def __init__(self, key: KeyRecord, org: TenantRecord, project: TenantRecord, policy: SpendingPolicy | None) -> None:
        self.key = key
        self.org = org
        self.project = project
        self.prompt_salt = crc32(key.org_id.encode())
        """What names of prompts' beginnings start from."""
        self.models = _intersect(key.models, project.models, org.models)
        """Public names the caller may use; None is all."""
        self.networks = tuple(
            tuple(ipaddress.ip_network(network, strict=False) for network in networks)
            for networks in (key.ip_networks, org.ip_networks)
            if networks is not None
        )
        """An address must be within one network of each of these lists."""
        self.is_limited = key.scopes is not None or bool(self.networks)
        """Whether the key is good for some endpoints or addresses only."""
        self.expires_at = key.expires_at if key.expires_at is not None else float("inf")
        self.is_revoked = key.status == "revoked"
        self.is_usable = key.status == "active" and org.status == "active" and project.status == "active"
        self.record_lines: dict[tuple[str, str, str], RecordLines] = {}
        """What is written of requests, by model, endpoint and backend."""
        self.prices = policy.prices if policy is not None else {}
        """The org's own, by model."""
        self.unpriced = policy.unpriced if policy is not None else None
        self.unguarded_nano_usd = policy.unguarded_nano_usd if policy is not None else None
        """What may be let through while Redis is away; None is nothing."""
        self.queue_weight = policy.queue_weight if policy is not None else QUEUE_WEIGHT_USUAL
        """Of the org, where requests have to wait."""
        self._policy = policy
        self._plans: dict[str, AdmissionPlan] = {}

    def may_use(self, model: str) -> bool:
        """Whether the model is within the key's, the project's and the org's lists."""
        return self.models is None or model in self.models

    def org_may_use(self, *names: str) -> bool:
        """Whether the model is within the org's own list, under any of its names."""
        return self.org.models is None or not set(names).isdisjoint(self.org.models)

    def admission_plan(self, model: str, now: float) -> AdmissionPlan:
        """The budgets and rate limits that a request for the model is under, with the counters of its time (Unix seconds)."""
        plan = self._plans.get(model)
        if plan is None or now >= plan.valid_until:
            plan = self._plans[model] = AdmissionPlan.build(self._policy, self.key, model, now)
        elif now < plan.valid_from:  # its body took so long that a window began meanwhile
            return AdmissionPlan.build(self._policy, self.key, model, now)
        return plan


def _do_nothing() -> None:
    pass


def _hand_over(take: Callable[[Any], None], reply: Any) -> None:
    take(reply)


def _intersect(*lists: tuple[str, ...] | None) -> frozenset[str] | None:
    allowed: frozenset[str] | None = None
    for names in lists:
        if names is not None:
            allowed = frozenset(names) if allowed is None else allowed & frozenset(names)
    return allowed


class _Remembered:
    """A principal (None: the key is unknown) and when it was read."""

    __slots__ = ("fresh_until", "principal")

    def __init__(self, principal: Principal | None, fresh_until: float) -> None:
        self.principal = principal
        self.fresh_until = fresh_until


class Snapshots:
    """The worker's memory. `routes`, `prices` and `counters_ready` are always current as far as Redis has told."""

    def __init__(
        self, *, clock: Clock, ttl_s: float, unknown_ttl_s: float, keys_max: int, ask_identity: AskIdentity | None
    ) -> None:
        self._clock = clock
        self.routes: RouteTable | None = None
        self.backend_states: BackendStates | None = None
        self.on_routing: Callable[[], None] = _do_nothing
        """Called when routes or the backends' states have changed."""
        self.prices: PriceTable | None = None
        self.counters_ready = False
        self.last_prices: PriceTable | None = None
        """As they were when Redis was last there."""
        self._last_good: dict[bytes, Principal] = {}
        """Callers whose orgs let something through while Redis is away."""
        self.rejected_documents = 0
        self._ttl_s = ttl_s
        self._unknown_ttl_s = unknown_ttl_s
        self._keys_max = keys_max
        self._ask_identity = ask_identity
        self._redis: RedisConnection | None = None
        self._remembered: dict[bytes, _Remembered] = {}
        self._depends: dict[bytes, set[bytes]] = {}
        self._resolving: dict[bytes, asyncio.Task[Principal | None]] = {}
        self._generation = 0

    def attach(self, redis: RedisConnection) -> None:
        """The connection that documents are read from."""
        self._redis = redis

    # -------------------------------------------------------------- documents of all requests

    def refresh(self) -> None:
        """Read the documents that every request needs. Called when the connection is up."""
        self._last_good.clear()
        self._read(redis_keys.ROUTES, self._take_routes)
        self._read(redis_keys.BACKEND_STATES, self._take_backend_states)
        self._read(redis_keys.PRICES, self._take_prices)
        self._read(redis_keys.COUNTERS_READY, self._take_counters_ready)

    def _read(self, key: str, take: Callable[[Any], None]) -> None:
        if self._redis is None:
            return
        try:
            self._redis.call(pack("GET", key), _hand_over, take)
        except RedisAwayError:
            pass  # read again when the connection is back

    def _take_routes(self, reply: Any) -> None:
        self.routes = self._decode(reply, RouteTable) or self.routes
        self.on_routing()

    def _take_backend_states(self, reply: Any) -> None:
        self.backend_states = self._decode(reply, BackendStates) or self.backend_states
        self.on_routing()

    def _take_prices(self, reply: Any) -> None:
        self.prices = self._decode(reply, PriceTable)

    def _take_counters_ready(self, reply: Any) -> None:
        self.counters_ready = isinstance(reply, bytes)

    def _decode(self, reply: Any, kind: type[Document]) -> Document | None:
        if not isinstance(reply, bytes):
            return None
        try:
            return msgspec.json.decode(reply, type=kind)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            self.rejected_documents += 1
            log.error("document_rejected", kind=kind.__name__, error=str(error))  # noqa: TRY400 - the error says it all
            return None

    # -------------------------------------------------------------- keys

    def find_principal(self, digest: bytes) -> Principal | None:
        """The caller with this key digest (raw SHA-256), when remembered and fresh; None means: resolve it."""
        remembered = self._remembered.get(digest)
        if remembered is None or remembered.fresh_until < self._clock.monotonic:
            return None
        return remembered.principal

    def is_known_as_unknown(self, digest: bytes) -> bool:
        """Whether the key was asked for a moment ago and does not exist."""
        remembered = self._remembered.get(digest)
        return (
            remembered is not None and remembered.principal is None and remembered.fresh_until >= self._clock.monotonic
        )

    def resolve(self, digest: bytes) -> "asyncio.Task[Principal | None]":
        """Look a key up in Redis, then at identity; None for a key that does not exist.

        All who wait for one key share one look-up. The task raises RedisAwayError or IdentityAwayError when nobody can say.
        """
        task = self._resolving.get(digest)
        if task is None:
            task = asyncio.create_task(self._resolve(digest), name="resolve-key")
            self._resolving[digest] = task
            task.add_done_callback(partial(self._resolved, digest))
        return task

    def _resolved(self, digest: bytes, task: "asyncio.Task[Principal | None]") -> None:
        del self._resolving[digest]
        if not task.cancelled():
            task.exception()  # whoever waits for it may have left; it is nobody's fault then

    async def _resolve(self, digest: bytes) -> Principal | None:
        while True:
            generation = self._generation
            principal, dependencies = await self._load(digest)
            if generation == self._generation:  # nothing was invalidated while we read
                break
        if len(self._remembered) >= self._keys_max:
            self._remembered.pop(next(iter(self._remembered)))
        ttl_s = self._unknown_ttl_s if principal is None else self._ttl_s
        self._remembered[digest] = _Remembered(principal, self._clock.monotonic + ttl_s)
        for key in dependencies:
            self._depends.setdefault(key.encode(), set()).add(digest)
        return principal

    async def _load(self, digest: bytes) -> tuple[Principal | None, list[str]]:
        """The principal and the Redis keys it was made from."""
        key_name = redis_keys.api_key(digest.hex())
        dependencies = [key_name]
        key = await self._get(key_name, KeyRecord)
        org = project = None
        if key is not None:
            org = await self._get(redis_keys.org(key.org_id), TenantRecord)
            project = await self._get(redis_keys.project(key.project_id), TenantRecord)
        if (key is None or org is None or project is None) and self._ask_identity is not None:
            resolved = await self._ask_identity(digest.hex())
            key, org, project = resolved.key, resolved.org, resolved.project
        if key is None or org is None or project is None:
            return None, dependencies
        policy_name = redis_keys.spending_policy(key.org_id)
        policy = await self._get(policy_name, SpendingPolicy)
        dependencies += [redis_keys.org(key.org_id), redis_keys.project(key.project_id), policy_name]
        return Principal(key, org, project, policy), dependencies

    async def _get(self, key: str, kind: type[Document]) -> Document | None:
        """A document; None when there is none.

        Raises:
            RedisAwayError: nobody can say, which a document that cannot be read amounts to as well.
        """
        if self._redis is None:
            raise RedisAwayError("no connection to Redis yet")
        reply = await self._redis.execute("GET", key)
        document = self._decode(reply, kind)
        if reply is not None and document is None:
            raise RedisAwayError(f"the document under {key} cannot be read")
        return document

    # -------------------------------------------------------------- invalidation

    def invalidate(self, keys: list[bytes] | None) -> None:
        """Some documents changed (None: perhaps all)."""
        self._generation += 1
        if keys is None:
            self._forget_keys()
            self.prices, self.counters_ready = None, False
            self.refresh()
            return
        for key in keys:
            if key == redis_keys.ROUTES.encode():
                self._read(redis_keys.ROUTES, self._take_routes)
            elif key == redis_keys.BACKEND_STATES.encode():
                self._read(redis_keys.BACKEND_STATES, self._take_backend_states)
            elif key == redis_keys.PRICES.encode():
                self._read(redis_keys.PRICES, self._take_prices)
            elif key == redis_keys.COUNTERS_READY.encode():
                self._read(redis_keys.COUNTERS_READY, self._take_counters_ready)
            else:
                for digest in self._depends.pop(key, ()):
                    self._remembered.pop(digest, None)

    def forget(self) -> None:
        """The connection was lost, and pushes with it: only the routes are worth keeping."""
        self._generation += 1
        for digest, remembered in self._remembered.items():
            principal = remembered.principal
            if principal is not None and principal.unguarded_nano_usd is not None:
                self._last_good[digest] = principal
        self.last_prices = self.prices or self.last_prices
        self._forget_keys()
        self.prices, self.counters_ready = None, False

    def find_last_good(self, digest: bytes) -> Principal | None:
        """The caller with this key digest as it was when Redis was last there, where its org lets something through without."""
        return self._last_good.get(digest)

    def _forget_keys(self) -> None:
        self._remembered.clear()
        self._depends.clear()
