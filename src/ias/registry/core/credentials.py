"""Backends' API keys: sealed in the database, or kept elsewhere and referred to.

A reference is `env:IAS_BACKEND_CREDENTIAL_…` (the registry's environment) or `file:NAME` (in the directory that the settings name,
where secrets are mounted). It can reach nothing else on purpose: whoever may add a backend says where its credential is sent.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from ias.kit.sealing import Sealer
from ias.registry.store.backends import Backend

REFERENCE_PATTERN = r"^(env:IAS_BACKEND_CREDENTIAL_[A-Z0-9_]{1,100}|file:[A-Za-z0-9][A-Za-z0-9._-]{0,199})$"
CREDENTIAL_LENGTH_MAX = 4096
_REFERENCE = re.compile(REFERENCE_PATTERN.replace("$", r"\Z"))


class CredentialAwayError(Exception):
    """What a reference refers to cannot be read. The message holds the reference and never a secret."""


def is_sendable(credential: str) -> bool:
    """Whether the text can travel in a header: printable ASCII without spaces."""
    return bool(credential) and credential.isascii() and credential.isprintable() and " " not in credential


class Credentials:
    """Seals, opens and looks up credentials. Reading a reference reads a file: not for the event loop."""

    def __init__(self, sealer: Sealer, environment: Mapping[str, str], directory: Path | None) -> None:
        self._sealer = sealer
        self._environment = environment
        self._directory = directory
        self._referred: dict[str, tuple[str, str] | None] = {}
        """What references referred to when a route table was last made: in clear and sealed; None: it could not be read."""

    def seal(self, credential: str) -> str:
        """As it is stored and travels."""
        return self._sealer.seal(credential)

    def find(self, backend: Backend) -> str | None:
        """The backend's credential, None when it has none.

        Raises:
            SealBrokenError: it was sealed with another secret key.
            CredentialAwayError: it is kept elsewhere, and not there.
        """
        if backend.credential_from is not None:
            return self.read(backend.credential_from)
        return self._sealer.open(backend.sealed_credential) if backend.sealed_credential else None

    def read(self, reference: str) -> str:
        """What a reference refers to. Raises CredentialAwayError."""
        if not _REFERENCE.match(reference):
            raise CredentialAwayError(f"{reference!r} is no reference to a credential.")
        kind, _, name = reference.partition(":")
        credential = self._environment.get(name) if kind == "env" else self._read_file(name)
        if credential is None:
            raise CredentialAwayError(f"The registry's environment has no variable {name}.")
        credential = credential.strip()
        if not is_sendable(credential) or len(credential) > CREDENTIAL_LENGTH_MAX:
            raise CredentialAwayError(f"{reference} holds no key: printable ASCII without spaces is needed.")
        return credential

    def _read_file(self, name: str) -> str:
        if self._directory is None:
            raise CredentialAwayError("No directory for credentials is set (IAS_REGISTRY_CREDENTIALS_DIR).")
        try:
            with (self._directory / name).open("rb") as file:
                return file.read(CREDENTIAL_LENGTH_MAX + 100).decode("ascii", "replace")
        except OSError as error:
            detail = error.strerror or type(error).__name__
            raise CredentialAwayError(f"The credential file {name} cannot be read: {detail}.") from error

    def seal_referred(self, references: Iterable[str]) -> dict[str, str]:
        """What each reference refers to, sealed; what cannot be read any more is as it was, or left out."""
        referred = {reference: self._follow(reference) for reference in references}
        self._referred = referred
        return {reference: known[1] for reference, known in referred.items() if known is not None}

    def have_changed(self) -> bool:
        """Whether a reference refers to something else than when a route table was last made."""
        return any(self._follow(reference) != known for reference, known in self._referred.items())

    def _follow(self, reference: str) -> tuple[str, str] | None:
        known = self._referred.get(reference)
        try:
            credential = self.read(reference)
        except CredentialAwayError:
            return known
        return known if known is not None and known[0] == credential else (credential, self._sealer.seal(credential))
