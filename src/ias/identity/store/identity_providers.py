"""Identity providers, the users whom they vouched for, and sign-ins that are under way at one."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from ias.identity.store.tables import external_identities, identity_providers, oidc_sign_ins


@dataclass(frozen=True, slots=True)
class IdentityProvider:
    """A row of `identity_providers`."""

    id: UUID
    name: str
    issuer: str
    client_id: str
    sealed_client_secret: str | None
    domains: list[str] | None
    creates_users: bool
    status: str
    version: int
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class OidcSignIn:
    """A row of `oidc_sign_ins`."""

    state_digest: str
    provider_id: UUID
    browser_digest: str
    nonce: str
    sealed_code_verifier: str
    created_at: datetime
    expires_at: datetime


async def insert_provider(connection: AsyncConnection, values: dict[str, Any]) -> IdentityProvider:
    """A new provider. Raises `sqlalchemy.exc.IntegrityError` when there is one of that name."""
    result = await connection.execute(insert(identity_providers).values(values).returning(identity_providers))
    return IdentityProvider(**result.mappings().one())


async def find_provider(
    connection: AsyncConnection, provider_id: UUID, *, lock: bool = False
) -> IdentityProvider | None:
    """The provider of an id."""
    query = select(identity_providers).where(identity_providers.c.id == provider_id)
    if lock:
        query = query.with_for_update(key_share=True)
    row = (await connection.execute(query)).mappings().one_or_none()
    return IdentityProvider(**row) if row else None


async def list_providers(connection: AsyncConnection) -> list[IdentityProvider]:
    """All providers, oldest first; their number is bounded where they are made."""
    query = select(identity_providers).order_by(identity_providers.c.id)
    return [IdentityProvider(**row) for row in (await connection.execute(query)).mappings()]


async def update_provider(connection: AsyncConnection, provider_id: UUID, changes: dict[str, Any]) -> IdentityProvider:
    """The provider after the change, one version further."""
    statement = update(identity_providers).where(identity_providers.c.id == provider_id).returning(identity_providers)
    statement = statement.values(**changes, version=identity_providers.c.version + 1, updated_at=func.now())
    return IdentityProvider(**(await connection.execute(statement)).mappings().one())


async def find_user_id(connection: AsyncConnection, provider_id: UUID, subject: str) -> UUID | None:
    """Whom the provider means by a subject."""
    query = select(external_identities.c.user_id).where(
        external_identities.c.provider_id == provider_id, external_identities.c.subject == subject
    )
    return (await connection.execute(query)).scalar_one_or_none()


async def link_user(connection: AsyncConnection, provider_id: UUID, subject: str, user_id: UUID) -> None:
    """From now on the provider means this user by the subject. Whoever it means by it already stays."""
    values = {"provider_id": provider_id, "subject": subject, "user_id": user_id, "created_at": func.now()}
    await connection.execute(upsert(external_identities).values(values).on_conflict_do_nothing())


async def insert_oidc_sign_in(connection: AsyncConnection, values: dict[str, Any]) -> None:
    """A sign-in that begins."""
    await connection.execute(insert(oidc_sign_ins).values(values))


async def take_oidc_sign_in(connection: AsyncConnection, state_digest: str, now: datetime) -> OidcSignIn | None:
    """The sign-in of a state, which works once."""
    statement = delete(oidc_sign_ins).where(
        oidc_sign_ins.c.state_digest == state_digest, oidc_sign_ins.c.expires_at > now
    )
    row = (await connection.execute(statement.returning(oidc_sign_ins))).mappings().one_or_none()
    return OidcSignIn(**row) if row else None


async def delete_oidc_sign_ins_expired_before(connection: AsyncConnection, moment: datetime) -> None:
    """Forget those that nobody came back from."""
    await connection.execute(delete(oidc_sign_ins).where(oidc_sign_ins.c.expires_at < moment))
