"""Identity providers: where else people may prove who they are.

A provider vouches for e-mails, and whoever has an e-mail has its user, in every org: so providers are the platform's, and an org's
own administrators cannot add one. `domains` narrows the e-mails that a provider is believed for.
"""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy.exc import IntegrityError

from ias.contracts.ids import uuid7
from ias.identity.core.audit_log import append
from ias.identity.core.oidc import OidcClient, invalid_issuer, is_issuer
from ias.identity.core.users import normalize_email
from ias.identity.store import identity_providers as store
from ias.identity.store.identity_providers import IdentityProvider
from ias.kit.access import Access
from ias.kit.audit import Change, Origin
from ias.kit.database import Database
from ias.kit.problems import ConflictError, FieldError, InvalidError, NotFoundError
from ias.kit.sealing import Sealer

PROVIDERS_MAX = 50
_DOMAIN = re.compile(r"[a-z0-9-]+(\.[a-z0-9-]+)+")


@dataclass(frozen=True, slots=True)
class NewIdentityProvider:
    """A provider to add. `domains` None believes it for every e-mail; `creates_users` lets in whoever it vouches for."""

    name: str
    issuer: str
    client_id: str
    client_secret: str | None
    domains: list[str] | None
    creates_users: bool


@dataclass(frozen=True, slots=True)
class IdentityProviderChanges:
    """What to change: the fields named in `given` take the values here."""

    given: frozenset[str]
    name: str | None = None
    client_id: str | None = None
    client_secret: str | None = None
    domains: list[str] | None = None
    creates_users: bool | None = None
    status: str | None = None


class IdentityProviders:
    """Adding, reading and changing providers; the platform's administrators do."""

    def __init__(self, database: Database, oidc: OidcClient, sealer: Sealer) -> None:
        self._database = database
        self._oidc = oidc
        self._sealer = sealer

    async def create(self, access: Access, wanted: NewIdentityProvider, origin: Origin) -> IdentityProvider:
        """A new provider, which was asked for its configuration.

        Raises:
            InvalidError: the issuer is none that can and may be asked, or a domain is none.
            ConflictError: there is one of the name, or there are too many.
        """
        actor = access.on_platform()
        domains = _check_domains(wanted.domains)
        if not is_issuer(wanted.issuer):
            raise invalid_issuer("The issuer must be an https URL without user, query and fragment.")
        await self._oidc.check_issuer(wanted.issuer)
        now = datetime.now(UTC)
        values = {
            "id": uuid7(),
            "name": wanted.name,
            "issuer": wanted.issuer,
            "client_id": wanted.client_id,
            "sealed_client_secret": self._seal(wanted.client_secret),
            "domains": domains,
            "creates_users": wanted.creates_users,
            "created_at": now,
            "updated_at": now,
        }
        try:
            async with self._database.transaction() as connection:
                if len(await store.list_providers(connection)) >= PROVIDERS_MAX:
                    raise ConflictError(f"There are {PROVIDERS_MAX} identity providers.", code="too_many")
                made = await store.insert_provider(connection, values)
                change = Change("identity_provider.create", made.id, after=_describe(made))
                await append(connection, origin.by(actor), change)
        except IntegrityError as error:
            raise ConflictError("There is an identity provider of this name.", code="name_taken") from error
        return made

    async def list_providers(self, access: Access) -> Sequence[IdentityProvider]:
        """All of them; there are never many."""
        access.on_platform()
        async with self._database.transaction() as connection:
            return await store.list_providers(connection)

    async def list_enabled(self) -> Sequence[IdentityProvider]:
        """Those that somebody may sign in with."""
        async with self._database.transaction() as connection:
            return [one for one in await store.list_providers(connection) if one.status == "enabled"]

    async def get(self, access: Access, provider_id: UUID) -> IdentityProvider:
        """One of them."""
        access.on_platform()
        async with self._database.transaction() as connection:
            found = await store.find_provider(connection, provider_id)
        if found is None:
            raise NotFoundError
        return found

    async def update(
        self, access: Access, provider_id: UUID, changes: IdentityProviderChanges, origin: Origin
    ) -> IdentityProvider:
        """The provider after the change. Its issuer stays: who it vouched for is known by it.

        Raises:
            ConflictError: there is another of the name.
        """
        actor = access.on_platform()
        wanted = {name: value for name, value in asdict(changes).items() if name in changes.given}
        if "domains" in wanted:
            wanted["domains"] = _check_domains(wanted["domains"])
        if "client_secret" in wanted:
            wanted["sealed_client_secret"] = self._seal(wanted.pop("client_secret"))
        try:
            async with self._database.transaction() as connection:
                before = await store.find_provider(connection, provider_id, lock=True)
                if before is None:
                    raise NotFoundError
                after = await store.update_provider(connection, provider_id, wanted)
                change = Change("identity_provider.update", provider_id, None, _describe(before), _describe(after))
                await append(connection, origin.by(actor), change)
        except IntegrityError as error:
            raise ConflictError("There is an identity provider of this name.", code="name_taken") from error
        return after

    def open_client_secret(self, provider: IdentityProvider) -> str | None:
        """The secret with which the platform proves itself to the provider."""
        return self._sealer.open(provider.sealed_client_secret) if provider.sealed_client_secret else None

    def _seal(self, secret: str | None) -> str | None:
        return self._sealer.seal(secret) if secret is not None else None


def _check_domains(domains: list[str] | None) -> list[str] | None:
    """Each domain as it stands in a normalised e-mail."""
    if domains is None:
        return None
    normal = [normalize_email(f"x@{domain}").partition("@")[2] for domain in domains]
    if not all(_DOMAIN.fullmatch(domain) for domain in normal):
        detail = "One of these is not a domain."
        raise InvalidError(detail, errors=[FieldError(pointer="/domains", detail=detail)])
    return sorted(set(normal))


def _describe(provider: IdentityProvider) -> dict[str, Any]:
    return {
        "name": provider.name,
        "issuer": provider.issuer,
        "client_id": provider.client_id,
        "client_secret": "[masked]" if provider.sealed_client_secret else None,
        "domains": provider.domains,
        "creates_users": provider.creates_users,
        "status": provider.status,
    }
