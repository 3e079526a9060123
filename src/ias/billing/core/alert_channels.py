"""Where an org is told of alerts: webhooks, whose secret is shown once, and e-mail addresses."""

import base64
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.errors import MessageError
from email.headerregistry import Address
from uuid import UUID

from ias.billing.store import alerts
from ias.billing.store.alerts import AlertChannel, ChannelKind
from ias.contracts.ids import uuid7
from ias.kit.access import OrgScope
from ias.kit.audit import Change
from ias.kit.database import Database
from ias.kit.egress import EgressPolicy, EgressRefusedError
from ias.kit.outbox import append
from ias.kit.problems import ConflictError, FieldError, InvalidError, NotFoundError
from ias.kit.sealing import Sealer
from ias.kit.writes import check_version

CHANNELS_PER_ORG_MAX = 20
OLD_SECRET_KEPT = timedelta(hours=24)
SECRET_PREFIX = "whsec_"  # noqa: S105  # of every secret (Standard Webhooks), and none itself
_SECRET_BYTES = 32


@dataclass(frozen=True, slots=True)
class ShownChannel:
    """A channel, with its secret when that was just made."""

    channel: AlertChannel
    secret: str | None = None


class AlertChannels:
    """Adds, lists and deletes channels, and gives webhooks new secrets."""

    def __init__(self, database: Database, egress: EgressPolicy, sealer: Sealer) -> None:
        self._database = database
        self._egress = egress
        self._sealer = sealer

    async def create(self, scope: OrgScope, kind: ChannelKind, target: str) -> ShownChannel:
        """Tell an org there from now on.

        Raises:
            InvalidError: no address; or a URL that the platform does not call.
            ConflictError: the org has as many channels as an org may have.
        """
        if kind == "webhook":
            try:
                await self._egress.admit(target)
            except EgressRefusedError as error:
                raise EgressRefusedError(str(error), pointer="/target") from error
        else:
            _check_address(target)
        now = datetime.now(UTC)
        secret = _make_secret() if kind == "webhook" else None
        channel = AlertChannel(
            id=uuid7(),
            org_id=UUID(scope.org_id),
            kind=kind,
            target=target,
            sealed_secret=self._sealer.seal(secret) if secret else None,
            sealed_old_secret=None,
            old_secret_until=None,
            version=1,
            created_at=now,
            updated_at=now,
        )
        async with self._database.transaction() as connection:
            await alerts.lock_channels(connection, channel.org_id)
            if len(await alerts.list_channels(connection, channel.org_id)) >= CHANNELS_PER_ORG_MAX:
                raise ConflictError(f"An org has at most {CHANNELS_PER_ORG_MAX} channels.", code="too_many_channels")
            await alerts.insert_channel(connection, channel)
            change = Change("alert_channel.create", channel.id, channel.org_id, after=_describe(channel))
            await append(connection, "billing", scope.cause, change)
        return ShownChannel(channel, secret)

    async def get(self, channel_id: UUID) -> AlertChannel:
        """A channel of whichever org: the caller still has to show that they may see it.

        Raises:
            NotFoundError: there is none.
        """
        async with self._database.transaction() as connection:
            channel = await alerts.find_channel(connection, channel_id)
        if channel is None:
            raise NotFoundError
        return channel

    async def list(self, scope: OrgScope, *, before: UUID | None, limit: int) -> list[AlertChannel]:
        """The org's channels, newest first."""
        async with self._database.transaction() as connection:
            return await alerts.list_channels(connection, UUID(scope.org_id), before=before, limit=limit)

    async def rotate(self, scope: OrgScope, channel: AlertChannel) -> ShownChannel:
        """Give a webhook a new secret. For a day messages are signed with the old one too.

        Raises:
            NotFoundError: the channel is gone.
            ConflictError: it is no webhook.
        """
        if channel.kind != "webhook":
            raise ConflictError("Only webhooks have a secret.", code="no_secret")
        secret = _make_secret()
        async with self._database.transaction() as connection:
            before = await alerts.find_channel(connection, channel.id)
            if before is None or str(before.org_id) != scope.org_id:
                raise NotFoundError
            rotated = await alerts.change_channel(
                connection,
                channel.id,
                sealed_secret=self._sealer.seal(secret),
                sealed_old_secret=before.sealed_secret,
                old_secret_until=datetime.now(UTC) + OLD_SECRET_KEPT,
            )
            change = Change("alert_channel.rotate", channel.id, channel.org_id, after=_describe(rotated))
            await append(connection, "billing", scope.cause, change)
        return ShownChannel(rotated, secret)

    async def delete(self, scope: OrgScope, channel: AlertChannel) -> None:
        """Tell nobody there any more.

        Raises:
            NotFoundError: the channel is gone.
            PreconditionFailedError: it is meant for another version of it.
        """
        async with self._database.transaction() as connection:
            before = await alerts.find_channel(connection, channel.id)
            if before is None or str(before.org_id) != scope.org_id:
                raise NotFoundError
            check_version(before.version)
            await alerts.change_channel(connection, channel.id, deleted_at=datetime.now(UTC))
            change = Change("alert_channel.delete", channel.id, channel.org_id, before=_describe(before))
            await append(connection, "billing", scope.cause, change)


def _make_secret() -> str:
    return SECRET_PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()


def _check_address(text: str) -> None:
    try:
        address = Address(addr_spec=text)
    except (ValueError, IndexError, MessageError) as error:  # what the standard library raises for texts that are none
        raise _no_address() from error
    if not address.domain or not address.username or not text.isascii():
        raise _no_address()


def _no_address() -> InvalidError:
    return InvalidError(
        "/target is no e-mail address.", errors=[FieldError(pointer="/target", detail="It is no e-mail address.")]
    )


def _describe(channel: AlertChannel) -> dict[str, object]:
    return {"kind": channel.kind, "target": channel.target}
