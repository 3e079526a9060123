"""`Idempotency-Key`: a POST that is sent again, because its answer was lost, is answered again and not done again.

The answer is kept in the service's own database by the transaction that makes the change: it is there exactly when the change is,
whatever process is killed when. A request that failed left nothing, so it is simply done when it is sent again. Kept answers are
sealed, as some hold a secret that is shown once, and forgotten after a day.

The key belongs to the caller and the path; another caller's same key is another key. The header's meaning follows the IETF's draft
(draft-ietf-httpapi-idempotency-key-header): 409 while the first request is on its way, 422 when the request is another one.
"""

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import Column, DateTime, Index, LargeBinary, MetaData, Table, Text, delete, insert, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from ias.kit.problems import ConflictError, InvalidError
from ias.kit.sealing import Sealer

KEPT_FOR = timedelta(hours=24)
SEALING_PURPOSE = "idempotency answers"
_PURGED_AT_ONCE = 20
"""More than one, so that the table shrinks faster than it grows."""


def idempotency_keys_table(metadata: MetaData) -> Table:
    """The table, for a service's own metadata; its migration makes the same one (`kit.migrations`)."""
    return Table(
        "idempotency_keys",
        metadata,
        Column("digest", LargeBinary, primary_key=True),
        Column("fingerprint", LargeBinary, nullable=False),
        Column("sealed_answer", Text, nullable=False),
        Column("expires_at", DateTime(timezone=True), nullable=False),
        Index("idempotency_keys_expires_at", "expires_at"),
    )


_KEYS = idempotency_keys_table(MetaData())
_TRY_LOCK = text("SELECT pg_try_advisory_xact_lock(:lock)")
_PURGE = text(
    "DELETE FROM idempotency_keys WHERE digest IN (SELECT digest FROM idempotency_keys WHERE expires_at <= :now"
    " ORDER BY expires_at LIMIT :limit FOR UPDATE SKIP LOCKED)"
)


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer as it can be given again."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Claim:
    """Who sends which request under which key."""

    digest: bytes
    """Names the key among those of all callers and paths."""
    fingerprint: bytes
    """Tells one request from another."""

    @staticmethod
    def of(*, principal: str, path: str, key: str, query: str, body: bytes) -> "Claim":
        """The claim of a request. Bodies that are the same JSON are the same."""
        try:
            body = json.dumps(json.loads(body), sort_keys=True).encode()
        except ValueError:  # nothing will come of it anyway
            pass
        return Claim(_digest(principal.encode(), path.encode(), key.encode()), _digest(query.encode(), body))


class AnsweredBeforeError(Exception):
    """The request was done already; this is what was answered."""

    def __init__(self, answer: Answered) -> None:
        super().__init__("the request was answered before")
        self.answer = answer


class Replays:
    """The answers that are kept."""

    def __init__(self, sealer: Sealer) -> None:
        self._sealer = sealer

    async def claim(self, connection: AsyncConnection, claim: Claim) -> None:
        """Return when the request has to be done; nobody else does it until the transaction ends.

        Raises:
            AnsweredBeforeError: it was done.
            ConflictError: somebody else is doing it.
            InvalidError: the key was used for another request.
        """
        lock = int.from_bytes(claim.digest[:8], signed=True)
        if not await connection.scalar(_TRY_LOCK, {"lock": lock}):
            raise ConflictError(
                "A request with this Idempotency-Key is on its way.",
                code="idempotency_key_in_use",
                headers={"Retry-After": "1"},
            )
        now = datetime.now(UTC)
        query = select(_KEYS).where(_KEYS.c.digest == claim.digest, _KEYS.c.expires_at > now)
        kept = (await connection.execute(query)).one_or_none()
        if kept is None:
            return
        if kept.fingerprint != claim.fingerprint:
            raise InvalidError(
                "This Idempotency-Key was used for another request.", code="idempotency_key_used_otherwise"
            )
        status, headers, body = json.loads(self._sealer.open(kept.sealed_answer))
        raise AnsweredBeforeError(Answered(status, headers, body.encode()))

    async def keep(self, connection: AsyncConnection, claim: Claim, answer: Answered) -> None:
        """Keep an answer, and forget some that are too old."""
        now = datetime.now(UTC)
        await connection.execute(delete(_KEYS).where(_KEYS.c.digest == claim.digest))
        await connection.execute(_PURGE, {"now": now, "limit": _PURGED_AT_ONCE})
        sealed = self._sealer.seal(json.dumps([answer.status, answer.headers, answer.body.decode()]))
        await connection.execute(
            insert(_KEYS).values(
                digest=claim.digest, fingerprint=claim.fingerprint, sealed_answer=sealed, expires_at=now + KEPT_FOR
            )
        )


def _digest(*parts: bytes) -> bytes:
    whole = hashlib.sha256()
    for part in parts:
        whole.update(len(part).to_bytes(8) + part)
    return whole.digest()
