"""Telling alerts: webhooks signed as Standard Webhooks says, and e-mails. What fails is tried again, and given up at last.

Whoever is told is somebody's own server, and may be slow on purpose: each try has a deadline, and a round of tries holds one of
an org, so that others wait for one of its tries at most.

The message of an alert has one id, at every try and every webhook, so that whoever receives it twice can know.
https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

import asyncio
import base64
import hashlib
import hmac
import json
from datetime import UTC, datetime, timedelta
from uuid import UUID

import httpx
import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from ias.billing.core.alert_channels import SECRET_PREFIX
from ias.billing.store import alerts, budgets
from ias.billing.store.alerts import Alert, AlertChannel, AlertDelivery
from ias.billing.store.budgets import Budget
from ias.contracts.money import format_usd
from ias.kit.database import Database
from ias.kit.egress import EgressRefusedError
from ias.kit.mail import MAIL_ERRORS, Mail, Mailer
from ias.kit.sealing import SealBrokenError, Sealer

log = structlog.get_logger("ias.billing")

RETRIES = tuple(timedelta(seconds=seconds) for seconds in (5, 30, 120, 600, 3_600, 14_400))
"""How long after a try the next one is; after the last one it is given up."""
_LEASE = timedelta(minutes=2)
_AT_ONCE = 20
_PER_TURN = 50
_GONE = 410
_ANSWER_CHARACTERS_MAX = 200


class AlertDeliveries:
    """Makes deliveries that are due, each by one process at a time."""

    def __init__(
        self,
        database: Database,
        transport: httpx.AsyncBaseTransport,
        mailer: Mailer,
        sealer: Sealer,
        *,
        webhook_timeout_s: float,
    ) -> None:
        self._database = database
        self._transport = transport
        self._webhook_timeout_s = webhook_timeout_s
        self._mailer = mailer
        self._sealer = sealer

    async def make_due(self) -> int:
        """Make some of what is due, in rounds of several at once, none of the same org; how many were tried."""
        tried = 0
        async with httpx.AsyncClient(
            transport=self._transport, timeout=self._webhook_timeout_s, follow_redirects=False
        ) as client:
            while tried < _PER_TURN and (due := await self._take_due()):
                async with asyncio.TaskGroup() as group:
                    for delivery in due:
                        group.create_task(self._make(client, delivery))
                tried += len(due)
        return tried

    async def _take_due(self) -> list[AlertDelivery]:
        taken: dict[UUID, AlertDelivery] = {}
        async with self._database.transaction() as connection:
            while len(taken) < _AT_ONCE:
                delivery = await alerts.take_due_delivery(connection, datetime.now(UTC), _LEASE, not_of=taken.keys())
                if delivery is None:
                    break
                taken[delivery.org_id] = delivery
        return list(taken.values())

    async def _make(self, client: httpx.AsyncClient, delivery: AlertDelivery) -> None:
        async with self._database.transaction() as connection:
            alert, channel = await alerts.find_told(connection, delivery)
            budget = await budgets.get_budget_ever(connection, alert.budget_id)
        if channel.deleted_at is not None:
            is_told, is_gone, answer = False, True, "the channel was deleted"
        elif channel.kind == "webhook":
            is_told, is_gone, answer = await self._post(client, alert, budget, channel)
        else:
            is_told, is_gone, answer = await self._mail(alert, budget, channel)
        async with self._database.transaction() as connection:
            await _note(connection, delivery, is_told=is_told, is_gone=is_gone, answer=answer[:_ANSWER_CHARACTERS_MAX])

    async def _post(
        self, client: httpx.AsyncClient, alert: Alert, budget: Budget, channel: AlertChannel
    ) -> tuple[bool, bool, str]:
        """Whether it was taken, whether it never will be, and what was answered."""
        body = json.dumps(_message(alert, budget), separators=(",", ":")).encode()
        try:
            headers = self._sign(str(alert.id), body, channel, datetime.now(UTC))
            async with asyncio.timeout(self._webhook_timeout_s):  # httpx's own is begun anew with each byte
                answer = await client.post(channel.target, content=body, headers=headers)
        except (httpx.HTTPError, httpx.InvalidURL, EgressRefusedError, SealBrokenError, OSError) as error:
            return False, False, type(error).__name__
        return answer.is_success, answer.status_code == _GONE, f"HTTP {answer.status_code}"

    async def _mail(self, alert: Alert, budget: Budget, channel: AlertChannel) -> tuple[bool, bool, str]:
        try:
            await self._mailer.send(_compose(alert, budget, channel.target))
        except MAIL_ERRORS as error:
            return False, False, type(error).__name__
        return True, False, "sent"

    def _sign(self, message_id: str, body: bytes, channel: AlertChannel, now: datetime) -> dict[str, str]:
        sealed = [channel.sealed_secret]
        if channel.old_secret_until is not None and now < channel.old_secret_until:
            sealed.append(channel.sealed_old_secret)
        timestamp = str(int(now.timestamp()))
        signed = f"{message_id}.{timestamp}.".encode() + body
        signatures = [sign(self._sealer.open(secret), signed) for secret in sealed if secret is not None]
        return {
            "content-type": "application/json",
            "user-agent": "ias-billing",
            "webhook-id": message_id,
            "webhook-timestamp": timestamp,
            "webhook-signature": " ".join(signatures),
        }


def sign(secret: str, signed: bytes) -> str:
    """A signature, as the header has it."""
    key = base64.b64decode(secret.removeprefix(SECRET_PREFIX))
    return "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()


async def _note(
    connection: AsyncConnection, delivery: AlertDelivery, *, is_told: bool, is_gone: bool, answer: str
) -> None:
    now = datetime.now(UTC)
    if is_told:
        values = {"status": "delivered", "delivered_at": now}
    elif is_gone or delivery.tries > len(RETRIES):
        values = {"status": "given_up"}
        log.warning("an alert was not told", delivery_id=str(delivery.id), tries=delivery.tries, answer=answer)
    else:
        values = {"next_try_at": now + RETRIES[delivery.tries - 1]}
    await alerts.change_delivery(connection, delivery.id, last_answer=answer, **values)


def _message(alert: Alert, budget: Budget) -> dict[str, object]:
    return {
        "type": "budget.threshold_reached",
        "timestamp": alert.created_at.isoformat().replace("+00:00", "Z"),
        "data": {
            "alert_id": str(alert.id),
            "org_id": str(alert.org_id),
            "budget_id": str(alert.budget_id),
            "scope": {"kind": budget.scope_kind, "id": budget.scope_id},
            "mode": budget.mode,
            "window": budget.window,
            "window_id": alert.window_id,
            "percent": alert.percent,
            "limit_usd": format_usd(alert.limit_nano_usd),
            "spent_usd": format_usd(alert.spent_nano_usd),
        },
    }


def _compose(alert: Alert, budget: Budget, to: str) -> Mail:
    scope = f"{budget.scope_kind.replace('_', ' ')} {budget.scope_id}"
    spent, limit = format_usd(alert.spent_nano_usd), format_usd(alert.limit_nano_usd)
    blocks = "It refuses nothing." if budget.mode == "alert" else "From its limit on requests are refused."
    return Mail(
        to=to,
        subject=f"{alert.percent} % of a budget is spent ({scope})",
        text=f"{spent} of {limit} USD are spent {_when(alert, budget)} by {scope}.\n\n"
        f"{blocks}\nBudget: {alert.budget_id} (a {budget.mode} one, by {budget.window}), org {alert.org_id}.\n",
    )


def _when(alert: Alert, budget: Budget) -> str:
    match budget.window:
        case "rolling_24h":
            return "in the last 24 hours"
        case "rolling_7d":
            return "in the last 7 days"
        case "rolling_30d":
            return "in the last 30 days"
        case _:
            return f"in {alert.window_id}"
