"""Versions of the documents that gateways read from Redis.

A version grows with every change and is at least the time in Unix milliseconds, so that it goes on growing when PostgreSQL was
restored from a backup while Redis kept a newer document.
"""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from ias.billing.store.tables import PUBLISHED_DOCUMENTS

_RAISE = text(
    """
    INSERT INTO published_documents AS d (key, org_id, version)
    VALUES (:key, :org_id, floor(extract(epoch FROM clock_timestamp()) * 1000))
    ON CONFLICT (key) DO UPDATE SET version = greatest(d.version + 1, excluded.version)
    """
)


async def raise_version(connection: AsyncConnection, key: str, org_id: UUID | None) -> None:
    """Give a document its next version; other changes of the document wait until this transaction ends."""
    await connection.execute(_RAISE, {"key": key, "org_id": org_id})


async def find_version(connection: AsyncConnection, key: str) -> int:
    """The document's version; 0 when it was never changed."""
    version = await connection.scalar(select(PUBLISHED_DOCUMENTS.c.version).where(PUBLISHED_DOCUMENTS.c.key == key))
    return version or 0


async def read_versions(connection: AsyncConnection) -> dict[str, int]:
    """The version of every document, by its key."""
    rows = await connection.execute(select(PUBLISHED_DOCUMENTS.c.key, PUBLISHED_DOCUMENTS.c.version))
    return {row.key: row.version for row in rows}


async def list_orgs(connection: AsyncConnection, *, after: UUID | None, limit: int) -> list[UUID]:
    """Orgs that have or had a document of their own, in the order of their ids."""
    org_id = PUBLISHED_DOCUMENTS.c.org_id
    query = select(org_id).distinct().where(org_id.is_not(None)).order_by(org_id).limit(limit)
    if after is not None:
        query = query.where(org_id > after)
    return list((await connection.execute(query)).scalars())


async def list_changed(connection: AsyncConnection, *, above: int) -> Sequence[UUID | None]:
    """The org (None for the price table) of every document whose version is above the given one."""
    query = select(PUBLISHED_DOCUMENTS.c.org_id).where(PUBLISHED_DOCUMENTS.c.version > above)
    return list((await connection.execute(query)).scalars())
