"""Audit records as they come over the bus, read and checked: what is chained can be hashed, stored and exported."""

from datetime import datetime
from uuid import UUID

import msgspec

from ias.contracts.events import AUDIT_RECORDED, AuditBatch, AuditRecord
from ias.kit.audit import ID_CHARACTERS_MAX, mask, render_moment

_RECORDS_MAX = 1_000
_MILLIS_MAX = 253_402_300_799_999
"""The last millisecond of the year 9999."""
_TEXTS = (
    "service",
    "actor_id",
    "action",
    "target_kind",
    "target_id",
    "reason",
    "request_id",
    "source_ip",
    "user_agent",
)


class UnreadableRecordError(ValueError):
    """A message that can never be chained; says why."""


def read_records(body: bytes) -> list[AuditRecord]:
    """The records of a message. Secrets are masked once more: a sender may have an older list of what is secret.

    Raises:
        UnreadableRecordError: see there.
    """
    try:
        batch = msgspec.json.decode(body, type=AuditBatch)
        if batch.schema != AUDIT_RECORDED:
            raise UnreadableRecordError(f"unknown schema {batch.schema!r}")
        if len(batch.records) > _RECORDS_MAX:
            raise UnreadableRecordError(f"more than {_RECORDS_MAX} records")
        return [_check(record) for record in batch.records]
    except (msgspec.DecodeError, ValueError, OverflowError) as error:
        raise UnreadableRecordError(f"the message cannot be chained: {error}") from error


def _check(record: AuditRecord) -> AuditRecord:
    record_id = UUID(record.id)
    if record_id.version != 7 or record_id.int >> 80 > _MILLIS_MAX:
        raise ValueError("the id is not a UUIDv7 of this age")
    occurred_at = datetime.fromisoformat(record.occurred_at)
    if occurred_at.tzinfo is None:
        raise ValueError("occurred_at has no time zone")
    for name in _TEXTS:
        text = getattr(record, name) or ""
        if "\0" in text or len(text) > ID_CHARACTERS_MAX:
            raise ValueError(f"{name} is too long or holds a NUL character")
    if not 1 <= record.count <= 2**53:
        raise ValueError("count is out of range")
    return msgspec.structs.replace(
        record,
        id=str(record_id),
        org_id=str(UUID(record.org_id)) if record.org_id else None,
        occurred_at=render_moment(occurred_at),
        before=mask(record.before),
        after=mask(record.after),
    )
