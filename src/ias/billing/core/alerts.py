"""Alerts: a budget's spending reached a share of its limit. Each share of each window is told once, whoever notices first.

Of a budget whose window rolls, a share that was told is told again when it is reached and the hour (six hours, day) in which it was
told last is no longer counted: at most once in 24 hours (7, 30 days).
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from uuid import UUID

from ias.billing.core.counters import Counters, Spend
from ias.billing.store import alerts, budget_raises, budgets
from ias.billing.store.alerts import Alert, AlertChannel, AlertDelivery
from ias.billing.store.budgets import Budget
from ias.contracts.ids import uuid7
from ias.kit.access import OrgScope
from ias.kit.database import Database

_BUDGETS_AT_ONCE = 500


class Alerts:
    """Notices what was reached, and lists it."""

    def __init__(self, database: Database, counters: Counters) -> None:
        self._database = database
        self._counters = counters

    async def raise_all(self) -> int:
        """Look at every budget that somebody is to be told of; how many alerts are new. Raises `RedisError`."""
        raised, after = 0, None
        while True:
            async with self._database.transaction() as connection:
                some = await budgets.list_alerting_budgets(connection, after=after, limit=_BUDGETS_AT_ONCE)
            raised += await self._raise_some(some)
            if len(some) < _BUDGETS_AT_ONCE:
                return raised
            after = some[-1].id

    async def list_deliveries(self, scope: OrgScope, *, before: UUID | None, limit: int) -> list[AlertDelivery]:
        """What became of telling the org's alerts, newest first."""
        async with self._database.transaction() as connection:
            return await alerts.list_deliveries(connection, UUID(scope.org_id), before=before, limit=limit)

    async def list(self, scope: OrgScope, *, before: UUID | None, limit: int) -> list[Alert]:
        """An org's alerts, newest first."""
        async with self._database.transaction() as connection:
            return await alerts.list_alerts(connection, UUID(scope.org_id), before=before, limit=limit)

    async def _raise_some(self, some: Sequence[Budget]) -> int:
        now = datetime.now(UTC)
        spent = await self._counters.read(some, now)
        async with self._database.transaction() as connection:
            raises = await budget_raises.list_active_raises(connection, None, now)
            reached = [
                alert
                for budget, spend in zip(some, spent, strict=True)
                for alert in _reached(budget, budget.published(raises[budget.id]).limit_at(now.timestamp()), spend)
            ]
            concerned = {alert.budget_id for alert in reached}
            windows = [(budget.id, part.id) for budget in some if budget.id in concerned for part in budget.parts(now)]
            known = await alerts.list_raised(connection, windows)
            reached = [alert for alert in reached if (alert.budget_id, alert.percent) not in known]
            if not reached:
                return 0
            new_ids = await alerts.insert_alerts(connection, reached)
            new = [alert for alert in reached if alert.id in new_ids]
            channels = {
                org_id: await alerts.list_channels(connection, org_id) for org_id in {alert.org_id for alert in new}
            }
            deliveries = [_delivery(alert, channel) for alert in new for channel in channels[alert.org_id]]
            if deliveries:
                await alerts.insert_deliveries(connection, deliveries)
        return len(new)


def _reached(budget: Budget, limit_nano_usd: int, spend: Spend) -> Iterator[Alert]:
    for percent in budget.alert_percents:
        if limit_nano_usd and spend.spent_nano_usd * 100 >= limit_nano_usd * percent:
            yield Alert(
                id=uuid7(),
                org_id=budget.org_id,
                budget_id=budget.id,
                window_id=spend.window_id,
                percent=percent,
                limit_nano_usd=limit_nano_usd,
                spent_nano_usd=spend.spent_nano_usd,
                created_at=datetime.now(UTC),
            )


def _delivery(alert: Alert, channel: AlertChannel) -> AlertDelivery:
    now = datetime.now(UTC)
    return AlertDelivery(
        id=uuid7(),
        org_id=alert.org_id,
        alert_id=alert.id,
        channel_id=channel.id,
        status="waiting",
        tries=0,
        next_try_at=now,
        last_answer=None,
        created_at=now,
    )
