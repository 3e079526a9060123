"""Invitations into orgs. The token of one is never here, only its digest."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast
from uuid import UUID

from sqlalchemy import exists, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from ias.contracts.permissions import Role
from ias.identity.store.tables import invitations
from ias.kit.access import OrgScope


@dataclass(frozen=True, slots=True)
class Invitation:
    """A row of `invitations`."""

    id: UUID
    org_id: UUID
    email: str
    role: Role
    status: str
    token_digest: str
    expires_at: datetime
    sent_at: datetime
    created_by: UUID
    sent_by: UUID
    accepted_by: UUID | None
    version: int
    created_at: datetime
    updated_at: datetime


async def insert_invitation(connection: AsyncConnection, values: dict[str, Any]) -> Invitation:
    """A new invitation."""
    result = await connection.execute(insert(invitations).values(values).returning(invitations))
    return _invitation(result.mappings().one())


async def find_invitation(
    connection: AsyncConnection, scope: OrgScope, invitation_id: UUID, *, lock: bool = False
) -> Invitation | None:
    """An invitation into the scope's org."""
    query = select(invitations).where(invitations.c.org_id == UUID(scope.org_id), invitations.c.id == invitation_id)
    if lock:
        query = query.with_for_update(key_share=True)
    row = (await connection.execute(query)).mappings().one_or_none()
    return _invitation(row) if row else None


async def find_invitation_by_digest(
    connection: AsyncConnection, token_digest: str, *, lock: bool = False
) -> Invitation | None:
    """The invitation whose token somebody holds, which is all the scope that they need."""
    query = select(invitations).where(invitations.c.token_digest == token_digest)
    if lock:
        query = query.with_for_update(key_share=True)
    row = (await connection.execute(query)).mappings().one_or_none()
    return _invitation(row) if row else None


async def list_invitations(
    connection: AsyncConnection, scope: OrgScope, *, after: UUID | None, limit: int
) -> list[Invitation]:
    """Invitations into the scope's org, newest first, closed ones too."""
    query = (
        select(invitations)
        .where(invitations.c.org_id == UUID(scope.org_id))
        .order_by(invitations.c.id.desc())
        .limit(limit)
    )
    if after is not None:
        query = query.where(invitations.c.id < after)
    return [_invitation(row) for row in (await connection.execute(query)).mappings()]


async def count_pending(connection: AsyncConnection, scope: OrgScope) -> int:
    """How many invitations into the scope's org are open, expired ones too."""
    query = select(func.count()).where(invitations.c.org_id == UUID(scope.org_id), invitations.c.status == "pending")
    return int((await connection.execute(query)).scalar_one())


async def is_pending(connection: AsyncConnection, scope: OrgScope, email: str) -> bool:
    """Whether the e-mail has an open invitation into the scope's org. Lock the org first, or the answer may be old."""
    query = exists().where(
        invitations.c.org_id == UUID(scope.org_id), invitations.c.email == email, invitations.c.status == "pending"
    )
    return bool((await connection.execute(select(query))).scalar_one())


async def find_last_sent(connection: AsyncConnection, scope: OrgScope, email: str) -> datetime | None:
    """When the scope's org last sent an invitation to an e-mail, be it withdrawn since."""
    query = select(func.max(invitations.c.sent_at))
    query = query.where(invitations.c.org_id == UUID(scope.org_id), invitations.c.email == email)
    return cast("datetime | None", (await connection.execute(query)).scalar_one())


async def count_sent_since(connection: AsyncConnection, scope: OrgScope, moment: datetime) -> int:
    """How many invitations the scope's org sent since a moment, whatever became of them."""
    query = select(func.count()).where(invitations.c.org_id == UUID(scope.org_id), invitations.c.sent_at > moment)
    return int((await connection.execute(query)).scalar_one())


async def update_invitation(connection: AsyncConnection, invitation_id: UUID, changes: dict[str, Any]) -> Invitation:
    """The locked invitation after the change, one version further."""
    statement = update(invitations).where(invitations.c.id == invitation_id).returning(invitations)
    statement = statement.values(**changes, version=invitations.c.version + 1, updated_at=func.now())
    return _invitation((await connection.execute(statement)).mappings().one())


async def is_invited(connection: AsyncConnection, email: str, now: datetime) -> bool:
    """Whether any org waits for the e-mail."""
    query = exists().where(
        invitations.c.email == email, invitations.c.status == "pending", invitations.c.expires_at > now
    )
    return bool((await connection.execute(select(query))).scalar_one())


async def revoke_expired(connection: AsyncConnection, org_id: UUID, email: str, now: datetime) -> None:
    """Close the e-mail's open invitation if its time is over: another may take its place."""
    statement = update(invitations).where(
        invitations.c.org_id == org_id,
        invitations.c.email == email,
        invitations.c.status == "pending",
        invitations.c.expires_at <= now,
    )
    await connection.execute(
        statement.values(status="revoked", version=invitations.c.version + 1, updated_at=func.now())
    )


def _invitation(row: Any) -> Invitation:
    return Invitation(**{**row, "role": Role(row["role"])})
