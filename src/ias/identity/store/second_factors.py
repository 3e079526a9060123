"""Second factors and recovery codes of users."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from ias.identity.store.tables import recovery_codes, second_factors


@dataclass(frozen=True, slots=True)
class SecondFactor:
    """A row of `second_factors`."""

    user_id: UUID
    sealed_secret: str
    confirmed_at: datetime | None
    last_used_step: int | None
    created_at: datetime


async def find_second_factor(connection: AsyncConnection, user_id: UUID, *, lock: bool = False) -> SecondFactor | None:
    """The user's. `lock` lets one use of a code at a time decide."""
    query = select(second_factors).where(second_factors.c.user_id == user_id)
    if lock:
        query = query.with_for_update()
    row = (await connection.execute(query)).mappings().one_or_none()
    return SecondFactor(**row) if row else None


async def put_second_factor(connection: AsyncConnection, user_id: UUID, sealed_secret: str, now: datetime) -> None:
    """The user's, not confirmed, in place of any."""
    values = {"sealed_secret": sealed_secret, "confirmed_at": None, "last_used_step": None, "created_at": now}
    statement = upsert(second_factors).values(user_id=user_id, **values)
    await connection.execute(statement.on_conflict_do_update(index_elements=["user_id"], set_=values))


async def use_step(
    connection: AsyncConnection, user_id: UUID, step: int, *, confirmed_at: datetime | None = None
) -> None:
    """Let no code of this step or an earlier one work again."""
    statement = update(second_factors).where(second_factors.c.user_id == user_id)
    confirmed = func.coalesce(second_factors.c.confirmed_at, confirmed_at)
    await connection.execute(statement.values(last_used_step=step, confirmed_at=confirmed))


async def delete_second_factor(connection: AsyncConnection, user_id: UUID) -> None:
    """Forget the user's second factor and recovery codes."""
    await connection.execute(delete(recovery_codes).where(recovery_codes.c.user_id == user_id))
    await connection.execute(delete(second_factors).where(second_factors.c.user_id == user_id))


async def replace_recovery_codes(connection: AsyncConnection, user_id: UUID, digests: Sequence[str]) -> None:
    """The user's recovery codes from now on."""
    await connection.execute(delete(recovery_codes).where(recovery_codes.c.user_id == user_id))
    rows = [{"user_id": user_id, "digest": digest} for digest in digests]
    await connection.execute(insert(recovery_codes).values(rows))


async def use_recovery_code(connection: AsyncConnection, user_id: UUID, digest: str) -> bool:
    """Use a recovery code up; False when the user has none like it."""
    statement = delete(recovery_codes).where(recovery_codes.c.user_id == user_id, recovery_codes.c.digest == digest)
    return (await connection.execute(statement)).rowcount == 1


async def count_recovery_codes(connection: AsyncConnection, user_id: UUID) -> int:
    """How many are left."""
    query = select(func.count()).where(recovery_codes.c.user_id == user_id)
    return int((await connection.execute(query)).scalar_one())
