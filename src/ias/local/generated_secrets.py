"""Passwords and keys of one platform, made at its first start and kept for good, 0600."""

import base64
import hashlib
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path

from ias.local.data_directory import find_document, write_private
from ias.local.errors import PlatformError

ADMIN_EMAIL = "admin@ias.example"


@dataclass(frozen=True, kw_only=True)
class GeneratedSecrets:
    """Everything that must stay the same from one start to the next."""

    secret_key: str
    """`IAS_SECRET_KEY`: base64 of 32 bytes. Without it, sealed credentials do not open again."""
    admin_email: str
    admin_password: str
    postgres_password: str
    """Of the cluster's superuser, which only the supervisor uses."""
    database_password: str
    """Of the role that owns each service's database."""
    redis_password: str
    service_secret: str
    """What the platform's own processes authenticate to identity with."""

    @property
    def service_secret_digest(self) -> str:
        """SHA-256 in hexadecimal: the form identity is told."""
        return hashlib.sha256(self.service_secret.encode()).hexdigest()


def _generate() -> GeneratedSecrets:
    return GeneratedSecrets(
        secret_key=base64.b64encode(secrets.token_bytes(32)).decode(),
        admin_email=ADMIN_EMAIL,
        admin_password=secrets.token_urlsafe(18),
        postgres_password=secrets.token_urlsafe(24),
        database_password=secrets.token_urlsafe(24),
        redis_password=secrets.token_urlsafe(24),
        service_secret=secrets.token_urlsafe(32),
    )


def load_or_generate(path: Path) -> GeneratedSecrets:
    """The secrets of this data directory; made and written when there are none.

    Raises:
        PlatformError: the file is damaged; new secrets would lock the data out.
    """
    document = find_document(path)
    if document is None:
        generated = _generate()
        write_private(path, asdict(generated))
        return generated
    try:
        return GeneratedSecrets(**document)
    except TypeError as error:
        raise PlatformError(f"{path} is damaged", "restore it from a backup, or start on another --data-dir") from error
