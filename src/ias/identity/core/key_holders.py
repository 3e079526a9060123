"""Who holds API keys of their own: a user's key opens something only while its user may make keys where it is.

Whoever loses that permission, by whatever role they held it, loses the use of their keys, and has it again when they are given it
back. What Redis is told of a key says so (`store/redis_records.py`); here is what changes with a role.
"""

from collections.abc import Collection, Sequence
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from ias.contracts.permissions import Permission
from ias.identity.core.grants import require_permissions
from ias.identity.store import api_keys as store
from ias.identity.store import users as user_store
from ias.kit.access import OrgScope

_HOLDING = Permission.API_KEYS_WRITE


async def touch_keys_of(
    connection: AsyncConnection,
    scope: OrgScope,
    user_ids: Sequence[UUID],
    before: Collection[Permission],
    after: Collection[Permission],
) -> list[UUID]:
    """The ids of keys in the scope's org whose use may change with what a role of their users' permits, one version further."""
    if not user_ids or (_HOLDING in before) == (_HOLDING in after):
        return []
    await user_store.lock_users(connection, user_ids)
    return await store.touch_api_keys_of_users(connection, scope, user_ids)


async def check_holder(connection: AsyncConnection, scope: OrgScope, project_id: UUID) -> None:
    """Return when the caller may make a key in a project, as whoever takes that from them will find the key.

    Raises:
        ForbiddenError: it was taken from them, though their token does not say so yet.
    """
    await user_store.lock_users(connection, [UUID(scope.actor.sub)])
    await require_permissions(connection, scope, project_id, [_HOLDING])
