"""The rules of route policies: how requests for a model are spread over its backends, tried again and timed."""

from dataclasses import replace
from typing import Any
from uuid import UUID

from ias.contracts import routes
from ias.kit.database import Database
from ias.kit.problems import FieldError, InvalidError, NotFoundError
from ias.kit.writes import check_version
from ias.registry.core.changes import Author, Change, Changes
from ias.registry.store.backends import has_canary
from ias.registry.store.route_policies import (
    RoutePolicy,
    find_route_policy,
    insert_route_policy,
    replace_route_policy,
)


class RoutePolicies:
    """Route policies, and what may be done to them. A model has one from its creation to its end."""

    def __init__(self, database: Database, changes: Changes) -> None:
        self._database = database
        self._changes = changes

    async def get_route_policy(self, model_id: UUID) -> RoutePolicy:
        """The policy of a model. Raises NotFoundError."""
        async with self._database.transaction() as connection:
            return _present(await find_route_policy(connection, model_id))

    async def update_route_policy(self, model_id: UUID, fields: dict[str, Any], author: Author) -> RoutePolicy:
        """The policy with the given fields replaced; nothing happens when they are what they were.

        Raises:
            NotFoundError: there is no such model.
            PreconditionFailedError: the change is meant for another version.
            InvalidError: the policy could not be followed.
        """
        async with self._changes.make(author) as change:
            policy = _present(await find_route_policy(change.connection, model_id))
            check_version(policy.version)
            if replace(policy, **fields) == policy:
                return policy
            updated = replace(policy, **fields, version=policy.version + 1, updated_at=change.at)
            await _check(change, updated)
            await replace_route_policy(change.connection, updated)
            change.record("route_policy.update", model_id, _describe(policy), _describe(updated))
        return updated


async def insert_first_policy(change: Change, model_id: UUID) -> None:
    """Give a new model the policy that the contract has by default."""
    default = routes.RoutePolicy()
    await insert_route_policy(
        change.connection,
        RoutePolicy(
            model_id=model_id,
            strategy=default.strategy,
            is_sticky=default.is_sticky,
            canary_percent=default.canary_percent,
            attempts_max=default.attempts_max,
            first_byte_timeout_s=default.first_byte_timeout_s,
            total_timeout_s=default.total_timeout_s,
            queue_timeout_s=default.queue_timeout_s,
            version=1,
            updated_at=change.at,
        ),
    )


def _present(policy: RoutePolicy | None) -> RoutePolicy:
    if policy is None:
        raise NotFoundError
    return policy


async def _check(change: Change, policy: RoutePolicy) -> None:
    """A canary share needs a canary that gets it, see `canaries`."""
    first_byte_s, total_s = policy.first_byte_timeout_s, policy.total_timeout_s
    if first_byte_s is not None and total_s is not None and first_byte_s > total_s:
        raise _invalid("first_byte_timeout_s", "may not be above total_timeout_s")
    if policy.canary_percent and not await has_canary(change.connection, policy.model_id):
        raise _invalid("canary_percent", "needs a backend of the group canary, or an adapter at one; add one first")


def _invalid(field: str, detail: str) -> InvalidError:
    return InvalidError(f"{field} {detail}.", errors=[FieldError(pointer=f"/{field}", detail=detail)])


def _describe(policy: RoutePolicy) -> dict[str, Any]:
    return {
        "strategy": policy.strategy,
        "is_sticky": policy.is_sticky,
        "canary_percent": policy.canary_percent,
        "attempts_max": policy.attempts_max,
        "first_byte_timeout_s": policy.first_byte_timeout_s,
        "total_timeout_s": policy.total_timeout_s,
        "queue_timeout_s": policy.queue_timeout_s,
    }
