"""The route table: built from PostgreSQL, checked, and pushed to Redis, where every gateway hears of it.

PostgreSQL is the truth. A push that fails changes nothing for the writer: `heal` compares the two sides every second and makes
Redis follow, also when it came back empty, or when PostgreSQL was restored from a backup that is older than what Redis holds.
"""

import asyncio
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import cast

import msgspec
import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from ias.contracts import redis_keys, routes
from ias.kit.database import Database
from ias.kit.egress import EgressPolicy, EgressRefusedError
from ias.kit.redis_documents import RedisDocuments
from ias.registry.core.credentials import Credentials
from ias.registry.store.backends import Backend
from ias.registry.store.models import Model
from ias.registry.store.route_policies import RoutePolicy
from ias.registry.store.route_table import RouteRows, get_version, lock_version, read_rows, set_version

log = structlog.get_logger("ias.registry")

_ENGINES_LIKE_VLLM = frozenset({"vllm", "ias-sim"})
"""They report usage with every chunk when asked to, and speak vLLM's other extensions."""
_VERSION_AT_START = re.compile(rb'\{"version":([0-9]{1,18})[,}]')
_VERSION_BYTES_MAX = 40


class InvalidRouteTableError(ValueError):
    """The table contradicts itself. It is never pushed."""


class RouteTables:
    """Keeps the route table in Redis what PostgreSQL says it is."""

    def __init__(self, database: Database, redis: "Redis", egress: EgressPolicy, credentials: Credentials) -> None:
        self._database = database
        self._redis = redis
        self._documents = RedisDocuments(redis)
        self._egress = egress
        self._credentials = credentials
        self._pushing = asyncio.Lock()

    async def push(self) -> int:
        """Store the table of the last committed change in Redis; its version. A newer one that is there stays.

        Raises:
            RedisError: Redis does not answer.
            InvalidRouteTableError: the table contradicts itself.
        """
        # One after the other: a push that began earlier and ends later would forget which credentials are referred to by now.
        async with self._pushing:
            async with self._database.transaction() as connection:
                rows = await read_rows(connection)
            references = {backend.credential_from for backend in rows.backends if backend.credential_from}
            referred = await asyncio.to_thread(self._credentials.seal_referred, references)
            table = build_table(rows, self._egress, referred)
            await self._documents.put(redis_keys.ROUTES, table, version=table.version)
            return table.version

    async def push_or_leave_to_heal(self) -> None:
        """Push right after a change. What goes wrong is logged and left to `heal`: the change itself is safe."""
        try:
            await self.push()
        except (RedisError, OSError) as error:
            log.warning("the route table could not be pushed yet", error=type(error).__name__)
        except InvalidRouteTableError as error:
            log.error("the route table is not valid and was not pushed", error=str(error))  # noqa: TRY400  # no trace

    async def heal(self) -> bool:
        """Push when Redis does not hold the latest version, or a credential is another; whether so. Raises as `push` does."""
        pushed = await self.find_pushed_version()  # before PostgreSQL is asked, so that it cannot be ahead by itself
        version = await self.get_version()
        if await asyncio.to_thread(self._credentials.have_changed):
            log.info("a credential that backends refer to is another; gateways are told")
            await self._overtake(max(version, pushed or 0))
        elif pushed == version:
            return False
        elif pushed is not None and pushed > version:
            log.warning("redis holds a newer route table than postgresql; its version is overtaken", pushed=pushed)
            await self._overtake(pushed)
        await self.push()
        return True

    async def get_version(self) -> int:
        """The version of the last committed change."""
        async with self._database.transaction() as connection:
            return await get_version(connection)

    async def find_pushed_version(self) -> int | None:
        """The version that gateways see; None when Redis holds no table. Raises RedisError."""
        return await read_version(self._redis)

    async def _overtake(self, pushed: int) -> None:
        """Gateways never go back to a smaller version, so PostgreSQL's has to grow past what Redis holds."""
        async with self._database.transaction() as connection:
            if await lock_version(connection) <= pushed:
                await set_version(connection, pushed + 1)


async def read_version(redis: "Redis") -> int | None:
    """The version of the table in Redis; None when there is none. Raises RedisError."""
    start = cast("bytes", await redis.getrange(redis_keys.ROUTES, 0, _VERSION_BYTES_MAX))
    found = _VERSION_AT_START.match(start)
    return int(found.group(1)) if found else None


def build_table(rows: RouteRows, egress: EgressPolicy, referred: Mapping[str, str]) -> routes.RouteTable:
    """The table of all enabled models.

    A backend that the egress policy no longer allows is left out, and one whose credential is kept elsewhere and is not among
    those `referred` to (sealed, by reference).

    Raises:
        InvalidRouteTableError: the rows contradict each other.
    """
    allowed = {
        backend.id: (backend.model_id, _route_to(backend, referred))
        for backend in rows.backends
        if _is_allowed(backend, egress, referred)
    }
    by_model = defaultdict(list)
    for model_id, backend in allowed.values():
        by_model[model_id].append(backend)
    for adapter in rows.adapters:
        if adapter.backend_id in allowed:
            _, backend = allowed[adapter.backend_id]
            by_model[adapter.model_id].append(
                msgspec.structs.replace(backend, id=str(adapter.id), upstream_model=adapter.name)
            )
    policies = {policy.model_id: policy for policy in rows.policies}
    models = [_route_of(model, policies[model.id], by_model[model.id]) for model in rows.models]
    _check(models)
    named = {name: model for model in models for name in (model.name, *model.aliases)}
    return routes.RouteTable(version=rows.version, models=named)


def _is_allowed(backend: Backend, egress: EgressPolicy, referred: Mapping[str, str]) -> bool:
    try:
        egress.normalise(backend.url)
    except EgressRefusedError as error:
        log.warning("a backend is left out of the route table", backend_id=str(backend.id), reason=error.detail)
        return False
    if backend.credential_from is not None and backend.credential_from not in referred:
        reason = f"its credential cannot be read from {backend.credential_from}"
        log.warning("a backend is left out of the route table", backend_id=str(backend.id), reason=reason)
        return False
    return True


def _route_of(model: Model, policy: RoutePolicy, backends: list[routes.Backend]) -> routes.ModelRoute:
    return routes.ModelRoute(
        model_id=str(model.id),
        name=model.name,
        aliases=model.aliases,
        created=int(model.created_at.timestamp()),
        context_length=model.context_length,
        output_tokens_max=model.output_tokens_max,
        capabilities=model.capabilities,
        org_ids=None if model.org_ids is None else tuple(str(org_id) for org_id in model.org_ids),
        deprecated_at=None if model.deprecated_at is None else int(model.deprecated_at.timestamp()),
        sunset_at=None if model.sunset_at is None else int(model.sunset_at.timestamp()),
        replacement=model.replacement,
        policy=routes.RoutePolicy(
            strategy=policy.strategy,
            is_sticky=policy.is_sticky,
            canary_percent=policy.canary_percent,
            attempts_max=policy.attempts_max,
            first_byte_timeout_s=policy.first_byte_timeout_s,
            total_timeout_s=policy.total_timeout_s,
            queue_timeout_s=policy.queue_timeout_s,
        ),
        backends=tuple(backends),
    )


def _route_to(backend: Backend, referred: Mapping[str, str]) -> routes.Backend:
    return routes.Backend(
        id=str(backend.id),
        url=backend.url,
        weight=backend.weight,
        upstream_model=backend.upstream_model,
        sealed_credential=referred[backend.credential_from] if backend.credential_from else backend.sealed_credential,
        draining=backend.draining,
        enabled=backend.status == "enabled",
        tier=backend.tier,
        group=backend.group,
        concurrency_max=backend.concurrency_max,
        continuous_usage=backend.engine in _ENGINES_LIKE_VLLM,
        vllm_extensions=backend.engine in _ENGINES_LIKE_VLLM,
    )


def _check(models: Iterable[routes.ModelRoute]) -> None:
    names: set[str] = set()
    for model in models:
        for name in (model.name, *model.aliases):
            if not name or name in names:
                raise InvalidRouteTableError(f"the name {name!r} is empty or there twice")
            names.add(name)
        if model.context_length < 1:
            raise InvalidRouteTableError(f"{model.name!r} has no context")
        if model.output_tokens_max is not None and not 1 <= model.output_tokens_max <= model.context_length:
            raise InvalidRouteTableError(f"{model.name!r} may answer more than its context holds")
        for backend in model.backends:
            if backend.weight < 0 or not backend.upstream_model:
                raise InvalidRouteTableError(
                    f"backend {backend.id} of {model.name!r} has no usable weight or model name"
                )
