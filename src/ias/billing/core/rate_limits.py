"""Rate limits: ceilings on how fast a scope may send requests or use tokens, and on how much of it at a time."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from ias.billing.core.publishing import Publishing
from ias.billing.core.scopes import check_scope_id
from ias.billing.store import published_documents, rate_limits
from ias.billing.store.rate_limits import RateLimit
from ias.contracts import redis_keys
from ias.contracts.ids import uuid7
from ias.contracts.spending import Metric, ScopeKind
from ias.kit.access import OrgScope
from ias.kit.audit import Change
from ias.kit.database import Database
from ias.kit.outbox import append
from ias.kit.problems import ConflictError, FieldError, InvalidError, NotFoundError
from ias.kit.writes import check_version

RATE_LIMITS_PER_ORG_MAX = 1_000
"""Every gateway holds the policies of the orgs it serves."""

LARGEST: dict[Metric, int] = {
    "requests_per_minute": 100_000_000,
    "tokens_per_minute": 10_000_000_000,
    "requests_per_day": 100_000_000,
    "concurrency": 100_000_000,
}
"""Times the milliseconds of its period each is below 2^53, up to which gateways count exactly."""


@dataclass(frozen=True, slots=True)
class NewRateLimit:
    """A rate limit that is asked for."""

    scope_kind: ScopeKind
    scope_id: str
    metric: Metric
    limit: int


class RateLimits:
    """Creates, lists, changes and deletes rate limits, and tells the gateways after every change."""

    def __init__(self, database: Database, publishing: Publishing) -> None:
        self._database = database
        self._publishing = publishing

    async def create(self, scope: OrgScope, new: NewRateLimit) -> RateLimit:
        """Add a rate limit.

        Raises:
            InvalidError: the limit is too large, or the scope's id has not the form of its kind.
            ConflictError: the scope has a limit on this metric already, or the org as many as an org may have.
        """
        now = datetime.now(UTC)
        limit = RateLimit(
            id=uuid7(),
            org_id=UUID(scope.org_id),
            scope_kind=new.scope_kind,
            scope_id=check_scope_id(scope, new.scope_kind, new.scope_id),
            metric=new.metric,
            limit=_check_limit(new.metric, new.limit),
            version=1,
            created_at=now,
            updated_at=now,
        )
        async with self._database.transaction() as connection:
            await published_documents.raise_version(connection, _policy_key(limit), limit.org_id)
            if await rate_limits.count_rate_limits(connection, limit.org_id) >= RATE_LIMITS_PER_ORG_MAX:
                raise ConflictError(
                    f"An org has at most {RATE_LIMITS_PER_ORG_MAX} rate limits.", code="too_many_rate_limits"
                )
            if not await rate_limits.insert_rate_limit(connection, limit):
                raise ConflictError(
                    "This scope has a rate limit on this metric already; change that one.", code="rate_limit_exists"
                )
            change = Change("rate_limit.create", limit.id, limit.org_id, after=_describe(limit))
            await append(connection, "billing", scope.cause, change)
        await self._publishing.publish_policy_or_leave_it(limit.org_id)
        return limit

    async def get(self, limit_id: UUID) -> RateLimit:
        """A rate limit of whichever org: the caller still has to show that they may see it.

        Raises:
            NotFoundError: there is none.
        """
        async with self._database.transaction() as connection:
            limit = await rate_limits.find_rate_limit(connection, limit_id)
        if limit is None:
            raise NotFoundError
        return limit

    async def list(self, scope: OrgScope, *, before: UUID | None, limit: int) -> list[RateLimit]:
        """The org's rate limits, newest first."""
        async with self._database.transaction() as connection:
            return await rate_limits.list_rate_limits(connection, UUID(scope.org_id), before=before, limit=limit)

    async def change(self, scope: OrgScope, limit: RateLimit, *, to: int | None) -> RateLimit:
        """Change the limit; what was used stays counted.

        Raises:
            InvalidError: the limit is too large.
            NotFoundError: the rate limit is gone.
            PreconditionFailedError: the change is meant for another version of it.
        """
        values: dict[str, Any] = {}
        if to is not None:
            values["limit"] = _check_limit(limit.metric, to)
        return await self._store(scope, limit, values)

    async def delete(self, scope: OrgScope, limit: RateLimit) -> None:
        """Stop enforcing a rate limit. Raises as `change` does."""
        await self._store(scope, limit, {"deleted_at": datetime.now(UTC)})

    async def _store(self, scope: OrgScope, limit: RateLimit, values: dict[str, Any]) -> RateLimit:
        if scope.org_id != str(limit.org_id):
            raise NotFoundError
        async with self._database.transaction() as connection:
            await published_documents.raise_version(connection, _policy_key(limit), limit.org_id)
            before = await rate_limits.find_rate_limit(connection, limit.id)
            if before is None:
                raise NotFoundError
            check_version(before.version)
            if all(getattr(before, name) == value for name, value in values.items()):
                return before
            changed = await rate_limits.change_rate_limit(connection, before, values)
            await append(connection, "billing", scope.cause, _change(before, changed))
        await self._publishing.publish_policy_or_leave_it(limit.org_id)
        return changed


def _change(before: RateLimit, after: RateLimit) -> Change:
    if after.deleted_at is not None:
        return Change("rate_limit.delete", before.id, before.org_id, before=_describe(before))
    return Change("rate_limit.update", before.id, before.org_id, _describe(before), _describe(after))


def _describe(limit: RateLimit) -> dict[str, object]:
    """What the audit log says of a rate limit."""
    return {
        "scope": {"kind": limit.scope_kind, "id": limit.scope_id},
        "metric": limit.metric,
        "limit": limit.limit,
    }


def _policy_key(limit: RateLimit) -> str:
    return redis_keys.spending_policy(str(limit.org_id))


def _check_limit(metric: Metric, limit: int) -> int:
    if limit > LARGEST[metric]:
        detail = f"It is larger than {LARGEST[metric]}."
        raise InvalidError(f"/limit: {detail}", errors=[FieldError(pointer="/limit", detail=detail)])
    return limit
