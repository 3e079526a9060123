"""Spending policies: all that a gateway has to know of one org, built from what the tables hold."""

from collections import defaultdict
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from ias.billing.store import budget_raises, budgets, prices, published_documents, rate_limits, spending_settings
from ias.billing.store.budget_raises import BudgetRaise
from ias.billing.store.budgets import Budget
from ias.billing.store.prices import Price, publish_by_model
from ias.billing.store.rate_limits import RateLimit
from ias.billing.store.spending_settings import SpendingSettings
from ias.contracts import redis_keys
from ias.contracts.spending import SpendingPolicy

PAST_PRICES_KEPT = timedelta(days=1)
"""A gateway asks for the price at a moment of its own clock, which may be a little behind."""


async def build_policy(connection: AsyncConnection, org_id: UUID) -> SpendingPolicy:
    """One org's policy. The version is read first: rows newer than their version are healed by the next write."""
    version = await published_documents.find_version(connection, redis_keys.spending_policy(str(org_id)))
    own = await budgets.list_budgets(connection, org_id)
    return _assemble(
        version,
        own_budgets=own[::-1],
        raises=await budget_raises.list_active_raises(connection, org_id, datetime.now(UTC)),
        limits=await rate_limits.list_rate_limits(connection, org_id),
        own_prices=await prices.list_own_prices_since(connection, org_id, datetime.now(UTC) - PAST_PRICES_KEPT),
        settings=await spending_settings.get_settings(connection, org_id),
    )


async def build_policies(connection: AsyncConnection) -> dict[UUID, SpendingPolicy]:
    """Every org's policy, of those that have one."""
    versions = await published_documents.read_versions(connection)
    raises = await budget_raises.list_active_raises(connection, None, datetime.now(UTC))
    own_budgets: dict[UUID, list[Budget]] = defaultdict(list)
    for budget in await budgets.list_all_budgets(connection):
        own_budgets[budget.org_id].append(budget)
    limits: dict[UUID, list[RateLimit]] = defaultdict(list)
    for limit in await rate_limits.list_all_rate_limits(connection):
        limits[limit.org_id].append(limit)
    own_prices: dict[UUID, list[Price]] = defaultdict(list)
    for price in await prices.list_own_prices_since(connection, None, datetime.now(UTC) - PAST_PRICES_KEPT):
        if price.org_id is not None:
            own_prices[price.org_id].append(price)
    settings = {each.org_id: each for each in await spending_settings.list_settings(connection)}
    return {
        org_id: _assemble(
            versions.get(redis_keys.spending_policy(str(org_id)), 0),
            own_budgets=own_budgets[org_id],
            raises=raises,
            limits=limits[org_id],
            own_prices=own_prices[org_id],
            settings=settings.get(org_id) or SpendingSettings(org_id),
        )
        for org_id in {*own_budgets, *limits, *own_prices, *settings}
    }


def _assemble(
    version: int,
    *,
    own_budgets: list[Budget],
    raises: Mapping[UUID, list[BudgetRaise]],
    limits: list[RateLimit],
    own_prices: list[Price],
    settings: SpendingSettings,
) -> SpendingPolicy:
    return SpendingPolicy(
        version=version,
        org_id=str(settings.org_id),
        budgets=tuple(
            budget.published(raises.get(budget.id, ())) for budget in own_budgets if budget.counted_from is not None
        ),
        rate_limits=tuple(limit.published() for limit in limits),
        prices=publish_by_model(own_prices),
        unpriced=settings.unpriced,
        unguarded_nano_usd=settings.unguarded_nano_usd,
        queue_weight=settings.queue_weight,
    )
