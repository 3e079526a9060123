"""Usage messages, read and checked: which records of a batch can be booked, and why the others cannot.

Every consumer decides by this, so that a record that one of them books, all of them do.
"""

from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

import msgspec

from ias.contracts.events import USAGE_RECORDED, Outcome

_MILLIS_MAX = 253_402_300_799_999
"""The last millisecond of the year 9999."""
_REASONS_SHOWN = 3

COUNT_MAX = 2**31 - 1
"""The largest count that a record may hold: PostgreSQL's integer."""

_Count = Annotated[int, msgspec.Meta(ge=0, le=COUNT_MAX)]
_Cost = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
_Millis = Annotated[float, msgspec.Meta(ge=0)]
_Moment = Annotated[datetime, msgspec.Meta(tz=True)]

_UNREADABLE = (msgspec.DecodeError, ValueError, RecursionError)
"""Text that is no UTF-8 is a ValueError."""


class UnreadableMessageError(ValueError):
    """Nothing in the message can be read; says why."""


class CheckedRecord(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A `contracts.events.UsageRecord` that can be booked, with its ids and times read. What newer ones add is passed over."""

    id: UUID
    request_id: str
    occurred_at: _Moment
    """In UTC."""
    org_id: UUID
    project_id: UUID
    api_key_id: UUID
    user_id: UUID | None
    service_account_id: UUID | None
    endpoint: str
    model: str
    backend_id: str
    streamed: bool
    status: _Count
    outcome: Outcome
    input_tokens: _Count
    cached_input_tokens: _Count
    output_tokens: _Count
    estimated: bool
    price_id: UUID | None
    price_version: _Count | None
    cost_nano_usd: _Cost
    ttft_ms: _Millis | None
    duration_ms: _Millis
    decision: msgspec.Raw
    """A JSON object, as it came: it is kept, and read by people."""


class CheckedBatch(msgspec.Struct, frozen=True):
    """A message's records, and the reasons why some of them cannot be booked."""

    records: list[CheckedRecord]
    refusals: list[str]


class _Message(msgspec.Struct):
    schema: str
    records: list[CheckedRecord]


class _Envelope(msgspec.Struct):
    schema: str
    records: list[msgspec.Raw]


_read_message = msgspec.json.Decoder(_Message).decode
_read_envelope = msgspec.json.Decoder(_Envelope).decode
_read_record = msgspec.json.Decoder(CheckedRecord).decode


def check_message(body: bytes) -> CheckedBatch:
    """Read a message.

    Raises:
        UnreadableMessageError: not JSON, or of a schema this version does not know.
    """
    try:  # most messages are good as a whole, which is told in a fraction of the time
        message = _read_message(body)
        if message.schema == USAGE_RECORDED and _is_plain(body):
            return CheckedBatch([_check(record) for record in message.records], [])
    except _UNREADABLE:
        pass
    return _check_one_by_one(body)


def summarise(refusals: list[str], records: int) -> str:
    """The reason with which a message is set aside."""
    shown = "; ".join(refusals[:_REASONS_SHOWN])
    return f"{len(refusals)} of {records} records cannot be booked: {shown}"


def _check_one_by_one(body: bytes) -> CheckedBatch:
    try:
        envelope = _read_envelope(body)
    except _UNREADABLE as error:
        raise UnreadableMessageError(f"the message cannot be read: {error}") from error
    if envelope.schema != USAGE_RECORDED:
        raise UnreadableMessageError(f"unknown schema {envelope.schema!r}")
    batch = CheckedBatch([], [])
    for position, raw in enumerate(envelope.records):
        try:
            _check_text(bytes(raw))
            batch.records.append(_check(_read_record(raw)))
        except _UNREADABLE as error:
            batch.refusals.append(f"record {position}: {error}")
    return batch


def _is_plain(text: bytes) -> bool:
    """Whether it is UTF-8 and escapes nothing that may not be stored. Raises `ValueError` where it is no UTF-8."""
    text.decode()
    return text.find(b"\\u") < 0


def _check_text(raw: bytes) -> None:
    """Look at every text of a record, those of its decision included."""
    if not _is_plain(raw) and _holds_nul(msgspec.json.decode(raw)):
        raise ValueError("a text holds a NUL character, which PostgreSQL cannot store")


def _check(record: CheckedRecord) -> CheckedRecord:
    """The record, its time in UTC. Raises `ValueError` for what no type can tell."""
    number = record.id.int
    if (number >> 76) & 0xF != 7 or (number >> 62) & 0b11 != 0b10 or number >> 80 > _MILLIS_MAX:
        raise ValueError("the id is not a UUIDv7 of this age")
    if record.cached_input_tokens > record.input_tokens:
        raise ValueError("more cached input tokens than input tokens")
    if not bytes(record.decision).startswith(b"{"):
        raise ValueError("the decision is no object")
    if record.occurred_at.tzinfo is UTC:
        return record
    try:
        return msgspec.structs.replace(record, occurred_at=record.occurred_at.astimezone(UTC))
    except OverflowError as error:
        raise ValueError("occurred_at is out of range") from error


def _holds_nul(value: Any) -> bool:
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, dict):
        return any(_holds_nul(key) or _holds_nul(held) for key, held in value.items())
    return isinstance(value, list) and any(_holds_nul(held) for held in value)
