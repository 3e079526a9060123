"""Exports of the audit log: whole chains, or what a filter leaves of them, with the checkpoints that prove their ends."""

from collections.abc import AsyncIterator
from uuid import UUID

from ias.identity.core.audit_checkpoints import AuditCheckpoints
from ias.identity.core.audit_log import append, get_chain
from ias.identity.store import audit_log as store
from ias.identity.store.audit_log import AuditEntry, AuditFilter
from ias.kit.access import Access
from ias.kit.audit import Change, Origin
from ias.kit.database import Database

_BATCH = 500
"""Entries of an export that are in memory at the same time."""


class AuditExports:
    """Reads chains from their first entry on."""

    def __init__(self, database: Database, checkpoints: AuditCheckpoints) -> None:
        self._database = database
        self._checkpoints = checkpoints

    async def export(
        self, access: Access, org_id: UUID | None, wanted: AuditFilter, origin: Origin
    ) -> tuple[list[str], AsyncIterator[list[AuditEntry]]]:
        """An org's checkpoints, and its entries in the order of the chain up to and with the entry that this export makes.

        The last checkpoint is signed for this export: what is missing at the end is seen.

        Raises:
            NotFoundError: there is no such org, or the caller has nothing to do with it.
        """
        async with self._database.transaction() as connection:
            chain_id, actor = await get_chain(connection, access, org_id)
            asked = {
                name: value for name in AuditFilter.__dataclass_fields__ if (value := getattr(wanted, name)) is not None
            }
            change = Change("audit_log.export", chain_id, org_id, after={"filters": asked})
            await append(connection, origin.by(actor), change)
            signed, end = await self._checkpoints.sign(connection, chain_id)
        return signed, self._read(chain_id, wanted, end)

    async def _read(self, chain_id: UUID, wanted: AuditFilter, end: int) -> AsyncIterator[list[AuditEntry]]:
        after = 0
        while after < end:
            # A transaction for each batch: a slow reader holds no connection. What is written is never changed.
            async with self._database.transaction() as connection:
                batch = await store.list_chain(connection, chain_id, wanted, after=after, until=end, limit=_BATCH)
            if not batch:
                return
            yield batch
            after = batch[-1].sequence
