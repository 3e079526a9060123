"""Usage messages, read and checked: which records of a batch can be booked, and why the others cannot.

Every consumer decides by this, so that a record that one of them books, all of them do.
"""

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec

from ias.contracts.events import USAGE_RECORDED, UsageRecord

_COUNT_MAX = 2**31 - 1
_COST_MAX = 2**53
_MILLIS_MAX = 253_402_300_799_999
"""The last millisecond of the year 9999."""
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
    ids = _Ids()
    for position, raw in enumerate(envelope.records):
        try:
            batch.records.append(_check(bytes(raw), ids))
        except (msgspec.DecodeError, ValueError) as error:
            batch.refusals.append(f"record {position}: {error}")
    return batch


def summarise(refusals: list[str], records: int) -> str:
    """The reason with which a message is set aside."""
    shown = "; ".join(refusals[:_REASONS_SHOWN])
    return f"{len(refusals)} of {records} records cannot be booked: {shown}"


class _Ids(dict[str, UUID]):
    """The ids that a message's records have in common, each read once: reading them is the larger part of checking a record."""

    def __missing__(self, text: str) -> UUID:
        self[text] = read = msgspec.convert(text, UUID)
        return read


def _check(raw: bytes, ids: _Ids) -> CheckedRecord:
    record = msgspec.json.decode(raw, type=UsageRecord)
    record_id = msgspec.convert(record.id, UUID)
    if record_id.version != 7 or record_id.int >> 80 > _MILLIS_MAX:
        raise ValueError("the id is not a UUIDv7 of this age")
    occurred_at = _read_moment(record.occurred_at)
    if b"\\u0000" in raw and _holds_nul(msgspec.to_builtins(record)):
        raise ValueError("a text holds a NUL character, which PostgreSQL cannot store")
    _check_figures(record)
    return CheckedRecord(
        record=record,
        id=record_id,
        org_id=ids[record.org_id],
        project_id=ids[record.project_id],
        api_key_id=ids[record.api_key_id],
        user_id=ids[record.user_id] if record.user_id else None,
        service_account_id=ids[record.service_account_id] if record.service_account_id else None,
        price_id=ids[record.price_id] if record.price_id else None,
        occurred_at=occurred_at,
    )


def _read_moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("occurred_at has no time zone")
    try:
        return moment.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("occurred_at is out of range") from error


def _check_figures(record: UsageRecord) -> None:
    for name in ("input_tokens", "cached_input_tokens", "output_tokens", "status", "price_version"):
        if not 0 <= (getattr(record, name) or 0) <= _COUNT_MAX:
            raise ValueError(f"{name} is out of range")
    if record.cached_input_tokens > record.input_tokens:
        raise ValueError("more cached input tokens than input tokens")
    if not 0 <= record.cost_nano_usd <= _COST_MAX:
        raise ValueError("cost_nano_usd is out of range")
    for name in ("ttft_ms", "duration_ms"):
        if not 0 <= (getattr(record, name) or 0) < math.inf:
            raise ValueError(f"{name} is out of range")


def _holds_nul(value: Any) -> bool:
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, dict):
        return any(_holds_nul(key) or _holds_nul(held) for key, held in value.items())
    return isinstance(value, list) and any(_holds_nul(held) for held in value)
