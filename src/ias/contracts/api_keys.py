"""The API key: how its text is made and checked, and the record of it that the gateway reads.

`ias-sk-` + 43 base62 characters (256 random bits) + 6 base62 characters of CRC-32 over what precedes. The checksum lets a
typo, or a token of another product found by a leak scanner, be refused before any look-up. Only the SHA-256 is stored.
"""

import hashlib
import secrets
import zlib
from typing import Literal

import msgspec

KeyScope = Literal["chat_completions", "completions", "embeddings", "responses", "models"]
"""What a key may be limited to: endpoints of the inference API by name. `models` is the listing of models."""

KEY_PREFIX = "ias-sk-"
_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_SECRET_LENGTH = 43
_CHECKSUM_LENGTH = 6
KEY_LENGTH = len(KEY_PREFIX) + _SECRET_LENGTH + _CHECKSUM_LENGTH


def _base62(number: int, length: int) -> str:
    digits = []
    for _ in range(length):
        number, digit = divmod(number, 62)
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))


def generate_key() -> str:
    """A new key. It is shown once and never stored."""
    body = KEY_PREFIX + _base62(secrets.randbits(256), _SECRET_LENGTH)
    return body + _base62(zlib.crc32(body.encode()), _CHECKSUM_LENGTH)


def has_valid_checksum(key: str | bytes) -> bool:
    """Whether the text has the form of a key of this platform. Says nothing about whether it was ever issued."""
    text = key if isinstance(key, bytes) else key.encode()
    if len(text) != KEY_LENGTH or not text.startswith(KEY_PREFIX.encode()):
        return False
    body, checksum = text[:-_CHECKSUM_LENGTH], text[-_CHECKSUM_LENGTH:]
    return _base62(zlib.crc32(body), _CHECKSUM_LENGTH).encode() == checksum


def digest_key(key: str | bytes) -> str:
    """The SHA-256 of a key in hexadecimal: what is stored and looked up."""
    return hashlib.sha256(key if isinstance(key, bytes) else key.encode()).hexdigest()


def redact_key(key: str) -> str:
    """The form a key may be shown in after it was issued."""
    return f"{key[: len(KEY_PREFIX) + 4]}…{key[-4:]}"


class KeyRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What the gateway must know of a key. Identity writes it to Redis under `redis_keys.api_key(digest)` as JSON.

    `version` only grows; a writer never replaces a record by one with a smaller version.
    """

    version: int
    key_id: str
    org_id: str
    project_id: str
    user_id: str | None = None
    service_account_id: str | None = None
    status: Literal["active", "revoked", "suspended"] = "active"
    expires_at: int | None = None
    """Unix seconds."""
    scopes: tuple[str, ...] | None = None
    """Of KeyScope: endpoints the key may call; None is all."""
    models: tuple[str, ...] | None = None
    """Public model names the key may use; None is all that its project and org may."""
    ip_networks: tuple[str, ...] | None = None
    """CIDR networks the key may be used from; None is all."""


class TenantRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What the gateway must know of an org or a project. Identity writes it under `redis_keys.org` and `.project`."""

    version: int
    id: str
    status: Literal["active", "suspended", "deleted"] = "active"
    models: tuple[str, ...] | None = None
    """Public model names the tenant may use; None is all."""
    ip_networks: tuple[str, ...] | None = None
    """CIDR networks the tenant's keys may be used from, beside what each key says; None is all. Orgs alone have any."""
