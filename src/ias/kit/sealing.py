"""Sealing: secrets that must be read again later (a backend's API key) are encrypted wherever they rest or travel."""

import base64

from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF


class SealBrokenError(ValueError):
    """The text was not sealed with this platform's secret, or was changed."""


def decode_secret_key(text: str) -> bytes:
    """The 32 bytes of `IAS_SECRET_KEY`.

    Raises:
        ValueError: not base64 of 32 bytes.
    """
    raw = base64.b64decode(text, validate=True)
    if len(raw) != 32:
        raise ValueError("IAS_SECRET_KEY must be the base64 of 32 bytes")
    return raw


class Sealer:
    """Seals and opens texts for one purpose; a text sealed for another purpose does not open."""

    def __init__(self, secret_key: bytes, purpose: str) -> None:
        derived = HKDF(algorithm=SHA256(), length=32, salt=None, info=f"ias sealing {purpose}".encode()).derive(
            secret_key
        )
        self._fernet = Fernet(base64.urlsafe_b64encode(derived))

    def seal(self, secret: str) -> str:
        """The sealed form, safe to store."""
        return self._fernet.encrypt(secret.encode()).decode()

    def open(self, sealed: str) -> str:
        """The secret again.

        Raises:
            SealBrokenError: see there.
        """
        try:
            return self._fernet.decrypt(sealed.encode()).decode()
        except InvalidToken as error:
            raise SealBrokenError("the sealed text does not open with this secret key") from error
