"""Tokens that somebody brings back: in the link of an e-mail, in the next step of signing in.

Random, and signed for one purpose, so that an invented one is refused before any look-up. Only the SHA-256 is stored.
"""

import base64
import hashlib
import hmac
import secrets

_RANDOM_BYTES = 26
_SIGNATURE_BYTES = 16
"""Together a multiple of three: the text has no spare bits, and so one spelling."""


class LinkTokens:
    """Makes and checks tokens of one purpose. The prefix is what a leak scanner looks for."""

    def __init__(self, secret_key: bytes, purpose: str, *, prefix: str) -> None:
        self._key = hashlib.sha256(b"ias link tokens\0" + purpose.encode() + b"\0" + secret_key).digest()
        self._prefix = prefix

    def make(self) -> tuple[str, str]:
        """A new token's text, and the digest to store."""
        random = secrets.token_bytes(_RANDOM_BYTES)
        text = self._prefix + base64.urlsafe_b64encode(random + self._sign(random)).decode()
        return text, _digest(text)

    def find_digest(self, text: str) -> str | None:
        """What is stored of a token; None when it is not one of ours."""
        body = text.removeprefix(self._prefix)
        try:
            raw = base64.b64decode(body, altchars=b"-_", validate=True) if body != text else b""
        except ValueError:
            return None
        random, signature = raw[:_RANDOM_BYTES], raw[_RANDOM_BYTES:]
        return _digest(text) if hmac.compare_digest(signature, self._sign(random)) else None

    def _sign(self, random: bytes) -> bytes:
        return hmac.digest(self._key, random, "sha256")[:_SIGNATURE_BYTES]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
