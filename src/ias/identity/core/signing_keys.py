"""The keys that sign tokens.

One is in use; the next is published before it signs; the one before stays published while its tokens live.
"""

import json
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import structlog
from joserfc.jwk import OKPKey
from sqlalchemy.ext.asyncio import AsyncConnection

from ias.contracts.ids import uuid7
from ias.identity.core.audit_log import Cause, Change, append
from ias.identity.store import signing_keys as store
from ias.identity.store.signing_keys import SigningKey
from ias.kit.database import Database
from ias.kit.problems import UnavailableError
from ias.kit.sealing import Sealer
from ias.kit.tokens import ALGORITHM

log = structlog.get_logger("ias.identity.signing_keys")

PUBLISHED_BEFORE = timedelta(minutes=5)
"""How long a new key is in the key set before it signs, so that every verifier has seen it by then."""
PUBLISHED_AFTER = timedelta(hours=1)
"""How long a retired key stays in the key set: longer than any token lives."""


_BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)


class SigningKeys:
    """The keys, in the database, their private parts sealed."""

    def __init__(self, database: Database, sealer: Sealer, *, lifetime: timedelta) -> None:
        self._database = database
        self._sealer = sealer
        self._lifetime = lifetime

    async def ensure(self) -> None:
        """Make the first key where there is none, and the next one when the newest has done its time."""
        now = datetime.now(UTC)
        async with self._database.transaction() as connection:
            await store.lock_signing_keys(connection)
            keys = await store.list_signing_keys_retired_after(connection, now)
            if not keys:
                await self._add(connection, signs_from=now)
            elif max(key.signs_from for key in keys) < now - self._lifetime:
                await self._rotate(connection, now)

    async def rotate(self) -> None:
        """Publish a new key now; from a few minutes on it signs, and the others do not."""
        async with self._database.transaction() as connection:
            await store.lock_signing_keys(connection)
            await self._rotate(connection, datetime.now(UTC))

    async def get_private_key(self, connection: AsyncConnection) -> OKPKey:
        """The key that signs now; its `kid` is set.

        Raises:
            UnavailableError: there is none.
            SealBrokenError: it was sealed with another root secret.
        """
        key = await store.find_signing_key_in_use(connection, datetime.now(UTC))
        if key is None:
            raise UnavailableError("There is no key to sign tokens with.")
        return OKPKey.import_key(json.loads(self._sealer.open(key.sealed_private_key)))

    async def get_jwks(self) -> dict[str, Any]:
        """The key set that verifies every token that may still be valid (RFC 7517)."""
        async with self._database.transaction() as connection:
            keys = await store.list_signing_keys_retired_after(connection, datetime.now(UTC) - PUBLISHED_AFTER)
        return {"keys": [key.public_key for key in keys]}

    async def get_every_public_key(self) -> dict[str, Any]:
        """The key set of every key that ever signed: what was signed for good stays verifiable."""
        async with self._database.transaction() as connection:
            keys = await store.list_signing_keys_retired_after(connection, _BEGINNING)
        return {"keys": [key.public_key for key in keys]}

    async def _rotate(self, connection: AsyncConnection, now: datetime) -> None:
        signs_from = now + PUBLISHED_BEFORE
        key = await self._add(connection, signs_from=signs_from)
        await store.retire_signing_keys(connection, signs_from, but=key.id)

    async def _add(self, connection: AsyncConnection, *, signs_from: datetime) -> SigningKey:
        key_id = uuid7()
        names = {"kid": str(key_id), "use": "sig", "alg": ALGORITHM}
        key = OKPKey.generate_key("Ed25519", parameters=cast("Any", names), private=True)
        private = json.dumps(key.as_dict(private=True))
        row = await store.insert_signing_key(
            connection,
            {
                "id": key_id,
                "public_key": key.as_dict(private=False),
                "sealed_private_key": self._sealer.seal(private),
                "created_at": datetime.now(UTC),
                "signs_from": signs_from,
            },
        )
        after = {"signs_from": signs_from.isoformat()}
        await append(connection, Cause("system", None), Change("signing_key.create", key_id, after=after))
        log.info("a new signing key", kid=str(key_id), signs_from=after["signs_from"])
        return row
