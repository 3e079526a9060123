"""Checkpoints: signed statements of where the audit log's chains ended.

A hash chain shows what was changed in the middle, and nothing of what was cut off at the end. A checkpoint names the end at a
time, signed with the key that signs tokens. It is kept, logged (where it is out of the database's reach), and part of every export.
"""

import json
from datetime import UTC, datetime
from uuid import UUID

import structlog
from joserfc import jws
from sqlalchemy.ext.asyncio import AsyncConnection

from ias.contracts.audit_chain import CHECKPOINT_TYPE
from ias.identity.core.signing_keys import SigningKeys
from ias.identity.store import audit_checkpoints as store
from ias.identity.store import audit_log as log_store
from ias.kit.audit import render_moment
from ias.kit.database import Database
from ias.kit.tokens import ALGORITHM

log = structlog.get_logger("ias.identity.audit")

IN_EXPORT_MAX = 500
_CHAINS_MAX = 100


class AuditCheckpoints:
    """Signs the ends of chains."""

    def __init__(self, database: Database, signing_keys: SigningKeys) -> None:
        self._database = database
        self._signing_keys = signing_keys

    async def sign_grown(self) -> int:
        """Sign the end of some chains that have grown since they were signed last; how many those were."""
        async with self._database.transaction() as connection:
            chains = await store.list_chains_without_checkpoint(connection, limit=_CHAINS_MAX)
        for chain_id in chains:
            async with self._database.transaction() as connection:
                await self.sign(connection, chain_id)
        return len(chains)

    async def sign(self, connection: AsyncConnection, chain_id: UUID) -> tuple[list[str], int]:
        """Sign where a chain ends now; its newest checkpoints, this one the last, and the sequence number of the end."""
        end = await log_store.find_chain_end(connection, chain_id)
        if end is None:
            return [], 0
        now = datetime.now(UTC)
        payload = {"chain_id": str(chain_id), "sequence": end.sequence, "hash": end.hash, "at": render_moment(now)}
        key = await self._signing_keys.get_private_key(connection)
        header = {"alg": ALGORITHM, "kid": key.kid, "typ": CHECKPOINT_TYPE}
        signed = jws.serialize_compact(header, json.dumps(payload), key, algorithms=[ALGORITHM])
        await store.insert_checkpoint(connection, chain_id, end.sequence, signed, now)
        log.info("audit checkpoint", **payload, signed=signed)
        return await store.list_checkpoints(connection, chain_id, until=end.sequence, limit=IN_EXPORT_MAX), end.sequence
