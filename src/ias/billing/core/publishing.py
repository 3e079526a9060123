"""Publishing: prices and budgets go to Redis, where gateways read them, right after they changed and again until it worked.

A budget is published only after its counter was set up, so that no gateway ever counts in a counter that does not yet know what
was spent before.
"""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import structlog
from redis.exceptions import RedisError

from ias.billing.core.counters import Counters, cut_now
from ias.billing.store import budgets, prices, published_documents
from ias.billing.store.budgets import Budget
from ias.billing.store.counters import Cut
from ias.contracts import redis_keys
from ias.contracts.spending import BudgetPolicy, Price, PriceTable
from ias.kit.database import Database
from ias.kit.redis_documents import RedisDocuments

log = structlog.get_logger("ias.billing")

_PAST_PRICES_KEPT = timedelta(days=1)
"""A gateway asks for the price at a moment of its own clock, which may be a little behind."""


class Publishing:
    """Writes the price table and the orgs' budget policies."""

    def __init__(self, database: Database, documents: RedisDocuments, counters: Counters) -> None:
        self._database = database
        self._documents = documents
        self._counters = counters

    async def publish_prices(self) -> None:
        """Write the price table. Raises `RedisError` when Redis is away."""
        async with self._database.transaction() as connection:
            # The version first: rows newer than their version are healed by the next write, older ones would stay.
            version = await published_documents.find_version(connection, redis_keys.PRICES)
            rows = await prices.list_prices_since(connection, datetime.now(UTC) - _PAST_PRICES_KEPT)
        by_model: dict[str, list[Price]] = {}
        for row in rows:
            by_model.setdefault(row.model, []).append(row.published())
        table = PriceTable(version=version, prices={model: tuple(listed) for model, listed in by_model.items()})
        await self._documents.put(redis_keys.PRICES, table, version=version)

    async def publish_policy(self, org_id: UUID) -> None:
        """Set up the counters of new budgets, then write the org's policy. Raises `RedisError` when Redis is away."""
        async with self._database.transaction() as connection:
            own = await budgets.list_budgets(connection, org_id)
        await self.set_up_counters([budget for budget in own if budget.counted_from is None], cut_now("new_budget"))
        key = redis_keys.budget_policy(str(org_id))
        async with self._database.transaction() as connection:
            version = await published_documents.find_version(connection, key)
            own = await budgets.list_budgets(connection, org_id)
        policy = BudgetPolicy(
            version=version,
            org_id=str(org_id),
            budgets=tuple(budget.published() for budget in reversed(own) if budget.counted_from is not None),
        )
        await self._documents.put(key, policy, version=version)

    async def set_up_counters(self, uncounted: list[Budget], cut: Cut) -> None:
        """Set up the budgets' counters and remember that they may be enforced. Raises `RedisError` when Redis is away."""
        for budget in uncounted:
            await self._counters.set_up(budget, cut)
        new = [budget for budget in uncounted if budget.counted_from is None]
        if new:
            async with self._database.transaction() as connection:
                for org_id in sorted({budget.org_id for budget in new}):
                    key = redis_keys.budget_policy(str(org_id))
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
        """Write the price table now; when Redis is away, the timer will."""
        try:
            await self.publish_prices()
        except (RedisError, OSError) as error:
            log.warning("prices not published yet", error=type(error).__name__)

    async def publish_policy_or_leave_it(self, org_id: UUID) -> None:
        """Write the org's policy now; when Redis is away, the timer will."""
        try:
            await self.publish_policy(org_id)
        except (RedisError, OSError) as error:
            log.warning("budget policy not published yet", org_id=str(org_id), error=type(error).__name__)
