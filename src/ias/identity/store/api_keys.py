"""API keys. The text of a key is never here, only its digest."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import delete, func, insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from ias.identity.store.tables import api_keys, retired_digests
from ias.kit.access import OrgScope


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A row of `api_keys`."""

    id: UUID
    org_id: UUID
    project_id: UUID
    user_id: UUID | None
    service_account_id: UUID | None
    name: str
    digest: str
    redacted: str
    status: str
    expires_at: datetime | None
    scopes: list[str] | None
    models: list[str] | None
    ip_networks: list[str] | None
    created_by: UUID
    revoked_at: datetime | None
    rotated_at: datetime | None
    last_used_at: datetime | None
    version: int
    pushed_version: int
    created_at: datetime
    updated_at: datetime


async def insert_api_key(connection: AsyncConnection, values: dict[str, Any]) -> ApiKey:
    """A new key."""
    result = await connection.execute(insert(api_keys).values(values).returning(api_keys))
    return ApiKey(**result.mappings().one())


async def find_place(connection: AsyncConnection, key_id: UUID) -> tuple[UUID, UUID] | None:
    """The org and the project of a key: all that may be known of it before the caller has a scope."""
    query = select(api_keys.c.org_id, api_keys.c.project_id).where(api_keys.c.id == key_id)
    row = (await connection.execute(query)).one_or_none()
    return (row.org_id, row.project_id) if row else None


async def find_api_key(
    connection: AsyncConnection, scope: OrgScope, key_id: UUID, *, lock: bool = False
) -> ApiKey | None:
    """A key of the scope's org."""
    query = select(api_keys).where(api_keys.c.org_id == UUID(scope.org_id), api_keys.c.id == key_id)
    if lock:
        query = query.with_for_update(key_share=True)
    row = (await connection.execute(query)).mappings().one_or_none()
    return ApiKey(**row) if row else None


async def count_keys_in_use(connection: AsyncConnection, scope: OrgScope, project_id: UUID) -> int:
    """How many keys of a project in the scope's org are neither revoked nor expired."""
    lives = api_keys.c.expires_at.is_(None) | (api_keys.c.expires_at > func.now())
    query = select(func.count()).where(
        api_keys.c.org_id == UUID(scope.org_id),
        api_keys.c.project_id == project_id,
        api_keys.c.status == "active",
        lives,
    )
    return (await connection.execute(query)).scalar_one()


async def list_api_keys(
    connection: AsyncConnection, scope: OrgScope, project_id: UUID, *, after: UUID | None, limit: int
) -> list[ApiKey]:
    """Keys of a project in the scope's org, newest first."""
    query = (
        select(api_keys)
        .where(api_keys.c.org_id == UUID(scope.org_id), api_keys.c.project_id == project_id)
        .order_by(api_keys.c.id.desc())
        .limit(limit)
    )
    if after is not None:
        query = query.where(api_keys.c.id < after)
    return [ApiKey(**row) for row in (await connection.execute(query)).mappings()]


async def update_api_key(connection: AsyncConnection, scope: OrgScope, key_id: UUID, changes: dict[str, Any]) -> ApiKey:
    """The key after the change, one version further."""
    statement = update(api_keys).where(api_keys.c.org_id == UUID(scope.org_id), api_keys.c.id == key_id)
    statement = statement.values(**changes, version=api_keys.c.version + 1, updated_at=func.now())
    return ApiKey(**(await connection.execute(statement.returning(api_keys))).mappings().one())


async def retire_digest(
    connection: AsyncConnection, key: ApiKey, valid_until: datetime, *, kept_from: datetime
) -> None:
    """Let the digest of a key's present text work until a moment; earlier ones end now, and long ended ones go.

    `kept_from`: those that ended before it are forgotten.
    """
    now = func.now()
    own = retired_digests.c.api_key_id == key.id
    await connection.execute(delete(retired_digests).where(own, retired_digests.c.valid_until < kept_from))
    await connection.execute(
        update(retired_digests).where(own, retired_digests.c.valid_until > now).values(valid_until=now)
    )
    await connection.execute(
        insert(retired_digests).values(
            digest=key.digest, org_id=key.org_id, api_key_id=key.id, valid_until=valid_until, created_at=now
        )
    )


async def end_digest(connection: AsyncConnection, scope: OrgScope, key: ApiKey, digest: str) -> ApiKey:
    """Let an earlier text of a key end now; the key, one version further."""
    statement = update(retired_digests).where(
        retired_digests.c.api_key_id == key.id, retired_digests.c.digest == digest
    )
    await connection.execute(statement.values(valid_until=func.now()))
    return await update_api_key(connection, scope, key.id, {})


async def find_key_of_digest(connection: AsyncConnection, digest: str) -> ApiKey | None:
    """The key that a text is the secret of, be it for the rest of an overlap, whichever org's; locked."""
    retired = select(retired_digests.c.api_key_id).where(
        retired_digests.c.digest == digest, retired_digests.c.valid_until > func.now()
    )
    query = select(api_keys).where((api_keys.c.digest == digest) | api_keys.c.id.in_(retired))
    row = (await connection.execute(query.with_for_update(key_share=True))).mappings().one_or_none()
    return ApiKey(**row) if row else None


async def mark_used(
    connection: AsyncConnection, last_used: Mapping[tuple[UUID, UUID], datetime], *, resolution: timedelta
) -> int:
    """Remember when keys, each given by its org and its id, were last used; how many rows that changed.

    One whose moment would grow by less than `resolution` is not written. Raises `sqlalchemy.exc.DBAPIError` when another
    transaction keeps one of them locked.
    """
    await connection.execute(text(f"SET LOCAL lock_timeout = {_LOCK_TIMEOUT_MS}"))
    values = {
        "org_ids": [org_id for org_id, _ in last_used],
        "key_ids": [key_id for _, key_id in last_used],
        "moments": list(last_used.values()),
        "resolution": resolution,
    }
    return (await connection.execute(_MARK_USED, values)).rowcount


async def touch_api_keys_of_service_account(
    connection: AsyncConnection, scope: OrgScope, account_id: UUID
) -> list[UUID]:
    """The ids of the account's keys that are in use, each one version further: what gateways know of them has changed."""
    statement = update(api_keys).where(
        api_keys.c.org_id == UUID(scope.org_id),
        api_keys.c.service_account_id == account_id,
        api_keys.c.status == "active",
    )
    result = await connection.execute(statement.values(version=api_keys.c.version + 1).returning(api_keys.c.id))
    return list(result.scalars())


async def revoke_api_key(connection: AsyncConnection, scope: OrgScope, key_id: UUID) -> ApiKey:
    """The key, revoked, one version further."""
    statement = update(api_keys).where(api_keys.c.org_id == UUID(scope.org_id), api_keys.c.id == key_id)
    row = (await connection.execute(statement.values(_REVOCATION).returning(api_keys))).mappings().one()
    return ApiKey(**row)


async def revoke_api_keys_of_user(connection: AsyncConnection, scope: OrgScope, user_id: UUID) -> list[ApiKey]:
    """The user's own keys in the scope's org that were active, revoked."""
    statement = update(api_keys).where(
        api_keys.c.org_id == UUID(scope.org_id), api_keys.c.user_id == user_id, api_keys.c.status == "active"
    )
    rows = (await connection.execute(statement.values(_REVOCATION).returning(api_keys))).mappings()
    return [ApiKey(**row) for row in rows]


async def revoke_api_keys_of_service_account(
    connection: AsyncConnection, scope: OrgScope, account_id: UUID
) -> list[ApiKey]:
    """The account's keys that were active, revoked."""
    statement = update(api_keys).where(
        api_keys.c.org_id == UUID(scope.org_id),
        api_keys.c.service_account_id == account_id,
        api_keys.c.status == "active",
    )
    rows = (await connection.execute(statement.values(_REVOCATION).returning(api_keys))).mappings()
    return [ApiKey(**row) for row in rows]


async def touch_api_keys_of_users(
    connection: AsyncConnection, scope: OrgScope | None, user_ids: Sequence[UUID]
) -> list[UUID]:
    """The users' own active keys, one version further: whether they open anything has changed. Lock the users first.

    Those in the scope's org; without a scope those in every org, for the platform.
    """
    statement = update(api_keys).where(api_keys.c.user_id.in_(user_ids), api_keys.c.status == "active")
    if scope is not None:
        statement = statement.where(api_keys.c.org_id == UUID(scope.org_id))
    statement = statement.values(version=api_keys.c.version + 1, updated_at=func.now())
    return list((await connection.execute(statement.returning(api_keys.c.id))).scalars())


_REVOCATION = {
    api_keys.c.status: "revoked",
    api_keys.c.revoked_at: func.now(),
    api_keys.c.updated_at: func.now(),
    api_keys.c.version: api_keys.c.version + 1,
}

_LOCK_TIMEOUT_MS = 300
"""Well below PostgreSQL's `deadlock_timeout` (1 s unless configured): between this and a change of several keys, this gives way."""

_MARK_USED = text("""
    UPDATE api_keys SET last_used_at = used.at
    FROM unnest(CAST(:org_ids AS uuid[]), CAST(:key_ids AS uuid[]), CAST(:moments AS timestamptz[])) AS used (org_id, id, at)
    WHERE api_keys.org_id = used.org_id AND api_keys.id = used.id
      AND (api_keys.last_used_at IS NULL OR api_keys.last_used_at <= used.at - CAST(:resolution AS interval))
""")
