"""What a user may do now: the roles they hold, in orgs that let them act from where they are."""

from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from ias.contracts.permissions import PLATFORM_PERMISSIONS, ROLE_PERMISSIONS, Permission, Role
from ias.identity.core.org_rules import is_address_allowed, is_domain_allowed
from ias.identity.store import grants as store
from ias.identity.store import members as member_store
from ias.identity.store.grants import Grant
from ias.identity.store.users import User
from ias.kit.access import OrgScope
from ias.kit.problems import ForbiddenError

_RESTORER = "restorer"
_RESTORER_NAME = "owner of a deleted org"
_RESTORER_PERMISSIONS = frozenset({Permission.ORGS_READ, Permission.ORGS_DELETE})
"""What is left to an owner of a deleted org: to see that it is, and to take that back."""


@dataclass(frozen=True, slots=True)
class HeldRole:
    """A role that somebody holds, in an org or in one of its projects alone."""

    org_id: str
    project_id: str | None
    role: str
    """The name of a built-in role, the id of a custom one, or `restorer`: what an access token says."""
    name: str
    permissions: frozenset[Permission]


async def list_held_roles(
    connection: AsyncConnection, user_id: UUID, *, even_suspended: bool = False
) -> list[HeldRole]:
    """Everything a user holds, as the rows say; with `even_suspended` what they would hold, too, were they let.

    In a deleted org that is nothing, but for its owners, who may restore it.
    """
    return [_hold(grant) for grant in await store.list_grants(connection, user_id, even_suspended=even_suspended)]


def _hold(grant: Grant) -> HeldRole:
    project_id = str(grant.project_id) if grant.project_id else None
    if grant.own_name is not None:
        permissions = as_permissions(grant.permissions or ())
        return HeldRole(str(grant.org_id), project_id, grant.role, grant.own_name, permissions)
    if grant.org_status == "deleted":
        return HeldRole(str(grant.org_id), None, _RESTORER, _RESTORER_NAME, _RESTORER_PERMISSIONS)
    return HeldRole(str(grant.org_id), project_id, grant.role, grant.role, ROLE_PERMISSIONS[Role(grant.role)])


async def find_orgs_that_keep_out(
    connection: AsyncConnection, user: User, source_ip: str | None, org_ids: Iterable[str]
) -> set[str]:
    """Those of the orgs whose e-mail domains are not the user's, or whose networks the user does not ask from."""
    rules = await member_store.list_sign_in_rules(connection, set(org_ids))
    return {
        rule.org_id
        for rule in rules
        if not is_domain_allowed(rule.sign_in_domains, user.email)
        or not is_address_allowed(rule.ip_networks, source_ip)
    }


async def list_usable_roles(connection: AsyncConnection, user: User, source_ip: str | None) -> list[HeldRole]:
    """What an access token will say: the user's roles, without those in orgs whose settings keep them out.

    Such an org is to them like one they do not belong to, until a token is issued that finds them within.
    """
    held = await list_held_roles(connection, user.id)
    kept_out = await find_orgs_that_keep_out(connection, user, source_ip, {role.org_id for role in held})
    return [role for role in held if role.org_id not in kept_out]


async def require_permissions(
    connection: AsyncConnection, scope: OrgScope, project_id: UUID | None, needed: Iterable[Permission]
) -> None:
    """Return when the caller holds all of the permissions: nobody hands out, or takes, what they do not hold.

    By the rows and not by the token, which may be minutes old. `project_id` None asks for the whole org.

    Raises:
        ForbiddenError: naming what is missing.
    """
    if scope.actor.platform_admin:
        return
    held = await list_held_roles(connection, UUID(scope.actor.sub))
    _require(needed, _permissions_at(held, scope, str(project_id) if project_id else None))


async def require_all_that_is_held_by(connection: AsyncConnection, scope: OrgScope, user_id: UUID) -> None:
    """Return when the caller holds, wherever in the org a user holds something, all of it. Suspended users hold what they did.

    Raises:
        ForbiddenError: naming what is missing.
    """
    if scope.actor.platform_admin:
        return
    held = await list_held_roles(connection, UUID(scope.actor.sub))
    for role in await list_held_roles(connection, user_id, even_suspended=True):
        if role.org_id == scope.org_id:
            _require(role.permissions, _permissions_at(held, scope, role.project_id))


def _permissions_at(held: Iterable[HeldRole], scope: OrgScope, project_id: str | None) -> set[Permission]:
    """What roles permit in the scope's org, or in one project of it."""
    there = (role for role in held if role.org_id == scope.org_id and role.project_id in (None, project_id))
    return {permission for role in there for permission in role.permissions}


def _require(needed: Iterable[Permission], held: set[Permission]) -> None:
    missing = sorted(set(needed) - held)
    if missing:
        raise ForbiddenError(f"You do not hold {', '.join(f'`{permission}`' for permission in missing)} yourself.")


def as_permissions(texts: Iterable[str]) -> frozenset[Permission]:
    """The permissions of a custom role. One that a later version took away is none, one of the platform never is."""
    known = set(Permission) - PLATFORM_PERMISSIONS
    return frozenset(permission for permission in known if permission.value in set(texts))
