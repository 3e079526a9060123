"""Who applies a plan to an org right now, in PostgreSQL."""

from datetime import timedelta
from uuid import UUID

from sqlalchemy import delete, func
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from ias.gitops.store.tables import APPLY_LEASES


async def take_lease(connection: AsyncConnection, org_id: UUID, holder: UUID, lifetime_s: float) -> bool:
    """Take the org's lease unless somebody holds it; whether it was taken."""
    expires_at = func.now() + timedelta(seconds=lifetime_s)
    statement = insert(APPLY_LEASES).values(org_id=org_id, holder=holder, expires_at=expires_at)
    statement = statement.on_conflict_do_update(
        index_elements=[APPLY_LEASES.c.org_id],
        set_={"holder": holder, "expires_at": expires_at},
        where=APPLY_LEASES.c.expires_at < func.now(),
    )
    return (await connection.execute(statement.returning(APPLY_LEASES.c.holder))).one_or_none() is not None


async def give_lease_back(connection: AsyncConnection, org_id: UUID, holder: UUID) -> None:
    """Give the org's lease back, if it is still the holder's."""
    await connection.execute(
        delete(APPLY_LEASES).where(APPLY_LEASES.c.org_id == org_id, APPLY_LEASES.c.holder == holder)
    )
