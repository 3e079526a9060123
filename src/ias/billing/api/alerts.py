"""`/billing/v1/alerts`, `/billing/v1/alert-channels`, `/billing/v1/alert-deliveries`: who is told what of budgets."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import Field

from ias.billing.api.pages import OrgPage
from ias.billing.api.parts import AlertChannelsPart, AlertsPart
from ias.billing.core.alert_channels import ShownChannel
from ias.billing.store.alerts import Alert, AlertChannel, AlertDelivery, ChannelKind, DeliveryStatus
from ias.contracts.money import format_usd
from ias.contracts.permissions import Permission
from ias.kit.authorization import Access, requires
from ias.kit.cursors import Page
from ias.kit.egress import URL_LENGTH_MAX
from ias.kit.routing import Router
from ias.kit.web import Answer, Body

router = Router(prefix="/billing/v1", tags=["alerts"])


class AlertChannelBody(Body):
    """Where an org is told when a budget reaches one of its `alert_percents`."""

    org_id: UUID
    kind: ChannelKind
    target: str = Field(
        min_length=3,
        max_length=URL_LENGTH_MAX,
        pattern=r"^[\x21-\x7e]+$",
        description="Of a webhook its URL, without a query; else an e-mail address.",
        examples=["https://ops.example.com/hooks/budgets"],
    )


class AlertChannelAnswer(Answer):
    """A channel."""

    id: UUID
    org_id: UUID
    kind: ChannelKind
    target: str
    version: int
    created_at: datetime
    updated_at: datetime


class NewAlertChannelAnswer(AlertChannelAnswer):
    """A channel, with what is shown once."""

    secret: str | None = Field(
        description="What messages are signed with, as Standard Webhooks says (`whsec_…`). It is not shown again."
    )


class AlertAnswer(Answer):
    """A threshold that a budget reached, once in a window."""

    id: UUID
    org_id: UUID
    budget_id: UUID
    window_id: str
    percent: int
    limit_usd: str
    spent_usd: str
    created_at: datetime


class AlertDeliveryAnswer(Answer):
    """Telling one alert to one channel."""

    id: UUID
    org_id: UUID
    alert_id: UUID
    channel_id: UUID
    status: DeliveryStatus
    tries: int
    next_try_at: datetime | None
    last_answer: str | None = Field(description="Of the last try: an HTTP status, or what went wrong.")
    created_at: datetime
    delivered_at: datetime | None


@router.post("/alert-channels", status_code=201)
async def create_alert_channel(
    body: AlertChannelBody,
    access: Annotated[Access, requires(Permission.BUDGETS_WRITE)],
    channels: AlertChannelsPart,
) -> NewAlertChannelAnswer:
    """Tell an org there from now on. A webhook's secret is in this answer and in no other."""
    return _show(await channels.create(access.in_org(str(body.org_id)), body.kind, body.target))


@router.get("/alert-channels")
async def list_alert_channels(
    access: Annotated[Access, requires(Permission.BUDGETS_READ)], channels: AlertChannelsPart, page: OrgPage
) -> Page[AlertChannelAnswer]:
    """An org's channels, newest first."""
    rows = await page.read(access, channels.list)
    return page.answer([AlertChannelAnswer.model_validate(row) for row in rows])


@router.get("/alert-channels/{channel_id}")
async def get_alert_channel(
    channel_id: UUID,
    access: Annotated[Access, requires(Permission.BUDGETS_READ)],
    channels: AlertChannelsPart,
) -> AlertChannelAnswer:
    """A channel."""
    return AlertChannelAnswer.model_validate(await _get(channels, access, channel_id))


@router.post("/alert-channels/{channel_id}/rotate")
async def rotate_alert_channel(
    channel_id: UUID,
    access: Annotated[Access, requires(Permission.BUDGETS_WRITE)],
    channels: AlertChannelsPart,
) -> NewAlertChannelAnswer:
    """Give a webhook a new secret, shown here alone. For a day messages are signed with the old one too."""
    channel = await _get(channels, access, channel_id)
    return _show(await channels.rotate(access.in_org(str(channel.org_id)), channel))


@router.delete("/alert-channels/{channel_id}", status_code=204)
async def delete_alert_channel(
    channel_id: UUID,
    access: Annotated[Access, requires(Permission.BUDGETS_WRITE)],
    channels: AlertChannelsPart,
) -> None:
    """Tell nobody there any more."""
    channel = await _get(channels, access, channel_id)
    await channels.delete(access.in_org(str(channel.org_id)), channel)


@router.get("/alerts")
async def list_alerts(
    access: Annotated[Access, requires(Permission.BUDGETS_READ)], alerts: AlertsPart, page: OrgPage
) -> Page[AlertAnswer]:
    """What an org's budgets reached, newest first."""
    return page.answer([_render(row) for row in await page.read(access, alerts.list)])


@router.get("/alert-deliveries")
async def list_alert_deliveries(
    access: Annotated[Access, requires(Permission.BUDGETS_READ)], alerts: AlertsPart, page: OrgPage
) -> Page[AlertDeliveryAnswer]:
    """What became of telling an org's alerts, newest first."""
    return page.answer([_render_delivery(row) for row in await page.read(access, alerts.list_deliveries)])


async def _get(channels: AlertChannelsPart, access: Access, channel_id: UUID) -> AlertChannel:
    channel = await channels.get(channel_id)
    access.in_org(str(channel.org_id))
    return channel


def _show(shown: ShownChannel) -> NewAlertChannelAnswer:
    plain = AlertChannelAnswer.model_validate(shown.channel)
    return NewAlertChannelAnswer(**plain.model_dump(), secret=shown.secret)


def _render(alert: Alert) -> AlertAnswer:
    return AlertAnswer(
        id=alert.id,
        org_id=alert.org_id,
        budget_id=alert.budget_id,
        window_id=alert.window_id,
        percent=alert.percent,
        limit_usd=format_usd(alert.limit_nano_usd),
        spent_usd=format_usd(alert.spent_nano_usd),
        created_at=alert.created_at,
    )


def _render_delivery(delivery: AlertDelivery) -> AlertDeliveryAnswer:
    return AlertDeliveryAnswer(
        id=delivery.id,
        org_id=delivery.org_id,
        alert_id=delivery.alert_id,
        channel_id=delivery.channel_id,
        status=delivery.status,
        tries=delivery.tries,
        next_try_at=delivery.next_try_at if delivery.status == "waiting" else None,
        last_answer=delivery.last_answer,
        created_at=delivery.created_at,
        delivered_at=delivery.delivered_at,
    )
