"""Identifiers: UUIDv7 everywhere, so that ids sort by the time they were made (RFC 9562, section 5.7)."""

import os
import time
from uuid import UUID

REQUEST_ID_PREFIX = "req_"


def uuid7() -> UUID:
    """A new UUIDv7: 48 bits of Unix milliseconds, then 74 random bits."""
    millis = time.time_ns() // 1_000_000
    value = (millis << 80) | int.from_bytes(os.urandom(10))
    value = (value & ~(0xF << 76)) | (0x7 << 76)  # version 7
    value = (value & ~(0x3 << 62)) | (0x2 << 62)  # RFC 9562 variant
    return UUID(int=value)


def request_id_of(record_id: UUID) -> str:
    """The id a client sees in `x-request-id`: the usage record's id, in OpenAI's spelling."""
    return REQUEST_ID_PREFIX + record_id.hex
