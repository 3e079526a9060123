"""Usage records as they come from the bus, checked one by one: what cannot be booked is told apart from what can."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import msgspec

from ias.contracts.events import USAGE_RECORDED, UsageRecord
from ias.kit.partitions import time_of

_COUNT_MAX = 2**31 - 1
_REASONS_SHOWN = 3


class UnreadableMessageError(ValueError):
    """Nothing in the message can be read; says why."""


class _Envelope(msgspec.Struct):
    schema: str
    records: list[msgspec.Raw]


@dataclass(frozen=True, slots=True)
class CheckedRecord:
    """A record that can be booked, with its ids and times read."""

    record: UsageRecord
    id: UUID
    org_id: UUID
    project_id: UUID
    api_key_id: UUID
    user_id: UUID | None
    service_account_id: UUID | None
    price_id: UUID | None
    occurred_at: datetime


@dataclass(frozen=True, slots=True)
class CheckedBatch:
    """A message's records, and the reasons why some of them cannot be booked."""

    records: list[CheckedRecord]
    refusals: list[str]


def check_message(body: bytes) -> CheckedBatch:
    """Read a message.

    Raises:
        UnreadableMessageError: not JSON, or of a schema this version does not know.
    """
    try:
        envelope = msgspec.json.decode(body, type=_Envelope)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UnreadableMessageError(f"the message cannot be read: {error}") from error
    if envelope.schema != USAGE_RECORDED:
        raise UnreadableMessageError(f"unknown schema {envelope.schema!r}")
    batch = CheckedBatch([], [])
    for position, raw in enumerate(envelope.records):
        try:
            batch.records.append(_check(msgspec.json.decode(raw, type=UsageRecord)))
        except (msgspec.DecodeError, ValueError, OverflowError) as error:
            batch.refusals.append(f"record {position}: {error}")
    return batch


def summarise(refusals: list[str], records: int) -> str:
    """The reason with which a message is set aside."""
    shown = "; ".join(refusals[:_REASONS_SHOWN])
    return f"{len(refusals)} of {records} records cannot be booked: {shown}"


def _check(record: UsageRecord) -> CheckedRecord:
    record_id = UUID(record.id)
    if record_id.version != 7:
        raise ValueError("the id is not a UUIDv7")
    time_of(record_id)
    occurred_at = datetime.fromisoformat(record.occurred_at)
    if occurred_at.tzinfo is None:
        raise ValueError("occurred_at has no time zone")
    for name in ("input_tokens", "cached_input_tokens", "output_tokens", "status"):
        if not 0 <= getattr(record, name) <= _COUNT_MAX:
            raise ValueError(f"{name} is out of range")
    if record.cached_input_tokens > record.input_tokens:
        raise ValueError("more cached input tokens than input tokens")
    if record.cost_nano_usd < 0:
        raise ValueError("the cost is negative")
    return CheckedRecord(
        record=record,
        id=record_id,
        org_id=UUID(record.org_id),
        project_id=UUID(record.project_id),
        api_key_id=UUID(record.api_key_id),
        user_id=UUID(record.user_id) if record.user_id else None,
        service_account_id=UUID(record.service_account_id) if record.service_account_id else None,
        price_id=UUID(record.price_id) if record.price_id else None,
        occurred_at=occurred_at,
    )
