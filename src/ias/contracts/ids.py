"""Identifiers: UUIDv7 everywhere, so that ids sort by the time they were made (RFC 9562, section 5.7)."""

import hashlib
import os
import time
from uuid import UUID

REQUEST_ID_PREFIX = "req_"


def uuid7() -> UUID:
    """A new UUIDv7: 48 bits of Unix milliseconds, then 74 random bits."""
    millis = time.time_ns() // 1_000_000
    return _assemble(millis, os.urandom(10))


def follow_up_id(record_id: UUID) -> UUID:
    """The id of what follows from a record: always the same, made in the same millisecond, and no other record's."""
    return _assemble(record_id.int >> 80, hashlib.sha256(record_id.bytes).digest()[:10])


def record_id_of(request_id: str) -> UUID:
    """The usage record's id in a request's. Raises `ValueError` where it is none of ours."""
    return UUID(hex=request_id.removeprefix(REQUEST_ID_PREFIX))


def request_id_of(record_id: UUID) -> str:
    """The id a client sees in `x-request-id`: the usage record's id, in OpenAI's spelling."""
    return REQUEST_ID_PREFIX + record_id.hex


def _assemble(millis: int, rest: bytes) -> UUID:
    value = (millis << 80) | int.from_bytes(rest)
    value = (value & ~(0xF << 76)) | (0x7 << 76)  # version 7
    value = (value & ~(0x3 << 62)) | (0x2 << 62)  # RFC 9562 variant
    return UUID(int=value)
