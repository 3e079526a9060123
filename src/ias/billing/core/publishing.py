"""Publishing: what gateways read of prices, budgets and rate limits goes to Redis right after it changed, and until it worked.

A budget is published only after its counter was set up, so that no gateway ever counts in a counter that does not yet know what
was spent before.
"""

import asyncio
from datetime import UTC, datetime
from uuid import UUID

import structlog
from redis.exceptions import RedisError

from ias.billing.core.counters import Counters, cut_now
from ias.billing.core.spending_policies import PAST_PRICES_KEPT, build_policies, build_policy
from ias.billing.store import budgets, prices, published_documents
from ias.billing.store.budgets import Budget
from ias.billing.store.counters import Cut
from ias.billing.store.prices import publish_by_model
from ias.contracts import redis_keys
from ias.contracts.spending import PriceTable
from ias.kit.database import Database
from ias.kit.redis_documents import RedisDocuments
from ias.kit.writes import after_commit

log = structlog.get_logger("ias.billing")

_SET_UP_AT_ONCE = 4
"""Each takes a connection of the pool for a moment."""
_POLICIES_PER_ROUND_TRIP = 200


class Publishing:
    """Writes the price table and the orgs' policies: their budgets and rate limits."""

    def __init__(self, database: Database, documents: RedisDocuments, counters: Counters) -> None:
        self._database = database
        self._documents = documents
        self._counters = counters

    async def publish_prices(self) -> None:
        """Write the price table. Raises `RedisError` when Redis is away."""
        async with self._database.transaction() as connection:
            # The version first: rows newer than their version are healed by the next write, older ones would stay.
            version = await published_documents.find_version(connection, redis_keys.PRICES)
            rows = await prices.list_common_prices_since(connection, datetime.now(UTC) - PAST_PRICES_KEPT)
        table = PriceTable(version=version, prices=publish_by_model(rows))
        await self._documents.put(redis_keys.PRICES, table, version=version)

    async def publish_policy(self, org_id: UUID) -> None:
        """Set up the counters of new budgets, then write the org's policy. Raises `RedisError` when Redis is away."""
        async with self._database.transaction() as connection:
            own = await budgets.list_budgets(connection, org_id)
        await self.set_up_counters([budget for budget in own if budget.counted_from is None], cut_now("new_budget"))
        async with self._database.transaction() as connection:
            policy = await build_policy(connection, org_id)
        await self._documents.put(redis_keys.spending_policy(str(org_id)), policy, version=policy.version)

    async def publish_everything(self) -> None:
        """Write the price table and every org's policy. Raises `RedisError` when Redis is away."""
        await self.publish_prices()
        async with self._database.transaction() as connection:
            policies = {
                redis_keys.spending_policy(policy.org_id): policy
                for policy in (await build_policies(connection)).values()
            }
        for start in range(0, len(policies), _POLICIES_PER_ROUND_TRIP):
            keys = list(policies)[start : start + _POLICIES_PER_ROUND_TRIP]
            await self._documents.put_all({key: policies[key] for key in keys})

    async def set_up_counters(self, uncounted: list[Budget], cut: Cut) -> None:
        """Set up the budgets' counters and remember that they may be enforced. Raises `RedisError` when Redis is away."""
        for start in range(0, len(uncounted), _SET_UP_AT_ONCE):
            chunk = uncounted[start : start + _SET_UP_AT_ONCE]
            await asyncio.gather(*(self._counters.set_up(budget, cut) for budget in chunk))
        new = [budget for budget in uncounted if budget.counted_from is None]
        if new:
            async with self._database.transaction() as connection:
                for org_id in sorted({budget.org_id for budget in new}):
                    key = redis_keys.spending_policy(str(org_id))
                    await published_documents.raise_version(connection, key, org_id)
                await budgets.mark_counted(connection, [budget.id for budget in new], datetime.now(UTC))

    async def publish_changed(self, above: int) -> None:
        """Write every document whose version is above the given one. Raises `RedisError` when Redis is away."""
        async with self._database.transaction() as connection:
            changed = set(await published_documents.list_changed(connection, above=above))
            waiting = await budgets.list_orgs_with_uncounted_budgets(connection)
        if None in changed:
            await self.publish_prices()
        for org_id in {*changed, *waiting} - {None}:
            if org_id is not None:
                await self.publish_policy(org_id)

    async def publish_prices_or_leave_it(self) -> None:
        """Write the price table once the change is committed; when Redis is away, the timer will."""
        await after_commit(self._try_prices)

    async def publish_policy_or_leave_it(self, org_id: UUID) -> None:
        """Write the org's policy once the change is committed; when Redis is away, the timer will."""
        await after_commit(lambda: self._try_policy(org_id))

    async def _try_prices(self) -> None:
        try:
            await self.publish_prices()
        except (RedisError, OSError) as error:
            log.warning("prices not published yet", error=type(error).__name__)

    async def _try_policy(self, org_id: UUID) -> None:
        try:
            await self.publish_policy(org_id)
        except (RedisError, OSError) as error:
            log.warning("policy not published yet", org_id=str(org_id), error=type(error).__name__)
