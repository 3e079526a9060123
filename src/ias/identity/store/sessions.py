"""Sessions, each a family of refresh tokens of which one is usable."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import delete, exists, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from ias.identity.store.tables import refresh_tokens, sessions


@dataclass(frozen=True, slots=True)
class Session:
    """A row of `sessions`."""

    id: UUID
    user_id: UUID
    created_at: datetime
    expires_at: datetime
    revoked_at: datetime | None
    revoked_because: str | None
    source_ip: str | None
    user_agent: str | None
    last_used_at: datetime


async def insert_session(connection: AsyncConnection, values: dict[str, Any]) -> Session:
    """A new session."""
    result = await connection.execute(insert(sessions).values(values).returning(sessions))
    return Session(**result.mappings().one())


async def find_session(connection: AsyncConnection, session_id: UUID, *, lock: bool = False) -> Session | None:
    """The session of an id. `lock` lets one refresh at a time decide."""
    query = select(sessions).where(sessions.c.id == session_id)
    if lock:
        query = query.with_for_update(key_share=True)
    row = (await connection.execute(query)).mappings().one_or_none()
    return Session(**row) if row else None


async def list_sessions_of_user(
    connection: AsyncConnection, user_id: UUID, *, after: UUID | None, limit: int
) -> list[Session]:
    """The user's sessions that can still be refreshed, newest first."""
    query = (
        select(sessions)
        .where(sessions.c.user_id == user_id, sessions.c.revoked_at.is_(None), sessions.c.expires_at > func.now())
        .order_by(sessions.c.id.desc())
        .limit(limit)
    )
    if after is not None:
        query = query.where(sessions.c.id < after)
    return [Session(**row) for row in (await connection.execute(query)).mappings()]


async def list_sessions_revoked_within(connection: AsyncConnection, span: timedelta) -> list[UUID]:
    """Sessions that were ended lately."""
    query = select(sessions.c.id).where(sessions.c.revoked_at > func.now() - span)
    return list((await connection.execute(query)).scalars())


async def touch_session(connection: AsyncConnection, session_id: UUID) -> None:
    """Remember that the session was used now."""
    await connection.execute(update(sessions).where(sessions.c.id == session_id).values(last_used_at=func.now()))


async def revoke_session(connection: AsyncConnection, session_id: UUID, because: str) -> None:
    """End a session; one that has ended keeps its first reason."""
    statement = update(sessions).where(sessions.c.id == session_id, sessions.c.revoked_at.is_(None))
    await connection.execute(statement.values(revoked_at=func.now(), revoked_because=because))


async def revoke_sessions_of_user(
    connection: AsyncConnection, user_id: UUID, because: str, *, but: UUID | None = None
) -> list[UUID]:
    """End the user's sessions, all or all but one; which they were."""
    statement = update(sessions).where(
        sessions.c.user_id == user_id, sessions.c.revoked_at.is_(None), sessions.c.expires_at > func.now()
    )
    if but is not None:
        statement = statement.where(sessions.c.id != but)
    statement = statement.values(revoked_at=func.now(), revoked_because=because)
    return list((await connection.execute(statement.returning(sessions.c.id))).scalars())


async def delete_sessions_expired_before(connection: AsyncConnection, user_id: UUID, moment: datetime) -> None:
    """Forget a user's sessions that ended long ago, with their tokens."""
    await connection.execute(delete(sessions).where(sessions.c.user_id == user_id, sessions.c.expires_at < moment))


async def insert_refresh_token(connection: AsyncConnection, digest: str, session_id: UUID) -> None:
    """The session's usable token from now on."""
    values = {"digest": digest, "session_id": session_id, "created_at": func.now()}
    await connection.execute(insert(refresh_tokens).values(values))


async def find_session_id_of_token(connection: AsyncConnection, digest: str) -> UUID | None:
    """The session that a token was issued in."""
    query = select(refresh_tokens.c.session_id).where(refresh_tokens.c.digest == digest)
    return (await connection.execute(query)).scalar_one_or_none()


async def use_refresh_token(connection: AsyncConnection, digest: str) -> bool:
    """Use a token up; False when it was used before."""
    statement = update(refresh_tokens).where(refresh_tokens.c.digest == digest, refresh_tokens.c.used_at.is_(None))
    return (await connection.execute(statement.values(used_at=func.now()))).rowcount == 1


async def was_just_used(connection: AsyncConnection, digest: str, span: timedelta) -> bool:
    """Whether a token is the last that its session used, and that was within the time given."""
    newer = refresh_tokens.alias("newer")
    query = select(refresh_tokens.c.digest).where(
        refresh_tokens.c.digest == digest,
        refresh_tokens.c.used_at > func.now() - span,
        ~exists().where(newer.c.session_id == refresh_tokens.c.session_id, newer.c.used_at > refresh_tokens.c.used_at),
    )
    return (await connection.execute(query)).scalar_one_or_none() is not None
