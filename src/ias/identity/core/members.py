"""Members: who belongs to an org, with which role. An org always has an owner, and only owners make and unmake owners.

People come into an org by an invitation, to which they agree. Only administrators of the platform put somebody in without asking,
and make accounts with a password of their choice: whoever else could would know passwords of other people's accounts, learn
which e-mails have one, and see where strangers are signed in by making them members.
"""

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from ias.contracts.ids import uuid7
from ias.contracts.permissions import ROLE_PERMISSIONS, Permission, Role
from ias.identity.core import users
from ias.identity.core.audit_log import Change, Origin, append
from ias.identity.core.grants import list_held_roles, require_all_that_is_held_by, require_permissions
from ias.identity.core.org_rules import check_may_join
from ias.identity.core.passwords import Passwords
from ias.identity.core.redis_records import RedisRecords
from ias.identity.core.session_revocations import SessionRevocations
from ias.identity.store import api_keys as key_store
from ias.identity.store import members as store
from ias.identity.store import orgs as org_store
from ias.identity.store import users as user_store
from ias.identity.store.members import Member
from ias.identity.store.orgs import Org
from ias.kit.access import Access, OrgScope
from ias.kit.database import Database
from ias.kit.problems import ConflictError, FieldError, ForbiddenError, InvalidError, NotFoundError
from ias.kit.tokens import Claims
from ias.kit.writes import check_version


@dataclass(frozen=True, slots=True)
class NewMember:
    """Who shall belong to an org. The password is for somebody who is no user yet."""

    email: str
    role: Role
    password: str | None = None


@dataclass(frozen=True, slots=True)
class MemberChanges:
    """What to change of a member; None leaves it as it is."""

    role: Role | None = None
    status: str | None = None

    def against(self, member: Member) -> tuple[dict[str, Any], dict[str, Any]]:
        """What differs: as it is, and as it shall be."""
        wanted = {name: value for name, value in asdict(self).items() if value not in (None, getattr(member, name))}
        return {name: getattr(member, name) for name in wanted}, wanted


class Members:
    """Adding, reading, changing and removing members. Changes of one org's members happen one after the other."""

    def __init__(
        self, database: Database, passwords: Passwords, records: RedisRecords, revocations: SessionRevocations
    ) -> None:
        self._database = database
        self._passwords = passwords
        self._records = records
        self._revocations = revocations

    async def add(self, access: Access, org_id: UUID, wanted: NewMember, origin: Origin) -> Member:
        """A new member: the user of the e-mail or, with a password, a new user. A user who exists keeps their password.

        Raises:
            ConflictError: they are a member already.
            InvalidError: there is no such user, and no password to make one with.
            ForbiddenError: the caller does not administer the platform.
        """
        access.on_platform()
        scope = access.in_org(str(org_id))
        email = users.check_email(wanted.email)
        # Hashed before the transaction, whether or not it will be needed: it takes long.
        password_hash = await self._passwords.hash(wanted.password) if wanted.password is not None else None
        try:
            async with self._database.transaction() as connection:
                check_may_join(await lock_org(connection, org_id), email)
                user = await user_store.find_user_by_email(connection, email)
                changes = []
                if user is None:
                    if password_hash is None:
                        detail = "There is no user with this e-mail; give a password to make one."
                        raise InvalidError(detail, errors=[FieldError(pointer="/password", detail=detail)])
                    user = await users.insert_user(connection, email, password_hash)
                    changes.append(Change("user.create", user.id, after=users.describe(user)))
                now = datetime.now(UTC)
                member = {"id": uuid7(), "org_id": org_id, "user_id": user.id, "role": wanted.role}
                await store.insert_member(connection, {**member, "created_at": now, "updated_at": now})
                changes.append(Change("member.create", user.id, org_id, after={"email": email, "role": wanted.role}))
                await append(connection, origin.by(scope.actor), *changes)
                return await _get_member(connection, scope, user.id)
        except IntegrityError as error:
            raise ConflictError("They are a member already.", code="already_member") from error

    async def list_members(self, access: Access, org_id: UUID, *, after: UUID | None, limit: int) -> list[Member]:
        """Members of an org, newest first."""
        scope = access.in_org(str(org_id))
        async with self._database.transaction() as connection:
            if await org_store.find_org(connection, org_id) is None:
                raise NotFoundError
            return await store.list_members(connection, scope, after=after, limit=limit)

    async def update(
        self, access: Access, org_id: UUID, user_id: UUID, changes: MemberChanges, origin: Origin
    ) -> tuple[Member, bool]:
        """The member after the change; and whether that is in force at the gateways.

        Raises:
            ConflictError: it would leave the org without an owner.
            ForbiddenError: to a role that holds something the caller does not, or of a member who holds such a thing.
        """
        scope = access.in_org(str(org_id))
        key_ids: list[UUID] = []
        async with self._database.transaction() as connection:
            await lock_org(connection, org_id)
            member = await _get_member(connection, scope, user_id)
            check_version(member.version)
            before, after = changes.against(member)
            if not after:
                return member, True
            await require_power_over(connection, scope, member)
            await require_power(connection, scope, after.get("role", member.role))
            if _owns(member.role, member.status) and not _owns(
                **{"role": member.role, "status": member.status, **after}
            ):
                await _require_another_owner(connection, scope)
            await store.update_member(connection, scope, user_id, after)
            await user_store.raise_token_version(connection, user_id)
            key_ids = await key_store.touch_api_keys_of_users(connection, scope, [user_id])
            await append(connection, origin.by(scope.actor), Change("member.update", user_id, org_id, before, after))
            member = await _get_member(connection, scope, user_id)
        await self._revocations.push(user_ids=[user_id])
        return member, await self._records.push(api_key=key_ids)

    async def remove(self, access: Access, org_id: UUID, user_id: UUID, origin: Origin) -> bool:
        """Remove a member and revoke their own keys in the org; whether that is in force at the gateways.

        Raises:
            ConflictError: it would leave the org without an owner.
            ForbiddenError: they hold something that the caller does not.
        """
        scope = access.in_org(str(org_id))
        async with self._database.transaction() as connection:
            await lock_org(connection, org_id)
            member = await _get_member(connection, scope, user_id)
            check_version(member.version)
            await require_power_over(connection, scope, member)
            key_ids = await _remove(connection, scope, member, origin)
        await self._revocations.push(user_ids=[user_id])
        return await self._records.push(api_key=key_ids)

    async def leave(self, actor: Claims, org_id: UUID, origin: Origin) -> bool:
        """Let the caller out of an org, which every member may leave. As `remove`, but for the power that it takes.

        Raises:
            NotFoundError: they are no member.
            ConflictError: it would leave the org without an owner.
        """
        scope = Access(actor, Permission.ORGS_READ, origin).in_org(str(org_id))
        user_id = UUID(actor.sub)
        async with self._database.transaction() as connection:
            await lock_org(connection, org_id)
            member = await _get_member(connection, scope, user_id)
            check_version(member.version)
            key_ids = await _remove(connection, scope, member, origin)
        await self._revocations.push(user_ids=[user_id])
        return await self._records.push(api_key=key_ids)


async def lock_org(connection: AsyncConnection, org_id: UUID) -> Org:
    """The org, whose members nobody else changes until the commit.

    Raises:
        NotFoundError: there is none.
    """
    org = await org_store.find_org(connection, org_id, lock=True)
    if org is None:
        raise NotFoundError
    return org


async def _get_member(connection: AsyncConnection, scope: OrgScope, user_id: UUID) -> Member:
    member = await store.find_member(connection, scope, user_id)
    if member is None:
        raise NotFoundError
    return member


async def require_power(connection: AsyncConnection, scope: OrgScope, role: Role) -> None:
    """Return when the caller may give and take a role: nobody hands out what they do not hold, and owners are owners' alone.

    By the database and not by the token, which may be minutes old.

    Raises:
        ForbiddenError: they may not.
    """
    if scope.actor.platform_admin:
        return
    actor = await store.find_member(connection, scope, UUID(scope.actor.sub))
    if actor is None or actor.status != "active":
        raise ForbiddenError("You are no member of this org any more.")
    if role is Role.OWNER and actor.role is not Role.OWNER:
        raise ForbiddenError("Only an owner can make or unmake an owner.")
    await require_permissions(connection, scope, None, ROLE_PERMISSIONS[role])


async def has_power_still(connection: AsyncConnection, org_id: UUID, user_id: UUID, role: Role) -> bool:
    """Whether somebody who once gave a role could give it now. They do not ask: the rows alone say what they hold."""
    user = await user_store.find_user(connection, user_id)
    if user is None or user.status != "active":
        return False
    if user.platform_admin:
        return True
    held = [one for one in await list_held_roles(connection, user_id) if one.org_id == str(org_id)]
    if role is Role.OWNER and all(one.role != Role.OWNER or one.project_id for one in held):
        return False
    there = {permission for one in held if one.project_id is None for permission in one.permissions}
    return there >= ROLE_PERMISSIONS[role] | {Permission.MEMBERS_WRITE}


async def require_power_over(connection: AsyncConnection, scope: OrgScope, member: Member) -> None:
    """Return when the caller may change, remove or sign out a member: who holds all that the member holds, by whatever role.

    Raises:
        ForbiddenError: they may not.
    """
    await require_power(connection, scope, member.role)
    await require_all_that_is_held_by(connection, scope, member.user_id)


async def _remove(connection: AsyncConnection, scope: OrgScope, member: Member, origin: Origin) -> list[UUID]:
    """Take a member out of the scope's org, which is locked; the ids of their own keys, which are revoked."""
    if _owns(member.role, member.status):
        await _require_another_owner(connection, scope)
    await store.delete_member(connection, scope, member.user_id)
    await user_store.raise_token_version(connection, member.user_id)
    keys = await key_store.revoke_api_keys_of_user(connection, scope, member.user_id)
    before = {"email": member.email, "role": member.role}
    changes = [Change("member.delete", member.user_id, member.org_id, before, None)]
    changes += [
        Change("api_key.revoke", key.id, member.org_id, {"status": "active"}, {"status": "revoked"}) for key in keys
    ]
    await append(connection, origin.by(scope.actor), *changes)
    return [key.id for key in keys]


def _owns(role: Role, status: str) -> bool:
    return role is Role.OWNER and status == "active"


async def _require_another_owner(connection: AsyncConnection, scope: OrgScope) -> None:
    if await store.count_owners(connection, scope) < 2:
        raise ConflictError("The org would be left without an owner.", code="last_owner")
