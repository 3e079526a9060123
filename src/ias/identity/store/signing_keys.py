"""The Ed25519 keys that sign tokens; the private parts are sealed."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import func, insert, or_, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from ias.identity.store.tables import signing_keys


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A row of `signing_keys`. Its id is the `kid`."""

    id: UUID
    public_key: dict[str, Any]
    sealed_private_key: str
    created_at: datetime
    signs_from: datetime
    retired_at: datetime | None


async def lock_signing_keys(connection: AsyncConnection) -> None:
    """Let one transaction at a time add or retire keys; readers go on."""
    await connection.execute(text("LOCK TABLE signing_keys IN SHARE ROW EXCLUSIVE MODE"))


async def insert_signing_key(connection: AsyncConnection, values: dict[str, Any]) -> SigningKey:
    """A new key."""
    result = await connection.execute(insert(signing_keys).values(values).returning(signing_keys))
    return SigningKey(**result.mappings().one())


async def find_signing_key_in_use(connection: AsyncConnection, now: datetime) -> SigningKey | None:
    """The newest key that signs at a time."""
    query = (
        select(signing_keys)
        .where(
            signing_keys.c.signs_from <= now, or_(signing_keys.c.retired_at.is_(None), signing_keys.c.retired_at > now)
        )
        .order_by(signing_keys.c.signs_from.desc(), signing_keys.c.id.desc())
        .limit(1)
    )
    row = (await connection.execute(query)).mappings().one_or_none()
    return SigningKey(**row) if row else None


async def list_signing_keys_retired_after(connection: AsyncConnection, moment: datetime) -> list[SigningKey]:
    """Keys that sign, will sign, or were retired after a time; newest first."""
    query = (
        select(signing_keys)
        .where(or_(signing_keys.c.retired_at.is_(None), signing_keys.c.retired_at > moment))
        .order_by(signing_keys.c.id.desc())
    )
    return [SigningKey(**row) for row in (await connection.execute(query)).mappings()]


async def retire_signing_keys(connection: AsyncConnection, retired_at: datetime, *, but: UUID) -> None:
    """Let every key but one stop signing at a time; one that stops earlier anyway keeps its own."""
    statement = update(signing_keys).where(signing_keys.c.id != but)
    await connection.execute(statement.values(retired_at=func.least(signing_keys.c.retired_at, retired_at)))
