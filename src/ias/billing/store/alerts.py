"""Alerts, where they are told, and what became of telling them."""

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import func, select, text, tuple_, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from ias.billing.store.tables import ALERT_CHANNELS, ALERT_DELIVERIES, ALERTS

ChannelKind = Literal["webhook", "email"]
DeliveryStatus = Literal["waiting", "delivered", "given_up"]


@dataclass(frozen=True, slots=True)
class AlertChannel:
    """Where an org is told: a URL that is posted to, or an e-mail address."""

    id: UUID
    org_id: UUID
    kind: ChannelKind
    target: str
    sealed_secret: str | None
    sealed_old_secret: str | None
    old_secret_until: datetime | None
    version: int
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Alert:
    """A threshold that was reached."""

    id: UUID
    org_id: UUID
    budget_id: UUID
    window_id: str
    percent: int
    limit_nano_usd: int
    spent_nano_usd: int
    created_at: datetime


@dataclass(frozen=True, slots=True)
class AlertDelivery:
    """Telling one alert to one channel."""

    id: UUID
    org_id: UUID
    alert_id: UUID
    channel_id: UUID
    status: DeliveryStatus
    tries: int
    next_try_at: datetime
    last_answer: str | None
    """Of the last try: an HTTP status, or a word on what went wrong."""
    created_at: datetime
    delivered_at: datetime | None = None


async def lock_channels(connection: AsyncConnection, org_id: UUID) -> None:
    """Let nobody else add a channel of an org until the transaction ends."""
    await connection.execute(
        text("SELECT pg_advisory_xact_lock(hashtextextended(:org, 0))"), {"org": f"alert channels {org_id}"}
    )


async def insert_channel(connection: AsyncConnection, channel: AlertChannel) -> None:
    """Add a channel."""
    await connection.execute(insert(ALERT_CHANNELS).values(asdict(channel)))


async def find_channel(connection: AsyncConnection, channel_id: UUID) -> AlertChannel | None:
    """A channel that was not deleted."""
    table = ALERT_CHANNELS
    query = select(table).where(table.c.id == channel_id, table.c.deleted_at.is_(None)).with_for_update()
    row = (await connection.execute(query)).mappings().one_or_none()
    return AlertChannel(**row) if row else None


async def list_channels(
    connection: AsyncConnection, org_id: UUID, *, before: UUID | None = None, limit: int | None = None
) -> list[AlertChannel]:
    """An org's channels, newest first."""
    table = ALERT_CHANNELS
    query = select(table).where(table.c.org_id == org_id, table.c.deleted_at.is_(None)).order_by(table.c.id.desc())
    if before is not None:
        query = query.where(table.c.id < before)
    return [AlertChannel(**row) for row in (await connection.execute(query.limit(limit))).mappings()]


async def change_channel(connection: AsyncConnection, channel_id: UUID, **values: Any) -> AlertChannel:
    """Change columns of a channel; the channel as it then is, one version further."""
    table = ALERT_CHANNELS
    values |= {"version": table.c.version + 1, "updated_at": func.now()}
    change = update(table).where(table.c.id == channel_id).values(values).returning(table)
    return AlertChannel(**(await connection.execute(change)).mappings().one())


async def list_raised(connection: AsyncConnection, windows: Sequence[tuple[UUID, str]]) -> set[tuple[UUID, int]]:
    """The thresholds of budgets that were reached in any of these windows of theirs: budget and percent."""
    table = ALERTS
    query = select(table.c.budget_id, table.c.percent).where(tuple_(table.c.budget_id, table.c.window_id).in_(windows))
    return {(row.budget_id, row.percent) for row in await connection.execute(query)}


async def insert_alerts(connection: AsyncConnection, alerts: Sequence[Alert]) -> set[UUID]:
    """Add alerts; the ids of those whose threshold had not been reached in its window before."""
    added = insert(ALERTS).values([asdict(alert) for alert in alerts]).on_conflict_do_nothing().returning(ALERTS.c.id)
    return set((await connection.execute(added)).scalars())


async def list_alerts(connection: AsyncConnection, org_id: UUID, *, before: UUID | None, limit: int) -> list[Alert]:
    """An org's alerts, newest first."""
    query = select(ALERTS).where(ALERTS.c.org_id == org_id).order_by(ALERTS.c.id.desc()).limit(limit)
    if before is not None:
        query = query.where(ALERTS.c.id < before)
    return [Alert(**row) for row in (await connection.execute(query)).mappings()]


async def insert_deliveries(connection: AsyncConnection, deliveries: Sequence[AlertDelivery]) -> None:
    """Add deliveries, to be made once the transaction is committed."""
    await connection.execute(insert(ALERT_DELIVERIES).values([asdict(delivery) for delivery in deliveries]))


async def list_deliveries(
    connection: AsyncConnection, org_id: UUID, *, before: UUID | None, limit: int
) -> list[AlertDelivery]:
    """An org's deliveries, newest first."""
    table = ALERT_DELIVERIES
    query = select(table).where(table.c.org_id == org_id).order_by(table.c.id.desc()).limit(limit)
    if before is not None:
        query = query.where(table.c.id < before)
    return [AlertDelivery(**row) for row in (await connection.execute(query)).mappings()]


async def take_due_delivery(
    connection: AsyncConnection, now: datetime, lease: timedelta, *, not_of: Collection[UUID]
) -> AlertDelivery | None:
    """A delivery that is due, of none of these orgs, counted as tried; nobody else takes it before the lease is over."""
    table = ALERT_DELIVERIES
    due = (
        select(table.c.id)
        .where(table.c.status == "waiting", table.c.next_try_at <= now, table.c.org_id.not_in(not_of))
        .order_by(table.c.next_try_at)
        .limit(1)
        .with_for_update(skip_locked=True)
        .scalar_subquery()
    )
    taken = (
        update(table).where(table.c.id == due).values(tries=table.c.tries + 1, next_try_at=now + lease).returning(table)
    )
    row = (await connection.execute(taken)).mappings().one_or_none()
    return AlertDelivery(**row) if row else None


async def find_told(connection: AsyncConnection, delivery: AlertDelivery) -> tuple[Alert, AlertChannel]:
    """What a delivery tells, and where."""
    alert = (await connection.execute(select(ALERTS).where(ALERTS.c.id == delivery.alert_id))).mappings().one()
    query = select(ALERT_CHANNELS).where(ALERT_CHANNELS.c.id == delivery.channel_id)
    return Alert(**alert), AlertChannel(**(await connection.execute(query)).mappings().one())


async def change_delivery(connection: AsyncConnection, delivery_id: UUID, **values: Any) -> None:
    """Note what became of a try."""
    await connection.execute(update(ALERT_DELIVERIES).where(ALERT_DELIVERIES.c.id == delivery_id).values(values))
