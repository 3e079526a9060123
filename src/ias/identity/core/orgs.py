"""Orgs: the tenants. Each has a default project from the start, and at least one owner."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from ias.contracts.ids import uuid7
from ias.contracts.permissions import Role
from ias.identity.core.audit_log import Change, Origin, append
from ias.identity.core.org_rules import check_not_deleted, check_not_locked_out, check_owners_stay
from ias.identity.core.redis_records import RedisRecords
from ias.identity.core.session_revocations import SessionRevocations
from ias.identity.store import members as member_store
from ias.identity.store import orgs as store
from ias.identity.store import projects as project_store
from ias.identity.store import users as user_store
from ias.identity.store.orgs import Org
from ias.kit.access import Access, OrgScope
from ias.kit.database import Database
from ias.kit.problems import ForbiddenError, NotFoundError
from ias.kit.writes import check_version

DEFAULT_PROJECT = "default"
_SIGN_IN_RULES = frozenset({"ip_networks", "sign_in_domains"})
"""What decides which members may act in the org: tokens that were issued before a change show what may not hold any more."""


@dataclass(frozen=True, slots=True)
class TenantChanges:
    """What may be changed of an org or a project: the fields named in `given` take the values here."""

    given: frozenset[str]
    name: str | None = None
    status: str | None = None
    models: list[str] | None = None
    key_lifetime_days_max: int | None = None
    sign_in_domains: list[str] | None = None
    ip_networks: list[str] | None = None

    def against(self, now: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """The fields that differ from a row: as they are, and as they shall be."""
        wanted = {name: getattr(self, name) for name in self.given}
        changed = {name: value for name, value in wanted.items() if getattr(now, name) != value}
        return {name: getattr(now, name) for name in changed}, changed


class Orgs:
    """Creating, reading, changing, deleting and restoring orgs."""

    def __init__(self, database: Database, records: RedisRecords, revocations: SessionRevocations) -> None:
        self._database = database
        self._records = records
        self._revocations = revocations

    async def create(self, access: Access, name: str, models: list[str] | None, origin: Origin) -> tuple[Org, bool]:
        """A new org with its default project, owned by the caller; and whether it is in force at the gateways.

        Raises:
            ForbiddenError: the caller does not administer the platform.
        """
        actor = access.on_platform()
        now = datetime.now(UTC)
        org_id, project_id, owner_id = uuid7(), uuid7(), UUID(actor.sub)
        times = {"created_at": now, "updated_at": now}
        async with self._database.transaction() as connection:
            org = await store.insert_org(connection, {"id": org_id, "name": name, "models": models, **times})
            project = {"id": project_id, "org_id": org_id, "name": DEFAULT_PROJECT, "is_default": True}
            await project_store.insert_project(connection, {**project, **times})
            owner = {"id": uuid7(), "org_id": org_id, "user_id": owner_id, "role": Role.OWNER}
            await member_store.insert_member(connection, {**owner, **times})
            await append(
                connection,
                origin.by(actor),
                Change("org.create", org_id, org_id, after={"name": name, "models": models}),
                Change("project.create", project_id, org_id, after={"name": DEFAULT_PROJECT, "models": None}),
                Change("member.create", owner_id, org_id, after={"role": Role.OWNER}),
            )
        return org, await self._records.push(org=org_id, project=project_id)

    async def get(self, access: Access, org_id: UUID) -> Org:
        """The org. Raises `NotFoundError` also when the caller has nothing to do with it."""
        access.in_org(str(org_id))
        async with self._database.transaction() as connection:
            org = await store.find_org(connection, org_id)
        if org is None:
            raise NotFoundError
        return org

    async def list_orgs(self, access: Access, *, after: UUID | None, limit: int) -> list[Org]:
        """The orgs that the caller may read, newest first."""
        async with self._database.transaction() as connection:
            return await store.list_orgs(connection, access.org_ids, after=after, limit=limit)

    async def update(self, access: Access, org_id: UUID, changes: TenantChanges, origin: Origin) -> tuple[Org, bool]:
        """The org after the changes; and whether they are in force at the gateways. Raises as `get` does.

        Raises:
            ConflictError: the org was deleted.
            ForbiddenError: the platform suspended it, and the caller is not the platform's; or these are settings of its owners.
            InvalidError: under these settings the caller could not act in the org any more, or an owner whom they are not.
        """
        scope = access.in_org(str(org_id))
        async with self._database.transaction() as connection:
            org = await _lock(connection, org_id)
            check_version(org.version)
            check_not_deleted(org.status, "org")
            _, after = changes.against(org)
            after |= _note_suspender(scope, org, changes)
            if not after:
                return org, org.pushed_version >= org.version
            before = {field: getattr(org, field) for field in after}
            await _check_caller_stays(connection, scope, after, origin)
            org = await store.update_org(connection, org_id, after)
            kept_out = []
            if _SIGN_IN_RULES & after.keys():
                kept_out = await user_store.raise_token_versions_in_org(connection, org_id, but=UUID(scope.actor.sub))
            await append(connection, origin.by(scope.actor), Change("org.update", org_id, org_id, before, after))
        await self._revocations.push(user_ids=kept_out)
        return org, await self._records.push(org=org_id)

    async def delete(self, access: Access, org_id: UUID, origin: Origin) -> bool:
        """Delete an org: its traffic stops, and after the retention it is purged. Deleting a deleted one is no error.

        All that its owners can do in it from now on is restore it: their tokens, the caller's too, are as old as everybody's.
        Whether that is in force at the gateways. Raises as `get` does.
        """
        scope = access.in_org(str(org_id))
        async with self._database.transaction() as connection:
            org = await _lock(connection, org_id)
            check_version(org.version)
            if org.status == "deleted":
                return org.pushed_version >= org.version
            deleter = "platform" if scope.actor.platform_admin else "org"
            deleted = {"status": "deleted", "deleted_at": datetime.now(UTC), "deleted_by": deleter}
            await store.update_org(connection, org_id, deleted)
            members = await _raise_token_versions(connection, scope)
            after = {"status": "deleted", "deleted_by": deleter}
            change = Change("org.delete", org_id, org_id, {"status": org.status}, after)
            await append(connection, origin.by(scope.actor), change)
        await self._revocations.push(user_ids=members)
        return await self._records.push(org=org_id)

    async def restore(self, access: Access, org_id: UUID, origin: Origin) -> tuple[Org, bool]:
        """The deleted org as it was, with all that is in it; and whether that is in force. Raises as `get` does.

        Its owners' tokens say only that they may restore it, and are too old now.

        Raises:
            ForbiddenError: the platform deleted it, and the caller is not the platform's.
        """
        scope = access.in_org(str(org_id))
        async with self._database.transaction() as connection:
            org = await _lock(connection, org_id)
            if org.status != "deleted":
                return org, org.pushed_version >= org.version
            if org.deleted_by == "platform" and not scope.actor.platform_admin:
                raise ForbiddenError(
                    "The platform deleted this org, and alone restores it.", code="deleted_by_platform"
                )
            status = "suspended" if org.suspended_by else "active"
            restored = {"status": status, "deleted_at": None, "deleted_by": None}
            org = await store.update_org(connection, org_id, restored)
            members = await _raise_token_versions(connection, scope)
            change = Change("org.restore", org_id, org_id, {"status": "deleted"}, {"status": status})
            await append(connection, origin.by(scope.actor), change)
        await self._revocations.push(user_ids=members)
        return org, await self._records.push(org=org_id)


async def _lock(connection: AsyncConnection, org_id: UUID) -> Org:
    org = await store.find_org(connection, org_id, lock=True)
    if org is None:
        raise NotFoundError
    return org


async def _raise_token_versions(connection: AsyncConnection, scope: OrgScope) -> list[UUID]:
    """Of all members but a platform admin who asks: what they may do, no org gives them."""
    but = UUID(scope.actor.sub) if scope.actor.platform_admin else None
    return await user_store.raise_token_versions_in_org(connection, UUID(scope.org_id), but=but)


def _note_suspender(scope: OrgScope, org: Org, changes: TenantChanges) -> dict[str, Any]:
    """Who suspends the org, to be remembered with it, where that changes. What the platform suspended no org restores."""
    if "status" not in changes.given:
        return {}
    by_platform = scope.actor.platform_admin
    if org.suspended_by == "platform" and not by_platform:
        if changes.status == "active":
            raise ForbiddenError(
                "The platform suspended this org, and alone restores it.", code="suspended_by_platform"
            )
        return {}
    suspender = None if changes.status == "active" else "platform" if by_platform else "org"
    return {} if suspender == org.suspended_by else {"suspended_by": suspender}


async def _check_caller_stays(
    connection: AsyncConnection, scope: OrgScope, after: dict[str, Any], origin: Origin
) -> None:
    if scope.actor.platform_admin or not after.keys() & _SIGN_IN_RULES:
        return
    user = await user_store.find_user(connection, UUID(scope.actor.sub))
    caller = await member_store.find_member(connection, scope, UUID(scope.actor.sub))
    if caller is None or caller.role is not Role.OWNER:
        if "ip_networks" in after:  # where owners ask from is not known, and nobody below them shall keep them out
            raise ForbiddenError("Only an owner says from which networks an org is used.")
        emails = await member_store.list_owner_emails(connection, UUID(scope.org_id), but_platform_admins=True)
        check_owners_stay(after.get("sign_in_domains"), emails)
    check_not_locked_out(
        ip_networks=after.get("ip_networks"),
        sign_in_domains=after.get("sign_in_domains"),
        email=user.email if user else "",
        source_ip=origin.source_ip,
    )
